"""train as a job on a Ray cluster; the arguments are those of `raydist train`.

ray job submit --working-dir . --runtime-env jobs/runtime-env.yaml -- python jobs/train.py --archive s3://bucket/archive
"""

from __future__ import annotations

import sys

from raydist.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
