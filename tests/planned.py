"""A cluster of several nodes on this machine, and where a plan's processes end up, as a process of its own.

    python tests/planned.py mixed|grows|loses|shrinks|keeps  # prints a JSON object

Ray's cluster belongs to a whole process, and the tests' own one is of one node.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "clips")]
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all ports on loopback; Ray reads it when it is imported
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import ray  # noqa: E402
from archives import embeddings, rows, scanned, videos  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from raydist import progress, runtime  # noqa: E402
from raydist.clips.decoder import Decoder  # noqa: E402
from raydist.config import load  # noqa: E402
from raydist.embed import graph  # noqa: E402
from raydist.embed.embedder import Embedder  # noqa: E402
from raydist.runtime import bounds, held  # noqa: E402
from raydist.sections import Ray  # noqa: E402

ray._private.utils.set_sigterm_handler = lambda _: None  # nodes come from a thread here, which may set none

BALLAST = "." * 60_000


class Here:
    """Says on which node it works."""

    def __init__(self, column: str, takes_s: float) -> None:
        self._column, self._takes_s = column, takes_s

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(self._takes_s)
        node = ray.get_runtime_context().get_node_id()
        return table.append_column(self._column, pa.array([node] * table.num_rows))


def places(
    resources: runtime.Resources, plan: runtime.Plan, files: list[str], takes_s: float
) -> Iterator[dict[str, Any]]:
    """Where each row was decoded and encoded."""
    units = runtime.units_of(files).map_batches(
        Here,
        fn_constructor_args=("decoded", takes_s),
        batch_size=None,
        batch_format="pyarrow",
        compute=plan.worker_pool(),
        **plan.worker_args,
    )
    if plan.encoders:
        units = units.map_batches(
            Here,
            fn_constructor_args=("encoded", 0.0),
            batch_size=4,
            batch_format="pyarrow",
            compute=plan.encoder_pool(),
            num_cpus=plan.encoder_cpus,
            num_gpus=plan.encoder_gpus,
        )
    for block in runtime.blocks(units, resources):
        yield from block.to_pylist()


def mixed(cluster: Cluster, files: list[str]) -> dict[str, Any]:
    """A node with CPUs, and one with a GPU besides."""
    gpu = cluster.add_node(num_cpus=4, num_gpus=1)
    with runtime.session(Ray(address=cluster.address)) as resources:
        found: dict[str, Any] = {"plan": runtime.described(runtime.plan(resources, encoders=0, gpus=True), resources)}
        few = runtime.plan(resources, workers=3, encoders=0, gpus=True)
        placed = list(places(resources, few, files, 0.05))
        found["few_beside_gpu"] = sum(row["decoded"] == gpu.node_id for row in placed)
        found["encoded_beside_gpu"] = sum(row["encoded"] == gpu.node_id for row in placed)
        found["rows"] = len(placed)
    return found


def grows(cluster: Cluster, files: list[str]) -> dict[str, Any]:
    """A node comes in the middle."""
    with runtime.session(Ray(address=cluster.address, max_cpus=8)) as resources:
        plan = runtime.plan(resources)
        later = threading.Timer(5.0, cluster.add_node, kwargs={"num_cpus": 4})
        later.start()
        placed = list(places(resources, plan, files, 1.0))
        later.join()
    return {
        "nodes": len({row["decoded"] for row in placed}),
        "rows": len(placed),
        "workers": [plan.least_workers, plan.workers],
    }


def loses(cluster: Cluster, files: list[str]) -> dict[str, Any]:
    """The only node with a GPU goes, and after a while another one comes."""
    bounds.WAITS_S = 3.0
    gpu = cluster.add_node(num_cpus=1, num_gpus=1)
    said: list[str] = []

    def meanwhile() -> None:
        deadline = time.monotonic() + 120
        while ((doing := progress.current()) is None or not doing.done) and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.remove_node(gpu, allow_graceful=False)
        deadline = time.monotonic() + 120
        while not said and time.monotonic() < deadline:
            doing = progress.current()
            if doing is not None and "GPU" in doing.waits:
                said.append(doing.waits)
            time.sleep(0.2)
        cluster.add_node(num_cpus=1, num_gpus=1)

    with runtime.session(Ray(address=cluster.address)) as resources, progress.bar("working", 240) as shown:
        plan = runtime.plan(resources, encoders=0, gpus=True)
        other = threading.Thread(target=meanwhile)
        other.start()
        placed = []
        for row in places(resources, plan, files, 0.3):
            placed.append(row)
            shown.advance(1)
        other.join()
        after = shown.doing().waits
    return {"said": said, "after": after, "rows": len({row["number"] for row in placed})}


def shrinks(cluster: Cluster, files: list[str]) -> dict[str, Any]:
    """A node goes for good, and what is left has no place for its decoder."""
    bounds.WAITS_S, bounds.GONE_S = 2.0, 10.0
    archive = Path(files[0]).parent / "archive"
    scanned(archive, videos(archive.parent / "videos", 24, 10))
    ray.shutdown()
    gone = cluster.add_node(num_cpus=2)

    class Slow(Decoder):
        """The product's decoder, which takes longer."""

        def __call__(self, table: pa.Table) -> Any:
            time.sleep(1.0)
            yield from super().__call__(table)

    class Fat(Embedder):
        """The product's encoder, whose blocks lie in its node's object store: those of up to 100 KB the driver has."""

        def __call__(self, table: pa.Table) -> pa.Table:
            rows = super().__call__(table)
            at = rows.schema.get_field_index("detail")
            return rows.set_column(at, "detail", pa.array([BALLAST] * rows.num_rows))

    def meanwhile() -> None:
        deadline = time.monotonic() + 240
        while ((doing := progress.current()) is None or doing.done < 8) and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.remove_node(gone, allow_graceful=False)

    other = threading.Thread(target=meanwhile)
    other.start()
    sizes = ("decode.cpus=1.9", "embed.encoders=1")  # of 4 and 2 CPUs; 4 hold one decoder less
    changes = (f"ray.address={cluster.address}", "embed.device=cpu", "embed.commit_s=20", "embed.batch=4", *sizes)
    config = load(changes=changes, options={"archive": str(archive), "embed.model": "tiny"}, environment={}).config
    report = graph.run(config, actors=replace(graph.Actors(), decoder=Slow, embedder=Fat))
    other.join()
    found = embeddings(archive)  # refuses two rows of a clip
    every = {row["clip_id"] for row in rows(archive, "clips")}
    return {"counts": report.counts, "every_clip_once": set(found) == every}


