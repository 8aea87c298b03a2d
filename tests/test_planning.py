"""What a plan takes fits into the cluster, node by node, or is refused with a number and a remedy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from archives import fails_with
from hypothesis import assume, given
from hypothesis import strategies as st

from raydist import runtime
from raydist.errors import ResourceError
from raydist.runtime import Node, Plan, Resources
from raydist.runtime import cluster as clusters
from raydist.sections import Ray, Train
from raydist.train import driver

NODES = st.lists(
    st.builds(
        Node,
        cpus=st.one_of(st.integers(0, 64).map(float), st.floats(0, 64)),
        gpus=st.integers(0, 4).map(float),
        memory_bytes=st.integers(0, 1 << 38),
    ),
    min_size=1,
    max_size=12,
)


def of(*nodes: Node, max_cpus: float = 0.0, max_gpus: float = 0.0) -> Resources:
    return Resources(
        cpus=sum(node.cpus for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        nodes=len(nodes),
        each=nodes,
        max_cpus=max_cpus,
        max_gpus=max_gpus,
    )


def placed(made: Plan, nodes: tuple[Node, ...]) -> int:
    """How many decoders find a place, nodes without a GPU first; encoders beside GPUs ask for no core."""
    free = {at: node.cpus for at, node in enumerate(nodes)}
    for _ in range(made.encoders):
        place = max(free, key=lambda at: free[at])
        free[place] -= made.encoder_cpus
        assert free[place] >= -1e-9
    found = 0
    for at in sorted(free, key=lambda at: nodes[at].gpus > 0):
        found += math.floor(free[at] / made.worker_cpus + 1e-9)
    return min(found, made.workers)


@given(
    nodes=NODES,
    workers=st.integers(0, 700),
    units=st.integers(0, 300),
    encoders=st.one_of(st.none(), st.integers(0, 40)),
    given_cpus=st.sampled_from([0.0, 0.25, 1.0, 2.0]),
    memory_mb=st.sampled_from([0, 256, 896]),
    use_gpus=st.booleans(),
)
def test_a_plan_fits_node_by_node_or_is_refused(
    nodes: list[Node],
    workers: int,
    units: int,
    encoders: int | None,
    given_cpus: float,
    memory_mb: int,
    use_gpus: bool,
) -> None:
    resources = of(*nodes)
    gpus = use_gpus and resources.gpus >= 1
    try:
        made = runtime.plan(
            resources,
            workers=workers,
            units=units,
            encoders=encoders,
            gpus=gpus,
            worker_cpus=given_cpus,
            memory_mb=memory_mb,
        )
    except ResourceError as error:
        refused = str(error)
    else:
        refused = ""
    assert not refused or any(remedy in refused for remedy in ("add CPUs", "lower embed.encoders", "add a machine"))
    if refused:
        return
    kept = runtime.LIGHT_CPUS + runtime.ENCODER_CPUS * made.encoders
    assert made.workers * made.worker_cpus + kept <= resources.cpus + 1e-6
    assert made.encoders * made.encoder_gpus <= resources.gpus
    assert placed(made, tuple(nodes)) == made.workers
    assert made.workers >= 1
    assert not workers or made.workers == min(workers, units or workers)
    assert encoders is None or made.encoders >= 1


@given(nodes=NODES, grown=st.integers(8, 4000), gpus=st.integers(0, 16), units=st.integers(0, 5000))
def test_a_cluster_that_grows_is_asked_for_more_and_begins_with_what_is_there(
    nodes: list[Node], grown: int, gpus: int, units: int
) -> None:
    resources = of(*nodes, max_cpus=grown, max_gpus=gpus)
    assume(resources.grows)
    with_gpus = resources.most_gpus >= 1
    try:
        made = runtime.plan(resources, units=units, encoders=0, gpus=with_gpus)
    except ResourceError as error:
        refused = str(error)
    else:
        refused = ""
    assert not refused or "raise ray.max_cpus" in refused
    if refused:
        return
    assert 1 <= made.least_workers <= made.workers
    assert 1 <= made.least_encoders <= made.encoders
    assert made.workers * made.worker_cpus <= resources.most_cpus
    assert made.encoders * made.encoder_gpus <= resources.most_gpus
    assert not units or made.workers <= units


def test_a_machine_alone_uses_each_of_its_cores() -> None:
    assert runtime.plan(of(Node(cpus=3)), encoders=0).workers == 2  # two, and one that Ray is told of for light work
    with_gpu = runtime.plan(of(Node(cpus=17, gpus=1)), encoders=0, gpus=True)
    assert (with_gpu.workers, with_gpu.encoders, with_gpu.encoder_cpus) == (16, 1, 0.0)
    assert runtime.plan(of(Node(cpus=2)), encoders=0).worker_cpus != runtime.ENCODER_CPUS  # else Ray makes one of two


def most_on(node: Node, made: Plan) -> int:
    """Decoders that Ray may put on a node: it looks at cores alone."""
    return min(made.workers, math.floor(node.cpus / made.worker_cpus + 1e-9))


@given(nodes=NODES, memory_mb=st.sampled_from([256, 896, 4000]), grows=st.booleans(), encoders=st.integers(0, 4))
def test_no_node_gets_more_decoders_than_its_memory_holds_wherever_ray_puts_them(
    nodes: list[Node], memory_mb: int, grows: bool, encoders: int
) -> None:
    resources = of(*nodes, max_cpus=5000 if grows else 0)
    try:
        made = runtime.plan(resources, memory_mb=memory_mb, encoders=encoders or None)
    except ResourceError:
        assume(False)
    for node in nodes:
        if node.memory_bytes:
            assert most_on(node, made) <= max(1, node.memory_bytes // (made.worker_mb << 20))


def test_decoders_are_as_many_as_the_leanest_node_bears_unless_their_number_is_given() -> None:
    lean, rich = Node(cpus=8, memory_bytes=4 << 30), Node(cpus=8, memory_bytes=64 << 30)
    one = runtime.plan(of(lean), memory_mb=896)
    assert (one.workers, one.worker_cpus) == (3, 1.0)  # there are no more that Ray could put there
    made = runtime.plan(of(lean, rich), memory_mb=896)
    assert [made.workers, most_on(lean, made), most_on(rich, made)] == [6, 3, 3]
    grown = runtime.plan(of(lean, max_cpus=80), memory_mb=896)
    assert (grown.least_workers, most_on(lean, grown)) == (3, 3)
    alike = runtime.plan(of(*[Node(cpus=16, memory_bytes=24 << 30)] * 4), memory_mb=2048)
    assert (alike.workers, alike.worker_cpus > 1) == (40, True)
    given_number = runtime.plan(of(lean, rich), memory_mb=896, workers=14)
    assert (given_number.workers, given_number.worker_cpus) == (14, 1.0)
    given_cores = runtime.plan(of(lean, rich), memory_mb=896, worker_cpus=1.0)
    assert (given_cores.workers, given_cores.worker_cpus) == (11, 1.0)


def test_the_plan_says_what_memory_it_counts_with_and_which_node_is_lean() -> None:
    lean = of(Node(cpus=8, memory_bytes=4 << 30), Node(cpus=8, memory_bytes=64 << 30))
    first, told = runtime.described(runtime.plan(lean, memory_mb=896), lean)
    assert first == "plan: 6 decoders x 2.001 CPU and 1.3 GB, on 2 nodes (16 CPUs)"
    assert told.startswith("a node of 8 CPUs has memory (4.3 GB) for 3 decoders: give it fewer CPUs, or set decode.")
    rich = of(Node(cpus=8, memory_bytes=64 << 30))
    assert len(runtime.described(runtime.plan(rich, memory_mb=896), rich)) == 1


def test_what_grows_is_refused_only_beyond_what_it_may_grow_to() -> None:
    small = of(Node(cpus=2), max_cpus=40, max_gpus=2)
    made = runtime.plan(small, encoders=0, gpus=True)
    assert (made.least_workers, made.workers, made.least_encoders, made.encoders) == (1, 38, 1, 2)
    pool = made.worker_pool()
    assert (pool.min_size, pool.initial_size, pool.max_size) == (1, 1, 38)
    assert runtime.plan(small, workers=30).workers == 30
    with fails_with(ResourceError, "grow to 40 CPUs", "50 were asked for", r"raise ray\.max_cpus"):
        runtime.plan(small, workers=50)
    with fails_with(ResourceError, "3 encoders", "has 2", r"embed\.encoders"):
        runtime.plan(small, encoders=3, gpus=True)
    fixed = runtime.plan(of(Node(cpus=4))).worker_pool()
    assert (fixed.min_size, fixed.max_size) == (3, 3)


def test_a_gpu_that_will_come_is_planned_for_and_one_that_will_not_is_refused() -> None:
    assert of(Node(cpus=2), max_cpus=8, max_gpus=1).use_gpu("auto", "embed.device")
    assert not of(Node(cpus=2)).use_gpu("auto", "embed.device")
    assert not of(Node(cpus=2, gpus=1)).use_gpu("cpu", "embed.device")
    with fails_with(ResourceError, r"dedup\.device=cuda", "no GPU", r"dedup\.device=cpu", r"ray\.max_gpus"):
        of(Node(cpus=2)).use_gpu("cuda", "dedup.device")


def test_the_plan_reads_well() -> None:
    there = of(Node(cpus=8), Node(cpus=8), Node(cpus=4, gpus=2, store_bytes=200 << 20))
    made = runtime.plan(there, encoders=0, gpus=True)
    first, store = runtime.described(made, there, batch=64)
    assert first == "plan: 18 decoders x 1 CPU, 2 encoders x 1 GPU, batches of 64, on 3 nodes (20 CPUs, 2 GPUs)"
    assert "0.21 GB" in store
    assert "ray.object_store_gb" in store
    small = of(Node(cpus=3), max_cpus=9)
    _, grows = runtime.described(runtime.plan(small), small)
    assert grows == "the cluster may grow to 9 CPUs and 0 GPUs"
    assert "2 to 8 decoders x 1 CPU" in runtime.described(runtime.plan(small), small)[0]


def test_what_has_no_decoders_is_planned_in_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    there = of(Node(cpus=9), Node(cpus=8, gpus=2, store_bytes=200 << 20))
    driver._announce(Train(batch=32), there, 2, "cuda")
    driver._announce(Train(batch=32), of(Node(cpus=9)), 1, "cpu")
    joins = Plan(workers=16, worker_cpus=1.0, encoders=2, encoder_gpus=1.0)
    assert [line for line in capsys.readouterr().err.splitlines() if line] == [
        "plan: 2 workers x 1 GPU, batches of 32, on 2 nodes (17 CPUs, 2 GPUs)",
        "plan: 1 worker x 1 CPU, 8 threads, batches of 32, on 1 node (9 CPUs)",
    ]
    assert runtime.described(joins, there, what="tasks", encoders="comparisons") == [
        "plan: 16 tasks x 1 CPU, 2 comparisons x 1 GPU, on 2 nodes (17 CPUs, 2 GPUs)"
    ]


def test_the_launchers_configuration_tells_how_far_a_cluster_grows(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.yaml"
    kinds = {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 3},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 50},
    }
    path.write_text(yaml.safe_dump({"max_workers": 10, "head_node_type": "head", "available_node_types": kinds}))
    there = (Node(cpus=4),)
    assert clusters._launched(path, there) == ({"CPU": 4 + 3 * 16 + 10 * 8, "GPU": 10}, 16)
    assert clusters._launched(tmp_path / "none", there) == ({}, 0)


@pytest.mark.parametrize(
    ("name", "most", "largest"),
    [
        ("aws", {"CPU": 24 * 16, "GPU": 4}, 16),
        ("gcp", {"CPU": 24 * 16, "GPU": 4}, 16),
        ("on-premises", {"CPU": 3 * 8, "GPU": 0}, 0),  # machines of unknown size: each as the smallest that is there
    ],
)
def test_the_shipped_files_tell_how_far_their_clusters_grow(
    name: str, most: dict[str, int], largest: int, tmp_path: Path
) -> None:
    from ray.autoscaler._private.util import prepare_config

    shipped = Path(__file__).parents[1] / "cluster" / f"ray-cluster.{name}.yaml"
    path = tmp_path / "bootstrap.yaml"
    path.write_text(yaml.safe_dump(prepare_config(yaml.safe_load(shipped.read_text()))))
    there = (Node(cpus=8), Node(cpus=32, gpus=2))
    assert clusters._launched(path, there) == (most, largest)


def test_a_head_without_cores_holds_no_decoders_whatever_its_memory() -> None:
    head = Node(cpus=0, memory_bytes=16 << 30)
    small = of(head, Node(cpus=8, memory_bytes=4 << 30))
    assert runtime.plan(small, memory_mb=896, encoders=0).workers == 3
    grows = runtime.plan(of(head, max_cpus=160), memory_mb=896, encoders=0)
    assert (grows.encoders, grows.threads, grows.least_encoders) == (20, 8, 1)
    assert grows.workers == 149  # of a cluster without workers nothing is known of their memory
    with fails_with(ResourceError, "0 CPUs now", r"ray\.max_cpus"):
        runtime.plan(of(head))


def test_decoders_of_several_cores_are_as_many_as_fit() -> None:
    assert runtime.plan(of(Node(cpus=8)), worker_cpus=2).workers == 3


def test_a_worker_larger_than_every_machine_is_refused_where_sizes_are_known_and_said_elsewhere() -> None:
    there = (Node(cpus=8), Node(cpus=8))
    known = Resources(cpus=16, gpus=0, nodes=2, each=there, max_cpus=216, node_cpus=8)
    with fails_with(ResourceError, "16 CPUs", "has 8", r"decode\.cpus"):
        runtime.plan(known, worker_cpus=16)
    unknown = of(*there, max_cpus=216)
    told = runtime.described(runtime.plan(unknown, worker_cpus=16), unknown)
    assert told[-1] == "decoders wait for a machine of 16 CPUs: none that is there is as large"


def test_what_computes_on_cpus_has_the_threads_of_one_machine() -> None:
    three = of(*[Node(cpus=8)] * 3)
    assert [three.threads(count) for count in (1, 2, 4)] == [8, 8, 5]
    assert of(Node(cpus=3)).threads() == 2  # the third is told to Ray for light work
    assert of(Node(cpus=0), max_cpus=216, max_gpus=4).threads() == 8


def test_training_asks_for_what_the_cluster_grows_to() -> None:
    grows = of(Node(cpus=0), max_cpus=216, max_gpus=4)
    assert driver._workers(Train(), grows) == (4, "cuda")
    assert driver._workers(Train(device="cuda", workers=2), grows) == (2, "cuda")
    assert driver._workers(Train(device="cpu"), grows) == (1, "cpu")
    with fails_with(ResourceError, r"train\.workers=5", "has 4 GPUs"):
        driver._workers(Train(workers=5), grows)
    with fails_with(ResourceError, r"train\.device=cuda", "no GPU", r"ray\.max_gpus"):
        driver._workers(Train(device="cuda"), of(Node(cpus=8)))


@pytest.mark.ray
def test_what_is_offered_is_what_ray_has_and_what_the_settings_say(cluster: None) -> None:
    with runtime.session(Ray()) as plain:
        assert (plain.cpus, plain.gpus, plain.nodes, plain.grows) == (4, 0, 1, False)
        assert plain.each[0].memory_bytes > 0
        assert plain.each[0].store_bytes > 0
    with runtime.session(Ray(max_cpus=64, max_gpus=2)) as grown:
        assert (grown.most_cpus, grown.most_gpus, grown.grows) == (64, 2, True)
