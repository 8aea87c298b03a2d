"""The review of an archive's captions: suspects, repeats, cut ones, and some to look at, on one page."""

from __future__ import annotations

from raydist.config import Config
from raydist.records import Report

SAMPLE = 60


def run(config: Config, out: str | None, *, sample: int = SAMPLE) -> Report:
    """Look through the captions of an archive."""
    raise NotImplementedError