def keeps(cluster: Cluster, files: list[str]) -> dict[str, Any]:
    """Blocks of a node that went: while their actor waits for another one, and once it is gone too."""
    node = cluster.add_node(num_cpus=1, resources={"far": 1})
    cluster.add_node(num_cpus=1, resources={"near": 1})

    class Maker:
        """Of blocks that lie in its node's object store."""

        def make(self) -> bytes:
            return BALLAST.encode() * 4

    with runtime.session(Ray(address=cluster.address)):
        always = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        far = ray.remote(resources={"far": 1}, **always)(Maker).remote()
        near = ray.remote(resources={"near": 1}, **always)(Maker).remote()
        blocks = [ray.put(BALLAST), near.make.remote(), *(far.make.remote() for _ in range(2))]
        ray.wait(blocks, num_returns=len(blocks), fetch_local=False)
        cluster.remove_node(node, allow_graceful=False)
        waits = held.those_there(blocks, 10.0)
        ray.kill(far)
        gone = held.those_there(blocks, 10.0)
    return {"waits": waits, "gone": gone}


def main(which: str, folder: Path) -> None:
    units = {"mixed": 120, "grows": 240, "loses": 240, "shrinks": 1, "keeps": 1}[which]
    pq.write_table(pa.table({"number": range(units)}), folder / "part-0.parquet")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        verbs = {"mixed": mixed, "grows": grows, "loses": loses, "shrinks": shrinks, "keeps": keeps}
        found = verbs[which](cluster, [str(folder / "part-0.parquet")])
        print(json.dumps(found))  # noqa: T201  # what the test reads
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
