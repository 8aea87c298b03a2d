"""Draw clips to try the jobs on: FOLDER/videos, and a list of their captions, FOLDER/captions.csv.

python jobs/draw.py FOLDER [CLIPS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from raydist.demo import films

CLIPS = 96


def main(folder: Path, clips: int = CLIPS) -> None:
    """Draw what is missing; the same number gives the same clips."""
    chosen = films.choose(folder / "videos", clips)
    films.draw(chosen)
    films.write_captions(chosen, folder / "captions.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(count) for count in sys.argv[2:3]))
