"""What to do next, as commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from raydist.report.failed import Reason
from raydist.report.runs import Run
from raydist.store.books import Books

_REMEDIES = {
    "timeout": "`--retry-failed --set decode.cpu_s=120` gives each clip more time",
    "too_large": "`--retry-failed` with a larger decode.memory_mb or decode.megapixels",
    "unreadable": "see that the disk or server answers, then `--retry-failed`",
    "forbidden": "give the workers credentials that may read the files, then `--retry-failed`",
    "missing": "is the disk mounted? `raydist scan --moved OLD NEW` tells of a new place; then `--retry-failed`",
    "changed": "`raydist scan` the folder again, then go on",
    "provider": "`raydist caption` with the same options and `--retry-failed` asks again",
    "bad_answer": "`raydist caption` with the same options and `--retry-failed` asks again",
}
_AGAIN = ("stopped", "died", "failed")
_EMBEDS = ("`raydist embed`", "`raydist pipeline`")


def after(found: Sequence[Run], reasons: Sequence[Reason], counted: Books, names: Mapping[str, str]) -> list[str]:
    """Commands and hints, the most urgent first; never empty."""
    told = []
    last: dict[str, Run] = {run.stage: run for run in found}
    at_work = {run.stage for run in found if run.how == "running"}
    for stage, run in last.items():
        busy = at_work if stage == "pipeline" else at_work & {stage}  # a pipeline at work shows as its step
        if run.how in _AGAIN and not busy and not _is_done_by(last.get("pipeline"), run):
            told.append(f"`raydist {stage}`, with the same options, goes on where {run.run} {_ended(run)}")
    waiting = {key: count.pending for key, count in counted.embeddings.items() if count.pending}
    for key, count in waiting.items():
        if "embed" not in at_work and not any(line.startswith(_EMBEDS) for line in told):
            told.append(f"`raydist embed --model {names.get(key) or key}` goes on with {count:,} clips")
    for reason in reasons:
        if reason.reason in _REMEDIES:
            told.append(f"{reason.count:,} {reason.reason} in {reason.stage}: {_REMEDIES[reason.reason]}")
    if told or at_work:
        return told or ["wait: `raydist status` shows how far it is"]
    if not counted.clips:
        return ["`raydist scan FOLDER` finds videos and cuts them into clips"]
    if not counted.embeddings:
        return ["`raydist embed` gives every clip a vector"]
    return ['`raydist search "words"`']


def _is_done_by(pipeline: Run | None, run: Run) -> bool:
    """Whether the run was a step of a pipeline that failed with it: the pipeline goes on with that step."""
    if pipeline is None or pipeline is run or pipeline.how != "failed" or pipeline.ended is None:
        return False
    return pipeline.ended - timedelta(seconds=pipeline.seconds) <= run.began <= pipeline.ended


def _ended(run: Run) -> str:
    return {"stopped": "was stopped", "failed": "failed", "died": "died"}[run.how]
