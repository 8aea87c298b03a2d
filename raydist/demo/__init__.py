"""demo: generated clips, the tiny model that knows them, others that it learns, and the whole loop over them.

Drawing processes import this package, so it stays light: what needs torch and Ray is imported by `run` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raydist.config import Config

CLIPS = 240


def run(config: Config, *, clips: int = CLIPS, say: Callable[[str], None]) -> dict[str, Any]:
    """Draw clips, scan, embed and search them, and teach the model others; see `raydist.demo.loop.run`."""
    from raydist.demo import loop

    return loop.run(config, clips=clips, say=say)
