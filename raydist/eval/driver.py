"""The driver of an evaluation: what is measured, by whom, and what is left behind."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raydist import choice, runtime
from raydist.clips.decoder import Geometry
from raydist.clips.sampling import CANDIDATES
from raydist.config import Config
from raydist.errors import ModelError, RaydistError, ResourceError
from raydist.eval import held, page, worse
from raydist.eval.encode import Clips, Texts, Work, encode
from raydist.eval.figures import DIRECTIONS, Measured, measure
from raydist.frames.build import Built, ensure
from raydist.models.encoder import ModelInfo
from raydist.models.registry import FAST, base_of, describe, is_fast
from raydist.progress import bar, talk
from raydist.records import Report
from raydist.store import lease, roots, settings, stale
from raydist.store.models import portable
from raydist.store.runs import new_run, publish, run_folder, save
from raydist.store.shown import shown

# Shape legend: N clips, M texts, L tokens, S models, E embedding size

BATCH_GPU, BATCH_CPU = 64, 16
"""Clips per forward pass, as for `embed`."""

_TRIES = 3
"""How often the task is started again without a batch in between."""

WORST = 100
"""Queries that got worse in the report; the file has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What is compared."""

    base: ModelInfo
    adapted: ModelInfo | None = None
    adapter: Path | None = None
    """The adapter's folder."""

    @property
    def geometry(self) -> Geometry:
        """The frames that both see."""
        base = self.base
        return Geometry(frames=base.frames, sampling=base.sampling, size_px=base.size_px, resize=base.resize)


def run(config: Config, *, retry_failed: bool = False) -> Report:
    """Measure; see `raydist.eval.run`."""
    began = time.monotonic()
    location, split = config.require_archive(), config.eval.split
    settings.open_existing(location)
    models = _choose(location, config.embed.model, config.embed.adapter)
    run_name = new_run("eval")
    with lease.Lease(location, "eval", run=run_name):
        stale.repair_unless_scanning(location)
        kept = held.held_out(location, split, models.adapter)
        held.require_differences(kept.pairs["captions"].to_pylist(), split)
        built = ensure(
            config,
            kept.pairs,
            models.geometry,
            encoding=config.train.cache,
            candidates=_candidates(config),
            stage="eval",
            retry_failed=retry_failed,
        )
        attempted = kept.pairs.num_rows
        kept = replace(kept, pairs=built.without_failed(kept.pairs))
        held.require_differences(kept.pairs["captions"].to_pylist(), split)
        texts, pairs_P2 = held.distinct(kept.pairs["captions"].to_pylist())
        seen, vectors, good_N = _encoded(config, models, kept.pairs, texts)
        failures = _failures(built, good_N)
        measured = _measured(config, kept, models, texts, pairs_P2, seen, vectors, good_N)
        folder = run_folder(location, run_name)
        folder.mkdir(parents=True, exist_ok=True)
        worse.write(measured, folder / worse.FILE)
        page.write(config, measured, models.geometry, folder / page.FILE)
        publish(location, run_name)
    clips, texts_kept = len(measured.pairs), len(measured.queries.texts)
    report = Report(
        stage="eval",
        run=run_name,
        seconds=time.monotonic() - began,
        counts={"clips": clips, "captions": texts_kept, "failed": sum(failures.values())},
        failures=failures,
        notes=(*measured.notes, *_where(location, run_name)),
        details={
            **measured.as_json(),
            "got_worse": {name: worse.worst(measured, name, WORST) for name in DIRECTIONS},
            "attempted": attempted,
        },
    )
    save(report, location)
    return report


def _choose(location: str, model: str, adapter: str) -> Models:
    """
    Raises:
        ModelError: the model or the adapter is unknown or not on this machine, or they do not belong together.
        StoreError: none was named and the archive has vectors of several.
    """
    if not adapter:
        return Models(base=choice.to_train(location, model))
    folder = choice.find_adapter(location, adapter, held.FILES)
    base = choice.to_train(location, model) if model else describe(base_of(folder))
    mark = FAST if is_fast(base.name) else ""
    return Models(base=base, adapted=describe(base.location + mark, str(folder)), adapter=folder)


def _candidates(config: Config) -> int:
    """Frames that training caches of an interval, so that both share a cache."""
    return CANDIDATES if config.train.jitter else 1


def _encoded(
    config: Config, models: Models, pairs: pa.Table, texts: list[str]
) -> tuple[Texts, NDArray[np.float32], NDArray[np.bool_]]:
    """Texts, [S, N, E] vectors of the clips, and which of these have frames."""
    names = models.base.name + (f" and {models.adapted.name}" if models.adapted else "")
    vectors, good, seen = [], [], None
    with runtime.session(config.ray) as resources, bar(f"measuring {names}", pairs.num_rows) as progress:
        work = _work(config, models, pairs, texts, resources)
        runtime.announce(_plan(work, resources), resources, batch=work.batch)
        for part in _run_task(work, resources):
            if isinstance(part, Texts):
                seen = part
                continue
            vectors.append(part.vectors_SBE)
            good.append(part.good_B)
            progress.advance(len(part.good_B))
    assert seen is not None
    return seen, np.concatenate(vectors, axis=1), np.concatenate(good)


