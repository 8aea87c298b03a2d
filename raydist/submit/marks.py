"""A job's log mixes stdout with stderr, and with what Ray says: lines of stdout are marked, so that they can be told.

Promises  what a verb printed as data arrives as data, byte for byte, at who follows the log
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MARK = "raydist| "
"""Before each line that a job printed on its stdout."""


class Marked(io.TextIOBase):
    """A stdout whose lines go to stderr, each marked and in one piece."""

    def __init__(self) -> None:
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # asked for by who prints; the base has an attribute
        """As text files have it."""
        return "utf-8"

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Say the lines that are whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._say(line + "\n")
        return len(text)

    def close(self) -> None:
        """Say what has no end of line."""
        if self._begun:
            self._say(self._begun + "\n")
            self._begun = ""
        super().close()

    def _say(self, line: str) -> None:
        sys.stderr.write(MARK + line)
        sys.stderr.flush()


@contextmanager
def marked() -> Iterator[None]:
    """What is printed in the block is marked."""
    before, stdout = sys.stdout, Marked()
    sys.stdout = stdout
    try:
        yield
    finally:
        stdout.close()
        sys.stdout = before


class Told:
    """Takes a log apart as it comes, in pieces of any size."""

    def __init__(self) -> None:
        self._begun = ""

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """(is data, line without its end) for each line that is whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            yield self._told(line)

    def rest(self) -> Iterator[tuple[bool, str]]:
        """What has no end of line."""
        if self._begun:
            yield self._told(self._begun)
            self._begun = ""

    @staticmethod
    def _told(line: str) -> tuple[bool, str]:
        return (True, line.removeprefix(MARK)) if line.startswith(MARK) else (False, line)
