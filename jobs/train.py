"""train as a job on a Ray cluster; the arguments are those of `raydist train`.

ray job submit --working-dir . -- python jobs/train.py --archive /shared/archive --config jobs/recipe.toml
"""

from __future__ import annotations

import sys

from raydist.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
