"""bench ranged: bytes and requests for a span of a large object. Answers: does it cost its own bytes or the file's?

    PYTHONPATH=tests/clips python tests/benchmarks/ranged.py [--mb 105] [--start 31]

Objects of 2, 5 and 12 Mbit/s, index at the front and at the end, one with sound, on a web server and in an S3 store on
127.0.0.1; a JSON line each: bytes, requests, EXACT as a ratio to the span's video packets and the index, FAST to the
span's. `agree`: the frames are those of the file on disk. Ends with 1 where a ratio is above 1.3 or 0.5.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from loopback import Loopback
from noisy import SIZES, need, noisy
from stores import ENVIRONMENT, fill, s3_server

from raydist.clips.decode import decode_spans
from raydist.records import Span

MOST = {"exact": 1.3, "fast": 0.5}


def measure(location: str, server: Loopback, path: Path, span: Span) -> bool:
    """Print a line for each way of sampling; True if all are within bounds."""
    needed = need(path, span.start_ms, span.end_ms)
    good = True
    for sampling, most in MOST.items():
        server.forget()
        (clip,) = decode_spans(location, [span], sampling=sampling)
        (local,) = decode_spans(str(path), [span], sampling=sampling)
        least = needed.span_bytes + (needed.index_bytes if sampling == "exact" else 0)
        ratio = clip.bytes_read / least
        agree = bool(np.array_equal(clip.frames, local.frames))
        good = good and agree and ratio <= most
        line = {
            "bench": "ranged",
            "server": location.partition(":")[0],
            "object": path.stem,
            "object_mb": round(path.stat().st_size / 1e6, 1),
            "sampling": sampling,
            "span_mb": round(needed.span_bytes / 1e6, 2),
            "index_mb": round(needed.index_bytes / 1e6, 2),
            "read_mb": round(clip.bytes_read / 1e6, 2),
            "requests": len(server.asked),
            "ratio": round(ratio, 3),
            "most": most,
            "agree": agree,
        }
        print(json.dumps(line), flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=105, help="size of an object")
    parser.add_argument("--start", type=float, default=31.0, help="start of the span in seconds")
    options = parser.parse_args()
    start_ms = round(options.start * 1000)
    span = Span(start_ms=start_ms, end_ms=start_ms + 30_000)
    os.environ.update(ENVIRONMENT)
    kinds = [(mbit, first, False) for mbit in SIZES for first in (True, False)] + [(2, False, True)]
    good = True
    with tempfile.TemporaryDirectory() as folder, s3_server() as port, Loopback(upstream=port) as store:
        os.environ["AWS_ENDPOINT_URL"] = store.url
        for mbit, first, sound in kinds:
            path = noisy(Path(folder), mbit, options.mb, moov_first=first, sound=sound)
            with Loopback({"/a.mp4": path.read_bytes()}) as web:
                good = measure(f"{web.url}/a.mp4", web, path, span) and good
            fill(port, "films", {"a.mp4": path})
            good = measure("s3://films/a.mp4", store, path, span) and good
            path.unlink()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
