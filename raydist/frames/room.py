"""frames/room: the size of the frame cache, said before it is built, and its bound.

Promises  a cache that would not fit is refused with the choices; to make room, caches of other models' geometry go,
          the one whose last use is longest ago first, but only while nobody else works on the archive
"""

from __future__ import annotations

import math
import shutil

import pyarrow as pa

from raydist.clips.decoder import Geometry
from raydist.errors import ResourceError
from raydist.frames import pixels
from raydist.progress import talk
from raydist.store import frames
from raydist.store.lease import Lease
from raydist.store.location import folder, is_uri


def estimate(pairs: pa.Table, geometry: Geometry, encoding: str = pixels.RAW, candidates: int = 1) -> int:
    """Bytes that the frames of clips take on disk: of raw ones to a per mille, of JPEG about."""
    if encoding == pixels.NONE:
        return 0
    clips: int = pairs.num_rows
    return math.ceil(clips * pixels.bytes_a_clip(geometry, encoding, candidates))


def size_text(size_bytes: float) -> str:
    """Bytes for a person."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"


def refuse_too_large(
    pairs: pa.Table, geometry: Geometry, encoding: str, candidates: int, *, limit: int, known_bytes: int = 0
) -> None:
    """
    Args:
        known_bytes: what it takes at least, where the estimate turned out too low.

    Raises:
        ResourceError: the cache of these clips would be larger than `limit`; the message lists the choices.
    """
    wanted = max(known_bytes, estimate(pairs, geometry, encoding, candidates))
    if wanted <= limit:
        return
    choices = []
    if encoding == pixels.RAW:
        jpeg = estimate(pairs, geometry, pixels.JPEG, candidates)
        choices.append(f"`--set train.cache=jpeg` (quality 95, about {size_text(jpeg)})")
    if candidates > 1:
        single = estimate(pairs, geometry, encoding)
        choices.append(f"`--set train.jitter=false` (one frame an interval, {size_text(single)})")
    choices.append("`--set train.cache=none` (nothing on disk, every epoch decodes again)")
    choices.append(f"`--set train.cache_gb={math.ceil(wanted / 1e8) / 10:g}`")
    shape = f"{geometry.frames * candidates} frames of {geometry.size_px} x {geometry.size_px}"
    raise ResourceError(
        f"the frame cache of {pairs.num_rows:,} clips ({shape}, {encoding}) takes {size_text(wanted)}, train.cache_gb "
        f"allows {size_text(limit)}. Choose: {', or '.join(choices)}"
    )


def make_room(location: str, table: str, needed_bytes: int, *, limit: int, held: Lease) -> None:
    """See that `needed_bytes` more fit within the bound; the table itself goes last, full of what nobody asked for.

    Raises:
        ResourceError: something must go, and others are at work.
    """
    sizes = {name: frames.bytes_on_disk(location, name) for name in frames.tables(location)}
    for name in sorted(sizes, key=lambda name: name == table):  # longest unused first, its own last
        if sum(sizes.values()) + needed_bytes <= limit:
            break
        if strangers := held.strangers():
            raise ResourceError(
                f"{size_text(sum(sizes.values()))} of cached frames are there, {size_text(needed_bytes)} more would "
                f"exceed train.cache_gb ({size_text(limit)}), and older ones cannot go while {strangers[0]} is at "
                "work: wait for it, or raise train.cache_gb"
            )
        talk.print(f"frame cache: {name} ({size_text(sizes[name])}) makes room")
        frames.drop(location, name)
        del sizes[name]


def refuse_full_disk(location: str, needed_bytes: int) -> None:
    """
    Raises:
        ResourceError: less is free on the archive's disk; a bucket has no end.
    """
    if is_uri(location):
        return
    free = shutil.disk_usage(folder(location)).free
    if free < needed_bytes:
        raise ResourceError(
            f"the frame cache needs {size_text(needed_bytes)} more, on the disk of {location!r} {size_text(free)} are "
            "free: make room, or choose `--set train.cache=jpeg` or `--set train.cache=none`"
        )
