"""The journal of a run: one JSON line a step, written by the first worker, read by whoever looks on.

Writes    `<run>/steps.jsonl`: step, epoch, loss, learning_rate, temperature, gradient_norm, samples_per_s, data_wait;
          and lines with `evaluation` for what held-out clips said
Promises  each step stands there once: a run that goes on from a checkpoint takes out the steps it will do again
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "steps.jsonl"


class Journal:
    """Appends lines; each is whole on the disk before the next step begins."""

    def __init__(self, folder: Path, step: int) -> None:
        """
        Args:
            step: the step that the run goes on from; lines after it are taken out.
        """
        self._path = folder / FILE
        kept = [line for line in entries(folder) if line["step"] <= step] if step else []
        whole = "".join(json.dumps(line) + "\n" for line in kept)
        temporary = self._path.with_suffix(".part")
        temporary.write_text(whole, encoding="utf-8")
        temporary.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Append one line."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal on this machine; one that a killed process left half-written is passed over."""
    path = folder / FILE
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def last(folder: Path) -> dict[str, Any] | None:
    """The newest line of a step, read from the end of the file."""
    path = folder / FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:  # the first line of what was read may be cut
            continue
        if "loss" in found and "evaluation" not in found:
            return found
    return None
