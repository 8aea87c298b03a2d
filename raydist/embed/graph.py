"""The graph of embed: manifest -> decoders -> encoders -> commits by this process."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from raydist import choice, index, runtime
from raydist.clips.decoder import Decoder, Geometry
from raydist.clips.units import ENDING, clips_a_unit, units
from raydist.config import Config
from raydist.embed.embedder import Embedder
from raydist.embed.ledger import Ledger
from raydist.embed.summary import summary
from raydist.errors import ArchiveError, ResourceError, StoreError
from raydist.models.encoder import ModelInfo
from raydist.progress import bar, talk, wait_for
from raydist.records import Report
from raydist.store import compact, lease, read, roots, settings, stale
from raydist.store.find import Finder
from raydist.store.manifest import Manifest
from raydist.store.models import portable
from raydist.store.runs import new_run, save
from raydist.store.schema import embeddings_table

if TYPE_CHECKING:
    import ray.data

BATCH_GPU, BATCH_CPU = 64, 16
"""Clips per forward pass: a GPU is busy from there on; on a CPU more costs memory and brings no speed."""


_WAITS_S = 3_600.0
"""How long a node is waited for that went away, where those that are left cannot run what was set."""

_LOOKS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Actors:
    """Who decodes and who encodes: the classes that Ray makes actors of, called with the arguments of these two."""

    decoder: type[Decoder] = Decoder
    embedder: type[Embedder] = Embedder


def run(config: Config, *, retry_failed: bool = False, actors: Actors = Actors()) -> Report:  # frozen
    """Embed every clip that the archive lacks for the model.

    Args:
        retry_failed: clips that failed before are tried again.
        actors: a run of a million clips takes others, to see how everything else bears them.

    Raises:
        ArchiveError: no archive, or nothing was scanned into it.
        ModelError: the model or its adapter is unknown or not on this machine.
        StoreError: no model was named and the archive has several, or its name stands for another one there.
        ResourceError: the cluster cannot run the plan.
        SourceError: the disk, server or credentials of most clips went away.
    """
    began = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    if not read.count_rows(location, "clips"):
        raise ArchiveError(f"the archive {location!r} has no clips: run `raydist scan FOLDER` first")
    sampling = config.embed.sampling if "sampling" in config.embed.model_fields_set else None
    info = choice.to_embed(location, config.embed.model, sampling, config.embed.adapter)
    if info.licence and info.model_key not in read.model_keys(location):
        talk.print(f"{info.name}: the weights' licence is {info.licence}")
    if sys.platform == "darwin":
        talk.print("macOS has no hard limit on a process's memory: a hostile file may use more than decode.memory_mb")
    name = new_run("embed")
    with lease.Lease(location, "embed", run=name) as held:
        Manifest.sweep(location, held.others)
        stale.repair_unless_scanning(location)
        ledger = Ledger(location, info, retry_failed=retry_failed, max_failed=config.max_failed)
        held.counts, ledger.committed = ledger.counts, held.told
        manifest = Manifest.of_run(location, name)
        try:
            plan = _to_the_end(config, info, manifest, ledger, actors)
        except KeyboardInterrupt:
            talk.print(f"stopped; {ledger.rows:,} vectors of this run are kept, `raydist embed` goes on from there")
            raise
        finally:
            manifest.remove()
        # All rows are in: what goes wrong from here on is no more than a note.
        save(summary(name, time.monotonic() - began, ledger, plan), location)
        notes, kept = list[str](), None
        with compact.tidying(notes):
            _tidy(location, info, ledger, held)
            # Another writer's rows would miss it: the last to finish builds it.
            kept = None if held.others() else index.keep(location, info, config.search)
    report = summary(name, time.monotonic() - began, ledger, plan)
    report = replace(report, notes=(*report.notes, *notes))
    if kept is not None and (kept.done or kept.notes):
        report = replace(report, notes=(*report.notes, *kept.notes), details={**report.details, **index.figures(kept)})
    with suppress(StoreError, OSError):
        save(report, location)
    return report


def _tidy(location: str, info: ModelInfo, ledger: Ledger, held: lease.Lease) -> None:
    """Take out rows of clips that a scan changed meanwhile, and merge the small fragments of many commits."""
    if read.need_table(location, "clips").version != ledger.clips_version:
        stale.delete_stale(location)
    for table in (embeddings_table(info.model_key), "signatures"):
        compact.compact_if_alone(location, table, held)


def _manifest(location: str, ledger: Ledger) -> Iterator[pa.Table]:
    """Units of the pending clips, a table of them at a time."""
    left = ledger.expected - ledger.returned
    size = clips_a_unit(left)
    seed = random.getrandbits(32)  # another one in each run: drivers side by side begin with different clips
    videos = Finder(location, "videos", "video_id", ["video_id", "root", "path", "file_fingerprint"])
    for clips in ledger.pending():
        left -= clips.num_rows
        found = videos.find(clips["video_id"].unique().to_pylist()).to_pylist()
        files: dict[str, dict[str, str]] = {row.pop("video_id"): row for row in found}
        yield units(ledger.settled(clips.to_pylist(), files), files, size, seed, ending=left < ENDING * size)


def _to_the_end(
    config: Config, info: ModelInfo, manifest: Manifest, ledger: Ledger, actors: Actors
) -> runtime.Plan | None:
    """Run the graph; where nodes went away, again on those that are left. The first plan, which had most."""
    plans, waits_until = list[runtime.Plan](), 0.0
    while True:
        manifest.write(_manifest(config.require_archive(), ledger))
        if not manifest.rows:
            break
        before = ledger.returned
        try:
            _once_it_fits(config, info, manifest, ledger, actors, plans, waits_until)
            if not ledger.gone:
                break
            if ledger.returned == before:
                raise ResourceError(
                    f"vectors of {ledger.gone:,} clips do not reach the driver's node, and nothing else is left: can "
                    "it reach all nodes (Ray's ports)? The same command goes on"
                )
        except runtime.PlacesLostError as lost:
            talk.print(f"{lost}; going on with the nodes that are left")
        waits_until = time.monotonic() + _WAITS_S
        manifest.remove()
        ledger.again()
    return plans[0] if plans else None


def _once_it_fits(
    config: Config,
    info: ModelInfo,
    manifest: Manifest,
    ledger: Ledger,
    actors: Actors,
    plans: list[runtime.Plan],
    waits_until: float,
) -> None:
    """Run the graph, until then also where the cluster is too small for what was set."""
    planned = len(plans)
    while True:
        try:
            _run_graph(config, info, manifest, ledger, actors, plans)
            return
        except ResourceError as error:
            if len(plans) > planned or time.monotonic() > waits_until:
                raise
            with bar(f"embedding with {info.name}", ledger.expected - ledger.returned):
                wait_for(f"{error}; waiting for a node")
                try:
                    time.sleep(_LOOKS_S)
                finally:
                    wait_for("")


def _run_graph(
    config: Config, info: ModelInfo, manifest: Manifest, ledger: Ledger, actors: Actors, plans: list[runtime.Plan]
) -> None:
    """Run the graph; this process commits what comes out of it, also when it is stopped in the middle. What was planned
    is added to `plans`."""
    section = config.embed
    left = ledger.expected - ledger.returned
    with runtime.session(config.ray) as resources, bar(f"embedding with {info.name}", left) as progress:
        # Behind a node that went the GPUs of the first plan are waited for: a night on CPUs is a week.
        device = "cuda" if plans and plans[0].encoder_gpus else section.device
        gpu = resources.use_gpu(device, "embed.device")
        plan = runtime.plan(
            resources,
            workers=section.decoders,
            units=manifest.rows,
            worker_cpus=config.decode.cpus,
            memory_mb=config.decode.memory_mb,
            encoders=section.encoders,
            gpus=gpu,
            encoder_cpus=section.encoder_cpus,
            threads=section.threads,
        )
        batch = section.batch or (BATCH_GPU if gpu else BATCH_CPU)
        plans.append(plan)
        runtime.announce(plan, resources, batch=batch)
        ledger.start()
        try:
            dataset = _graph(config, info, manifest.dataset(), plan, batch, actors)
            # Closed: an error that is kept somewhere would keep the dataset's actors, and the next run waits for them.
            with closing(runtime.references(dataset, resources, again=True)) as blocks:
                for reference, rows in blocks:
                    ledger.add(reference, rows)
                    progress.advance(rows)
                    if ledger.due(section.commit_s, section.commit_rows):
                        ledger.commit()
        finally:
            ledger.commit(last=True)


def _graph(
    config: Config, info: ModelInfo, units: ray.data.Dataset, plan: runtime.Plan, batch: int, actors: Actors
) -> ray.data.Dataset:
    """manifest -> decoders -> encoders."""
    places = roots.places(config.require_archive(), config.roots)
    geometry = Geometry(frames=info.frames, sampling=info.sampling, size_px=info.size_px, resize=info.resize)
    device = "cuda" if plan.encoder_gpus else "cpu"
    return units.map_batches(
        # 1:N, CPU. An actor with one child process: a decoder that dies costs one clip, not a worker.
        actors.decoder,
        fn_constructor_args=(places, geometry, config.limits()),
        batch_size=None,
        batch_format="pyarrow",
        compute=plan.worker_pool(),
        **plan.worker_args,
    ).map_batches(
        # 1:1. Batches of clips of many videos; an actor a GPU, or one a node that computes on all its cores.
        actors.embedder,
        fn_constructor_args=(
            info.location,
            portable(info.adapter, config.require_archive()),
            device,
            geometry,
            plan.threads,
        ),
        batch_size=batch,
        batch_format="pyarrow",
        compute=plan.encoder_pool(),
        num_cpus=plan.encoder_cpus,
        num_gpus=plan.encoder_gpus,
    )
