"""export: what an archive holds, for other programs: vectors, a merged checkpoint.

Reads     embeddings and `clips`; an adapter and the base that it was trained on
Writes    a new file or folder, whole or not at all; in the archive only the report, by which `raydist forget` knows
          what it cannot reach
"""

from raydist.export.checkpoints import checkpoint
from raydist.export.vectors import embeddings

__all__ = ["checkpoint", "embeddings"]
