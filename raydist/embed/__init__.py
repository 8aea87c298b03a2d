"""embed: clips -> vectors.

Reads   clips of `clips` that have neither a vector of this model nor a failure; the files they lie in
Writes  `embeddings_<model_key>` (float16, unit length), `signatures` on the way, `failures`
Again   safe after any crash and beside other drivers: done clips are skipped, none is written twice
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pyarrow as pa

from raydist import runtime
from raydist.config import Config
from raydist.embed.ledger import Ledger
from raydist.embed.units import units
from raydist.embed.workers import Decoder, Embedder, Geometry
from raydist.errors import ArchiveError, ResourceError
from raydist.models.encoder import ModelInfo
from raydist.models.registry import describe
from raydist.progress import bar, talk
from raydist.records import Report
from raydist.report import new_run, run_folder, save
from raydist.store import compact, lease, models, read, roots, settings, stale
from raydist.store.schema import embeddings_table

DEFAULT_MODEL = "viclip-b16"


def run(config: Config, *, retry_failed: bool = False) -> Report:
    """Embed every clip that the archive lacks for the model.

    Raises:
        ArchiveError: no archive, or nothing was scanned into it.
        ModelError: the model is unknown or not on this machine.
        ResourceError: the cluster cannot run the plan.
    """
    started = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    if not read.count_rows(location, "clips"):
        raise ArchiveError(f"the archive {location!r} has no clips: run `raydist scan FOLDER` first")
    info = describe(config.embed.model or models.only_model(location) or DEFAULT_MODEL)
    _say_licence(location, info)
    name = new_run("embed")
    with lease.Lease(location, "embed") as held:
        stale.repair_unless_scanning(location)
        ledger = Ledger(location, info, retry_failed=retry_failed)
        manifest = runtime.Manifest(run_folder(location, name) / "manifest")
        try:
            manifest.write(_manifest(location, ledger))
            plan = _run_graph(config, info, manifest, ledger) if manifest.rows else None
        except KeyboardInterrupt:
            ledger.commit()
            talk.print(
                f"stopped: {ledger.rows:,} clips of this run are in the archive; `raydist embed` goes on from there"
            )
            raise
        finally:
            manifest.remove()
        for table in (embeddings_table(info.model_key), "signatures"):
            compact.compact_if_alone(location, table, held)
    report = _report(name, time.monotonic() - started, ledger, plan)
    save(report, location)
    return report


def _manifest(location: str, ledger: Ledger) -> Iterator[pa.Table]:
    """Units of the pending clips, a table of them at a time."""
    for clips in ledger.pending():
        ids = clips["video_id"].unique().to_pylist()
        files: dict[str, dict[str, str]] = {}
        columns = ["video_id", "root", "path", "file_fingerprint"]
        for row in read.rows_by_key(location, "videos", ids, columns, key="video_id").to_pylist():
            files[row.pop("video_id")] = row
        yield units(clips.to_pylist(), files)


def _run_graph(config: Config, info: ModelInfo, manifest: runtime.Manifest, ledger: Ledger) -> runtime.Plan:
    """manifest -> decoders -> encoders -> commits by this process."""
    section = config.embed
    with runtime.session(config.ray) as resources, bar(f"embedding with {info.name}", ledger.expected) as progress:
        from ray.data import ActorPoolStrategy  # Ray is imported once its environment is set

        gpu = _use_gpu(section.device, resources)
        decoders = min(section.decoders or int(resources.cpus - runtime.LIGHT_CPUS) or 1, manifest.rows)
        plan = runtime.plan(resources, workers=decoders, encoders=section.encoders, gpus=gpu)
        places = roots.places(config.require_archive(), config.roots)
        geometry = Geometry(frames=info.frames, size_px=info.size_px, resize=info.resize)
        threads = max(1, int((resources.cpus - runtime.LIGHT_CPUS) // max(1, plan.encoders)))
        embedded = (
            manifest.dataset()
            .map_batches(
                # 1:N, CPU. An actor with one child process: a decoder that dies costs one clip, not a worker.
                Decoder,
                fn_constructor_args=(places, geometry, config.decode.limits()),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=plan.workers),
                num_cpus=plan.worker_cpus,
            )
            .map_batches(
                # 1:1. Batches of clips of many videos; an actor a GPU, or one a node that computes on all its cores.
                Embedder,
                fn_constructor_args=(info.location, "cuda" if gpu else "cpu", geometry, threads),
                batch_size=section.batch or (64 if gpu else 16),
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=plan.encoders),
                num_cpus=runtime.ENCODER_CPUS,
                num_gpus=plan.encoder_gpus,
            )
        )
        ledger.start()
        for reference, rows in runtime.references(embedded):
            ledger.add(reference, rows)
            progress.advance(rows)
            if ledger.due(section.commit_s, section.commit_rows):
                ledger.commit()
        ledger.commit()
    return plan


def _use_gpu(device: str, resources: runtime.Resources) -> bool:
    if device == "cuda" and resources.gpus < 1:
        raise ResourceError("embed.device=cuda, but the cluster has no GPU: add one, or set embed.device=cpu")
    return device != "cpu" and resources.gpus >= 1


def _say_licence(location: str, info: ModelInfo) -> None:
    if info.licence and info.model_key not in read.model_keys(location):
        talk.print(f"{info.name}: the weights' licence is {info.licence}")


def _report(name: str, seconds: float, ledger: Ledger, plan: runtime.Plan | None) -> Report:
    failed = sum(ledger.failures.values())
    shares: dict[str, float] = {}
    if plan is not None and ledger.active_s > 0:
        shares = {
            "decode": ledger.busy["decode"] / (ledger.active_s * plan.workers),
            "embed": ledger.busy["embed"] / (ledger.active_s * plan.encoders),
        }
    notes = [f"model key: {ledger.info.model_key}"]
    if ledger.busy["filled_frames"]:
        notes.append(
            f"{int(ledger.busy['filled_frames']):,} frames filled, in {int(ledger.busy['filled_clips']):,} clips"
        )
    if not ledger.expected:
        notes.append(
            "nothing to do: every clip has a vector or a failure of this model (--retry-failed tries those again)"
        )
    done = ledger.rows or not failed
    notes.append('next: `raydist search "words"`' if done else "`raydist status` has the books")
    return Report(
        stage="embed",
        run=name,
        seconds=seconds,
        counts={"clips": ledger.expected, "rows": ledger.rows, "failed": failed},
        failures=dict(ledger.failures),
        shares={step: round(share, 3) for step, share in shares.items()},
        bound_by=max(shares, key=lambda step: shares[step]) if shares else "",
        clips_per_s=round((ledger.rows + failed) / ledger.active_s, 2) if ledger.active_s else 0.0,
        notes=tuple(notes),
        details={
            "model": ledger.info.name,
            "model_key": ledger.info.model_key,
            "attempted": ledger.rows + failed,
            "decode_cpu_s": round(ledger.busy["decode_cpu"], 3),
            "filled_frames": int(ledger.busy["filled_frames"]),
        },
    )
