"""A cluster of two nodes on this machine, and a run with a worker on each, as a process of its own.

    python tests/train/nodes.py ARCHIVE MODEL RUN        # prints how many nodes there were

Ray's cluster belongs to a whole process, and the tests' own one is of one node.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all ports on loopback; Ray reads it when it is imported
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from runs import trained  # noqa: E402


def main(archive: Path, model: Path, run: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    cluster.add_node(num_cpus=3)
    try:
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        nodes = sum(node["Alive"] for node in ray.nodes())
        trained(archive, model, run, "train.workers=2")
        print(nodes)  # noqa: T201  # what the test reads
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
