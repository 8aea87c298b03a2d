"""The clips that have captions, with all that is known of these: what an export writes.

Reads     `clips` and `captions`, each at one version
Promises  a caption counts only with its clip's present fingerprint; clips come in the table's order, file after file;
          memory is that of a batch
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raydist.store import filters
from raydist.store.schema import CAPTIONS
from raydist.store.sql import all_of, equals, is_in
from raydist.store.tables import lance_errors, need_table, open_table

CLIP = ("clip_key", "clip_id", "video_id", "start_s", "end_s", "start_ms", "end_ms", "split", "fingerprint")
"""What is given of a clip."""
CAPTION = ("number", "caption", "origin", "prompt_hash", "cut")
"""What is given of each of its captions."""
_BATCH = 8_192


class Captioned:
    """The clips of an archive that have captions, or captions of one origin. Iterating reads them from the tables."""

    def __init__(self, location: str, where: str | None = None, origin: str | None = None) -> None:
        """
        Args:
            where: SQL condition over the columns of `clips` and of `videos`.
            origin: of the captions; None: any.

        Raises:
            StoreError: no clips, or a condition that is none; it lists the columns.
        """
        self._clips = need_table(location, "clips")
        self._captions = open_table(location, "captions")
        self._where = where
        self._origin = origin
        self._filter = filters.resolve(self._clips, location, where)
        self.stale = 0
        """Captions that iterating has left out: their clip's file changed since."""

    def origins(self) -> list[str]:
        """Whose captions there are, of clips of whatever age."""
        if self._captions is None:
            return []
        with lance_errors(self._captions.uri):
            return sorted(pc.unique(self._captions.to_table(columns=["origin"])["origin"]).drop_null().to_pylist())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """A row a clip: the columns of `CLIP`, and `captions`, rows of `CAPTION` that are not empty, in the order of
        their origins and numbers."""
        self.stale = 0
        if self._captions is None:
            return
        with lance_errors(self._clips.uri, where=self._where, schema=self._clips.schema):
            scanner = self._clips.scanner(
                columns=list(CLIP), batch_size=_BATCH, scan_in_order=True, **self._filter.scan
            )
            for batch in scanner.to_batches():
                captions = self._of(batch["clip_key"])
                for clip in batch.to_pylist() if captions else ():
                    own = captions.get(clip["clip_key"], [])
                    current = [row for row in own if row.pop("fingerprint") == clip["fingerprint"]]
                    self.stale += len(own) - len(current)
                    if current:
                        yield {**clip, "captions": current}

    def _of(self, keys: pa.Array) -> dict[int, list[dict[str, Any]]]:
        """Clip key -> its captions, of whatever age."""
        assert self._captions is not None
        there = set(self._captions.schema.names)
        columns = ["clip_key", "fingerprint", *(name for name in CAPTION if name in there)]
        own = equals("origin", self._origin) if self._origin is not None else None
        with lance_errors(self._captions.uri):
            found = self._captions.scanner(
                columns=columns, filter=all_of(is_in("clip_key", keys.to_pylist()), own)
            ).to_table()
        of: dict[int, list[dict[str, Any]]] = {}
        lacking = {name: None for name in CAPTION if name not in there}
        for row in found.sort_by([(name, "ascending") for name in ("origin", "number", "caption")]).to_pylist():
            row["caption"] = (row["caption"] or "").strip()
            if row["caption"]:
                of.setdefault(row.pop("clip_key"), []).append({**row, **lacking})
        return of


def pairs_schema() -> pa.Schema:
    """Names and types of what is exported as pairs: a row a caption."""
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("clip_key", pa.int64()),
            ("video_id", pa.string()),
            ("path", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("split", pa.string()),
            *((name, CAPTIONS.field(name).type) for name in CAPTION),
            ("fingerprint", pa.string()),
        ]
    )
