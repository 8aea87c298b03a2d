"""growing: embed on a cluster that Ray's own autoscaler makes larger, on this machine.

    python tests/submit/growing.py                      # the whole; prints a line of JSON
    python tests/submit/growing.py cluster 0 2 3 LOGS   # a head of 0 CPUs, and up to 3 nodes of 2 that come when needed

The nodes are Ray's fake ones: real raylets of this machine, which its autoscaler starts as it would machines. Ray's own
class for this begins and ends with `ray stop --force`, which takes other people's Ray away: this ends what it began.

Promises to show  clips are decoded on nodes that were not there at the start, and every clip has exactly one row
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import psutil  # noqa: E402
from archives import embeddings, rows, scanned, videos  # noqa: E402

from raydist.clips.decoder import Decoder  # noqa: E402
from raydist.config import load  # noqa: E402
from raydist.embed import graph  # noqa: E402
from raydist.records import Report  # noqa: E402

HEAD_CPUS, NODE_CPUS, MOST_NODES = 0, 2, 3
FILES, SECONDS = 40, 10
UNIT_S = 3.0
"""What a unit of work takes besides its decoding: minutes for one decoder. Ray Data looks at what nodes there are each
20 s, and asks for twice as much as it has, so that a shorter run is over before it has grown."""

STORE_BYTES = 200_000_000
ENDS_S = 60.0


def embedded(address: str, archive: Path, seen: Path) -> Report:
    """Embed with `tiny`; each decoder notes in `seen` what it did, and on which node."""
    noted, wait_s = str(seen), UNIT_S  # the class goes to the workers with what it names

    class Slow(Decoder):
        """The product's decoder, which takes longer."""

        def __call__(self, table: Any) -> Iterator[Any]:
            import ray

            node = ray.get_runtime_context().get_node_id()
            time.sleep(wait_s)
            yield from super().__call__(table)
            with open(os.path.join(noted, f"{node}-{os.getpid()}"), "a") as file:
                file.write("unit\n")

    changes = (
        f"ray.address={address}",
        f"ray.max_cpus={HEAD_CPUS + NODE_CPUS * MOST_NODES}",  # this autoscaler does not tell Ray
        "decode.memory_mb=256",
        "embed.device=cpu",
        "embed.commit_s=2",
        "embed.batch=8",
        "embed.threads=1",
    )
    config = load(changes=changes, options={"archive": str(archive), "embed.model": "tiny"}, environment={}).config
    return graph.run(config, actors=replace(graph.Actors(), decoder=Slow))


def main() -> dict[str, Any]:
    """On an archive of little clips of a second."""
    with tempfile.TemporaryDirectory(prefix="grow") as folder:
        archive, seen, logs = Path(folder, "archive"), Path(folder, "seen"), Path(folder, "logs")
        seen.mkdir()
        logs.mkdir()
        scanned(archive, videos(Path(folder, "videos"), FILES, SECONDS))
        with growing(HEAD_CPUS, NODE_CPUS, MOST_NODES, logs) as address:
            report = embedded(address, archive, seen)
        units: dict[str, int] = {}
        for noted in seen.iterdir():
            node = noted.name.partition("-")[0]
            units[node] = units.get(node, 0) + len(noted.read_text().splitlines())
        found = embeddings(archive)  # refuses two rows of a clip
        return {
            "counts": report.counts,
            "seconds": round(report.seconds, 1),
            "nodes": len(units),
            "decoders": len(list(seen.iterdir())),
            "units": sorted(units.values()),
            "failures": len(rows(archive, "failures")),
            "every_clip_once": set(found) == {row["clip_id"] for row in rows(archive, "clips")},
            "autoscaler": [line for log in sorted(logs.iterdir()) for line in log.read_text().splitlines()[-40:]],
        }


@contextmanager
def growing(head_cpus: int, node_cpus: int, most: int, logs: Path) -> Iterator[str]:
    """A cluster in a session of its own; its address. At the end nothing of that session is left but the autoscaler's
    logs."""
    words = [sys.executable, str(Path(__file__)), "cluster", *map(str, (head_cpus, node_cpus, most, logs))]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the cluster did not start"
        yield str(json.loads(line)["gcs"])
    finally:
        process.stdin.close()
        deadline = time.monotonic() + ENDS_S
        # Not `wait`: as long as nobody has, its number, which is that of the session, is given to no other process.
        while of_session(process.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        end(of_session(process.pid))
        left = of_session(process.pid)
        process.wait(ENDS_S)
        assert not left, left


def of_session(leader: int) -> list[psutil.Process]:
    """The processes of a session that run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(processes: list[psutil.Process]) -> None:
    """Kill these, and see that they go."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + ENDS_S
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def cluster(head_cpus: int, node_cpus: int, most: int, logs: Path) -> None:
    """Be the cluster until stdin ends."""
    if os.getsid(0) != os.getpid():
        os.setsid()  # what is of this session at the end is killed: it must be no shell's
    folder = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="rs")
    os.environ.update({"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "0", "AUTOSCALER_UPDATE_INTERVAL_S": "1"})
    from ray._private.services import get_node_ip_address
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = Path(folder, "autoscaler.json")  # which is YAML too
    address = f"{get_node_ip_address()}:{port}"  # type: ignore[no-untyped-call]  # Ray's own gap
    config.write_text(json.dumps(configuration(address, head_cpus, node_cpus, most)))
    head = {
        "num_cpus": head_cpus,
        "object_store_memory": STORE_BYTES,
        "gcs_server_port": port,
        "include_dashboard": False,
        "dashboard_agent_listen_port": 0,
        "autoscaling_config": str(config),
        "env_vars": {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID},  # by which the autoscaler knows its head
    }
    try:
        started = Cluster(initialize_head=True, head_node_args=head)
        sys.stdout.write(json.dumps({"gcs": started.address}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
        started.shutdown()  # type: ignore[no-untyped-call]  # Ray's own gap
    finally:
        end([process for process in of_session(os.getpid()) if process.pid != os.getpid()])
        for log in Path(folder).glob("ray/session_latest/logs/monitor.*"):
            shutil.copy(log, logs)
        shutil.rmtree(folder, ignore_errors=True)


def configuration(address: str, head_cpus: int, node_cpus: int, most: int) -> dict[str, Any]:
    """What Ray's autoscaler reads; it wants every one of these."""
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    nodes = {"CPU": node_cpus, "object_store_memory": STORE_BYTES}
    return {
        "cluster_name": "growing",
        "max_workers": most,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": nodes, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": list[str]() for name in lists},
    }


def _environment() -> None:
    """For Ray, before it is imported."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all ports on loopback
    usual = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_health_check_failure_threshold": "20",  # a busy machine is no dead node
    }
    for name, value in usual.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    _environment()
    if sys.argv[1:2] == ["cluster"]:
        cluster(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        sys.stdout.write(json.dumps(main()) + "\n")
