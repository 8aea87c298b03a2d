"""export: what an archive holds, for other programs: vectors, clips with their captions, a merged checkpoint.

Reads     embeddings, `captions` and `clips`, the files of these; an adapter and the base that it was trained on
Writes    a new file or folder, whole or not at all; in the archive only the report, by which `raydist forget` knows
          what it cannot reach
"""

from raydist.export.captions import captions
from raydist.export.checkpoints import checkpoint
from raydist.export.vectors import embeddings

__all__ = ["captions", "checkpoint", "embeddings"]
