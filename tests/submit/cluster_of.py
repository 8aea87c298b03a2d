"""A Ray cluster of several nodes on this machine with its job server, as a process of its own.

    python tests/submit/cluster_of.py CPUS...      # a node each; `1+gpu`: with a fake GPU

Prints a line of JSON, `{"jobs": URL, "gcs": ADDRESS, "folder": ITS FILES}`, and then obeys a line each on stdin:
`add CPUS`, `kill` (the newest worker node, at once), `nodes`; each is answered by a line. It ends when stdin ends.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any

# A job's driver finds its cluster by a file in this folder, and would else take any other Ray of the machine.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="rs")
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all ports on loopback; Ray reads it when it is imported
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
os.environ.setdefault("RAY_health_check_failure_threshold", "20")  # a busy machine is no dead node

from ray.cluster_utils import Cluster

STORE_BYTES = 1 << 30


def node(text: str) -> dict[str, Any]:
    """What a node has: `2`, or `1+gpu`."""
    cpus, _, gpu = text.partition("+")
    return {"num_cpus": int(cpus), "num_gpus": 1 if gpu else 0, "object_store_memory": STORE_BYTES}


def worker(text: str) -> dict[str, Any]:
    """With a folder of its own, as another machine has: each node unpacks a job's files anew, over those of others."""
    return {**node(text), "temp_dir": tempfile.mkdtemp(prefix="rs")}


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(first: str, *others: str) -> None:
    ports = {"dashboard_port": 0, "dashboard_agent_listen_port": 0}  # their usual ones may be another Ray's
    place = {"include_dashboard": True, **ports}
    cluster = Cluster(initialize_head=True, head_node_args={**node(first), **place})
    workers = [cluster.add_node(**worker(text)) for text in others]
    say({"jobs": f"http://{cluster.head_node.webui_url}", "gcs": cluster.address, "folder": os.environ["RAY_TMPDIR"]})
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "add":
            workers.append(cluster.add_node(**worker(rest)))
        elif word == "kill":
            cluster.remove_node(workers.pop(), allow_graceful=False)
        say(len(workers) + 1)
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