def _work(config: Config, models: Models, pairs: pa.Table, texts: list[str], resources: runtime.Resources) -> Work:
    section, location = config.embed, config.require_archive()
    device = "cuda" if resources.use_gpu(section.device, "embed.device") else "cpu"
    if device == "cuda" and resources.gpus < 1:
        talk.print("eval: asks for a GPU; the cluster has none now, and waits until it has grown")
    return Work(
        location=location,
        model=models.base.location,
        adapter=portable(str(models.adapter or ""), location),
        device=device,
        threads=resources.threads(),
        batch=section.batch or (BATCH_GPU if device == "cuda" else BATCH_CPU),
        geometry=models.geometry,
        places=roots.places(location, config.roots),
        limits=config.limits(),
        encoding=config.train.cache,
        candidates=_candidates(config),
        pairs=pairs,
        texts=texts,
    )


def _plan(work: Work, resources: runtime.Resources) -> runtime.Plan:
    """One task that embeds; what it asks Ray for."""
    return runtime.Plan(
        encoders=1,
        encoder_gpus=1.0 if work.device == "cuda" else 0.0,
        encoder_cpus=min(runtime.ENCODER_CPUS, resources.most_cpus),
        threads=work.threads,
    )


def _run_task(work: Work, resources: runtime.Resources) -> Iterator[Texts | Clips]:
    """One task, which gives its results batch by batch; where its machine goes, another goes on behind the last one."""
    import ray  # here: Ray reads its environment when it is imported, and `runtime.session` sets that

    plan = _plan(work, resources)
    task = ray.remote(encode).options(
        num_cpus=plan.encoder_cpus,
        num_gpus=plan.encoder_gpus,
        num_returns="streaming",
        max_retries=0,  # it would begin anew, and what it gave before would come twice
    )
    gone = (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError)
    texts = done = tries = 0
    while True:
        references: Any = task.remote(replace(work, pairs=work.pairs.slice(done)))  # Ray's types know no streams
        try:
            for reference in references:
                part = ray.get(reference)
                if isinstance(part, Clips):
                    done, tries = done + len(part.good_B), 0
                elif texts:
                    continue
                texts = 1
                yield part
            return
        except ray.exceptions.RayTaskError as error:
            raise _explained(error, work) from None
        except ray.exceptions.OutOfMemoryError as error:
            raise _died(error, work) from None
        except gone as error:
            tries += 1
            if tries > _TRIES:
                raise _died(error, work) from None
            talk.print(f"eval: the process that embeds went, or its machine; another goes on at clip {done:,}")
        except BaseException:  # Ctrl-C: nobody waits for it any more
            ray.cancel(references, force=True)
            raise


def _explained(error: Any, work: Work) -> Exception:
    """What the task raised itself."""
    cause = error.cause
    if isinstance(cause, torch.OutOfMemoryError):
        return ResourceError(f"{cause}: lower embed.batch, which is {work.batch}, or set embed.device=cpu")
    return cause if isinstance(cause, RaydistError) else error


def _died(error: Exception, work: Work) -> ResourceError:
    return ResourceError(
        f"the process that embeds died ({error}): most likely of too little memory. Lower embed.batch, which is "
        f"{work.batch}, or take a machine with more"
    )


def _failures(built: Built, good_N: NDArray[np.bool_]) -> dict[str, int]:
    """Reason -> clips. What had frames a moment ago and has none now cannot be read."""
    lost = int((~good_N).sum())
    return dict(Counter(built.failed.values()) + Counter({"unreadable": lost} if lost else {}))


def _measured(
    config: Config,
    kept: held.Held,
    models: Models,
    texts: list[str],
    pairs_P2: NDArray[np.int64],
    seen: Texts,
    vectors_SNE: NDArray[np.float32],
    good_N: NDArray[np.bool_],
) -> Measured:
    """Figures of the clips that have frames, and of the texts that are theirs."""
    pairs = kept.pairs.filter(pa.array(good_N))
    held.require_differences(pairs["captions"].to_pylist(), config.eval.split)
    row_N = np.cumsum(good_N) - 1
    pairs_P2 = pairs_P2[good_N[pairs_P2[:, 0]]]
    pairs_P2 = np.stack([row_N[pairs_P2[:, 0]], pairs_P2[:, 1]], axis=1)
    used_M, place_P = np.unique(pairs_P2[:, 1], return_inverse=True)
    pairs_P2[:, 1] = place_P
    queries, first_M = held.queries(pairs, [texts[row] for row in used_M], pairs_P2, seen.ids_ML[used_M])
    rows_M = used_M[first_M]
    vectors_SNE = vectors_SNE[:, good_N]
    named = [models.base, *([models.adapted] if models.adapted else [])]
    for info, video_NE, text_ME in zip(named, vectors_SNE, seen.vectors_SME[:, rows_M], strict=True):
        _require_finite(info, video_NE, pairs["clip_id"].to_pylist(), "clips")
        _require_finite(info, text_ME, queries.texts, "captions")
    return measure(
        kept,
        pairs,
        queries,
        vectors_SNE,
        seen.vectors_SME[:, rows_M],
        named,
        split=config.eval.split,
        resamples=config.eval.resamples,
        seed=config.eval.seed,
    )


def _require_finite(info: ModelInfo, vectors: NDArray[np.float32], names: list[str], what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ModelError(
            f"{info.name} gave NaN or infinity for {len(bad):,} of {len(names):,} {what}, such as {names[bad[0]]!r}: "
            "expected finite numbers; did its training diverge, are its weights whole?"
        )


def _where(location: str, run: str) -> tuple[str, ...]:
    return (
        f"every query with its ranks: {shown(location, run, worse.FILE)}",
        f"look: {shown(location, run, page.FILE)} in a browser",
    )
