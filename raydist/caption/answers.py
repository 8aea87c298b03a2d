"""Answers that were paid for and are not in the table yet: a small file each, written before anything else is asked.

Writes    `captioning/answers/<clip key>.json` in the archive, by the worker that got the answer
Promises  an answer is on the disk before its worker asks for the next one, and its file goes only after the commit that
          holds it: whoever is killed at whatever moment, only requests in flight are paid for twice
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from raydist.caption.tables import ANSWERED
from raydist.store import objects

FOLDER = "captioning/answers"

_READERS, _AT_ONCE = 8, 256

Row = dict[str, Any]


def name_of(clip_key: int) -> str:
    """The file of a clip's answer, below the archive."""
    return f"{FOLDER}/{clip_key & (1 << 64) - 1:016x}.json"


def keep(location: str, row: Mapping[str, Any]) -> None:
    """Write a row of `ANSWERED` to the disk."""
    objects.replace(location, name_of(row["clip_key"]), json.dumps(row, ensure_ascii=False).encode())


def kept(location: str, wanted: Mapping[str, Any], origin: str, prompt_hash: str) -> Row | None:
    """The answer that a clip has got already, to this prompt; None: it has none."""
    row = _parsed(objects.read(location, name_of(wanted["clip_key"])))
    if row is None:
        return None
    same = row["fingerprint"] == wanted["fingerprint"] and row["origin"] == origin and row["prompt_hash"] == prompt_hash
    return row if same else None


def all_kept(location: str) -> Iterator[Row]:
    """All answers that wait for a commit."""
    names = [entry.name for entry in objects.entries(location, FOLDER)]
    with ThreadPoolExecutor(_READERS) as pool:  # each waits for the bucket's server
        for start in range(0, len(names), _AT_ONCE):
            for data in pool.map(partial(objects.read, location), names[start : start + _AT_ONCE]):
                row = _parsed(data)
                if row is not None:
                    yield row


def drop(location: str, keys: Iterable[int]) -> None:
    """Delete the files of clips: their answers are committed, or nobody may have them."""
    objects.delete_all(location, map(name_of, keys))


def _parsed(data: bytes | None) -> Row | None:
    """A row of `ANSWERED`; None if it is none, which a full disk may leave."""
    if data is None:
        return None
    try:
        row = json.loads(data)
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.keys() == set(ANSWERED.names) else None
