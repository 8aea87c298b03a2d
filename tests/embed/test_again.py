"""A run whose nodes went: planned anew on those that are left, or waiting until they suffice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic

from raydist.embed import graph
from raydist.embed.ledger import Ledger
from raydist.errors import ResourceError
from raydist.models.registry import describe
from raydist.progress import current
from raydist.runtime import PlacesLostError, Plan
from raydist.store.manifest import Manifest

CLIPS = 50
LOST = PlacesLostError("1 decoder found no place again")
GONE = ResourceError("")
SMALL = ResourceError("2 encoders need a GPU each, the cluster has 1")
PLAN = Plan(workers=1, worker_cpus=1.0, encoders=1, encoder_gpus=1.0, encoder_cpus=0.0)


class Runs:
    """What the graph does each time, in place of running; `GONE`: vectors do not reach the driver."""

    def __init__(self, *ends: ResourceError | None, planned: bool = False) -> None:
        self.ends, self.planned = list(ends), planned
        self.units: list[int] = []
        self.committed = 1

    def __call__(self, *given: object) -> None:
        """Like `graph._run_graph`."""
        manifest, ledger, plans = given[2], given[3], given[5]
        assert isinstance(manifest, Manifest)
        assert isinstance(ledger, Ledger)
        assert isinstance(plans, list)
        self.units.append(sum(1 for _ in manifest.units()))
        end = self.ends.pop(0)
        if end is not SMALL or self.planned:
            plans.append(PLAN)
        if end is GONE:
            ledger.gone, ledger.returned = 1, ledger.returned + self.committed
        elif end is not None:
            raise end


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Runs], tuple[Ledger, Sequence[str]]]:
    """Runs to the end; the books, and what `raydist status` said at each look for a node."""
    archive = str(synthetic.write(tmp_path / "archive", CLIPS))

    def to_the_end(runs: Runs) -> tuple[Ledger, Sequence[str]]:
        said: list[str] = []
        monkeypatch.setattr(graph, "_run_graph", runs)
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: said.append(getattr(current(), "waits", "")))
        monkeypatch.setattr(graph, "time", clock)
        ledger = Ledger(archive, describe("tiny"))
        manifest = Manifest.of_run(archive, "embed-now")
        graph._to_the_end(synthetic.configure(Path(archive)), describe("tiny"), manifest, ledger, graph.Actors())
        return ledger, said

    return to_the_end


def test_a_node_is_waited_for_where_those_that_are_left_cannot_run_what_was_set(
    ran: Callable[[Runs], tuple[Ledger, Sequence[str]]],
) -> None:
    runs = Runs(LOST, SMALL, SMALL, None)
    ledger, said = ran(runs)
    assert said == [f"{SMALL}; waiting for a node"] * 2
    assert ledger.rounds == 2  # looking for a node is no loss of one
    assert len(runs.units) == 4
    assert len(set(runs.units)) == 1


def test_what_went_with_a_node_at_the_end_is_done_anew_and_a_node_is_waited_for(
    ran: Callable[[Runs], tuple[Ledger, Sequence[str]]],
) -> None:
    ledger, said = ran(Runs(GONE, SMALL, None))
    assert (len(said), ledger.rounds, ledger.gone) == (1, 2, 0)


def test_a_run_whose_vectors_never_reach_the_driver_ends(
    ran: Callable[[Runs], tuple[Ledger, Sequence[str]]],
) -> None:
    runs = Runs(GONE, GONE, None)
    runs.committed = 0
    with pytest.raises(ResourceError, match="vectors of 1 clips do not reach the driver's node"):
        ran(runs)


@pytest.mark.parametrize(("ends", "planned"), [([SMALL, None], False), ([LOST, SMALL, None], True)])
def test_what_is_refused_at_the_start_or_fails_at_work_ends_the_run(
    ran: Callable[[Runs], tuple[Ledger, Sequence[str]]], ends: list[ResourceError | None], planned: bool
) -> None:
    runs = Runs(*ends, planned=planned)
    with pytest.raises(ResourceError, match="the cluster has 1"):
        ran(runs)
    assert len(runs.ends) == 1
