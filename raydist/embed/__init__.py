"""embed: clips -> vectors.

Reads   clips of `clips` that have neither a vector of this model nor a failure; the files they lie in
Writes  `embeddings_<model_key>` (float16, unit length), `signatures` on the way, `failures`
Again   safe after any crash and beside other drivers: done clips are skipped, none is written twice
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydist.config import Config
    from raydist.records import Report


def run(config: Config, *, retry_failed: bool = False) -> Report:
    """Embed every clip that the archive lacks for the model.

    Raises:
        ArchiveError: no archive, or nothing was scanned into it.
        ModelError: the model is unknown or not on this machine.
        StoreError: no model was named and the archive has several, or its name stands for another one there.
        ResourceError: the cluster cannot run the plan.
    """
    # Here and not above: decoding workers import this package too, and do without torch (200 MB and 2 s each).
    from raydist.embed.graph import run as run_graph

    return run_graph(config, retry_failed=retry_failed)
