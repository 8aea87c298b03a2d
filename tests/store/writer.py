"""One driver of an embed run, for tests that kill it: takes pending clips, commits rows, until none is left.

python writer.py LOCATION SEED
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tables

from raydist.store import commit, pending, schema


def run(location: str, seed: int) -> None:
    rng = random.Random(seed)
    kind = schema.embeddings(4)
    waiting = pending.pending_clips(location, tables.MODEL, hash_version=1)
    committer = commit.Committer(location, tables.TABLE, kind, version=waiting.versions[tables.TABLE])
    for clips in waiting:
        keys = clips["clip_key"].to_pylist()
        prints = clips["fingerprint"].to_pylist()
        start = 0
        while start < len(keys):
            fragments = []
            for _ in range(rng.randint(1, 3)):
                stop = start + rng.randint(1, 40)
                rows = tables.embeddings(keys[start:stop], prints[start:stop])
                fragments += commit.write_fragments(location, tables.TABLE, rows, kind)
                start = stop
            time.sleep(rng.uniform(0, 0.05))
            committer.commit(fragments)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
