"""Blocks that the driver holds by reference until their commit; a node may take some of them along.

Ray makes a lost block again where somebody is left who can: as long as its actors have no place, whoever asks for it
waits. Small blocks are no matter, the driver has them itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from raydist.runtime.bounds import check_places

LOOKS_S = 30.0
"""How long a task may take before it is asked whether its blocks still come; how long they are looked for."""


def got(reference: Any) -> Any:
    """What a reference stands for.

    Raises:
        PlacesLostError: it went with a node, and who could make it again has no place.
    """
    import ray

    while not ray.wait([reference], timeout=LOOKS_S)[0]:
        check_places()
    return ray.get(reference)


def made_of(start: Callable[[Sequence[Any]], Any], blocks: Sequence[Any], *, last: bool) -> tuple[Any, list[int]]:
    """What a task makes of blocks.

    Args:
        start: of the task, with some of the blocks; a reference to what it makes.
        blocks: references.
        last: the dataset has ended, so nobody makes blocks again that went with a node: they are left out.

    Returns:
        What was made, None where no block is left, and the places of the blocks that it was made of.

    Raises:
        PlacesLostError: blocks went with a node, and who could make them again has no place; not where it is the last.
    """
    import ray

    places = list(range(len(blocks)))
    while places:
        left = places
        task = start([blocks[place] for place in places])
        try:
            while len(left) == len(places):
                if ray.wait([task], timeout=LOOKS_S)[0]:
                    return ray.get(task), places
                if last:
                    left = _left(blocks, places)
                else:
                    check_places()
        except ray.exceptions.RayError:
            left = _left(blocks, places) if last else places
            if len(left) == len(places):
                raise
        except BaseException:
            ray.cancel(task, force=True)
            raise
        ray.cancel(task, force=True)
        places = left
    return None, []


def those_there(blocks: Sequence[Any], within_s: float) -> list[bool]:
    """Which blocks can be had."""
    import ray

    deadline = time.monotonic() + within_s
    ready = set(ray.wait(list(blocks), num_returns=len(blocks), timeout=within_s)[0])
    return [block in ready and _is_whole(block, deadline) for block in blocks]


def _left(blocks: Sequence[Any], places: Sequence[int]) -> list[int]:
    there = those_there([blocks[place] for place in places], LOOKS_S)
    return [place for place, is_there in zip(places, there, strict=True) if is_there]


def _is_whole(block: Any, deadline: float) -> bool:
    """Whether it is a block: one that nobody can make again is ready too, as an error."""
    import ray

    try:
        ray.get(block, timeout=max(0.1, deadline - time.monotonic()))
    except ray.exceptions.RayError:
        return False
    return True
