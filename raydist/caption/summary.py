"""What a captioning run says of itself: beside the bar, at its end, and before it begins."""

from __future__ import annotations

import os

from raydist.caption.estimate import Estimate
from raydist.caption.job import Job
from raydist.caption.ledger import Ledger
from raydist.caption.limits import Spent
from raydist.config import Config
from raydist.records import Report
from raydist.store.pending import Pending
from raydist.store.runs import new_run


def spending(job: Job, ledger: Ledger) -> str:
    """Beside the bar: what was spent so far."""
    tokens = ledger.counts["tokens_in"] + ledger.counts["tokens_out"]
    failed = f", {ledger.counts['failed']:,} failed" if ledger.counts["failed"] else ""
    if job.price is None:
        return f"{tokens:,} tokens{failed}" if tokens else failed.removeprefix(", ")
    return f"{money(ledger.cost, job.price.currency)}{failed}"


def money(amount: float, currency: str) -> str:
    """An amount with as many places as it needs."""
    places = 2 if amount >= 1 or amount == 0 else 4
    return f"{amount:,.{places}f} {currency}".strip()


def report(name: str, seconds: float, job: Job, found: Pending, ledger: Ledger, spent: Spent, recovered: int) -> Report:
    """The report of a run."""
    counts = ledger.counts
    shown = {"clips": counts["clips"], "captions": counts["captions"], "failed": counts["failed"]}
    shown |= {name: counts[name] for name in ("cut", "replaced") if counts[name]}
    details = {
        "provider": job.access.provider,
        "origin": job.origin,
        "prompt_hash": job.prompt.hash,
        "attempted": counts["clips"] + counts["failed"],
        "answered": counts["answered"],
        "requests": counts["requests"],
        "tokens_in": counts["tokens_in"],
        "tokens_out": counts["tokens_out"],
        "recovered": recovered,
        "prepare_cpu_s": round(ledger.prepare_cpu_s, 3),
        "stopped": spent.stop,
    }
    if job.price is not None:
        details |= {"cost": round(ledger.cost, 6), "currency": job.price.currency, "prices": job.price.as_of}
    return Report(
        stage="caption",
        run=name,
        seconds=round(seconds, 3),
        counts=shown,
        failures=dict(ledger.failures),
        clips_per_s=round(counts["clips"] / seconds, 2) if seconds and counts["clips"] else 0.0,
        notes=tuple(_notes(job, found, ledger, spent, recovered)),
        details=details,
    )


def _notes(job: Job, found: Pending, ledger: Ledger, spent: Spent, recovered: int) -> list[str]:
    counts = ledger.counts
    notes = [f"by {job.origin}, prompt {job.prompt.hash}, captions of at most {job.limit.room} tokens"]
    if counts["requests"]:
        tokens = f"{counts['requests']:,} requests, {counts['tokens_in']:,} tokens in, {counts['tokens_out']:,} out"
        cost = f": {money(ledger.cost, job.price.currency)} by the prices of {job.price.as_of}" if job.price else ""
        notes.append(tokens + cost)
    if recovered:
        notes.append(f"{recovered:,} answers were left on the disk by a run that was stopped, and are in")
    if counts["others"]:
        notes.append(f"{counts['others']:,} answers of another model or to another prompt were left so, and are in")
    if counts["cut"]:
        notes.append(f"{counts['cut']:,} captions did not fit {job.limit.room} tokens and were cut (column `cut`)")
    if spent.lost:
        notes.append(f"{spent.lost:,} requests were lost with a worker that died, and are counted as paid")
    if spent.paused_s >= 1:
        notes.append(f"{spent.paused_s:,.0f} s of patience that the server asked for")
    notes += _left(found, counts["clips"] + counts["failed"] - recovered, counts["waiting"], spent)
    notes += [f"{count:,} clips were left: {why}" for why, count in ledger.why_left.most_common(3) if count]
    notes += [f"{reason}, such as {example}" for reason, example in ledger.examples.items()]
    if ledger.failures and set(ledger.failures) & {"provider", "bad_answer", "refused"}:
        notes.append("--retry-failed asks again about clips that failed")
    if counts["clips"]:
        notes.append("look at them: `raydist caption --review`; next: `raydist train`")
    return notes


def _left(found: Pending, done: int, waiting: int, spent: Spent) -> list[str]:
    notes = []
    left = found.count - done - waiting
    if spent.stop == "budget":
        notes.append(f"stopped before caption.max_cost: {spent.why}; {left:,} clips are left for another run")
    elif left > 0:
        notes.append(f"{left:,} clips still have no caption: run the same command again")
    if waiting:
        notes.append(f"{waiting:,} clips wait for a scan to finish their files: run the same command again")
    others = found.done
    if not found.count and not done:
        notes.append(
            f"nothing to do: {others:,} clips have a caption and {found.failed:,} failed (--retry-failed asks again; "
            "--set caption.captioned=add captions clips that have a caption of another origin too)"
        )
    return notes


def dry_run(
    config: Config, job: Job, found: Pending, estimated: Estimate, seconds: float, *, thinks: bool = False
) -> Report:
    """What a run would do; nothing was sent.

    Args:
        thinks: whether the model may think before it answers.
    """
    sample = estimated.sample
    counts = {"clips": estimated.clips, "tokens_in": estimated.tokens_in, "tokens_out": estimated.tokens_out}
    details = {
        "dry_run": True,
        "provider": job.access.provider,
        "origin": job.origin,
        "prompt_hash": job.prompt.hash,
        "prompt": job.prompt.words(),
        "tokens_from": estimated.source,
        "sample": {"clips": sample.clips, "failed": sample.failed, "cpu_s": round(sample.cpu_s, 4),
                   "bytes": round(sample.bytes)},
    }  # fmt: skip
    if estimated.cost is not None and job.price is not None:
        details |= {"cost": round(estimated.cost, 6), "currency": job.price.currency, "prices": job.price.as_of}
    notes = _before(config, job, found, estimated)
    if thinks and not estimated.measured:
        notes.append(
            "the model may think before it answers, which is billed as output and not reckoned with here: a trial "
            "(--limit 20) measures it"
        )
    return Report(
        stage="caption --dry-run",
        run=new_run("caption"),
        seconds=round(seconds, 3),
        counts=counts,
        notes=tuple(notes),
        details=details,
    )


def _before(config: Config, job: Job, found: Pending, estimated: Estimate) -> list[str]:
    section, sample = config.caption, estimated.sample
    hosted = section.provider != "local"
    notes = [
        f"by {job.origin}, prompt {job.prompt.hash}, captions of at most {job.limit.room} tokens; nothing was sent"
    ]
    if found.done:
        notes.append(f"{found.done:,} clips have a caption already and are left alone")
    if found.failed:
        notes.append(f"{found.failed:,} clips failed before; --retry-failed asks again")
    if estimated.cost is not None and job.price is not None:
        notes.append(
            f"cost: {money(estimated.cost, job.price.currency)} ({estimated.source}; prices of {job.price.as_of} in "
            f"{job.price.source}; answers that must be asked for again come on top)"
        )
        if section.max_cost and estimated.cost > section.max_cost:
            notes.append(f"that is more than caption.max_cost = {section.max_cost:g}: the run would stop there")
    elif hosted:
        notes.append(
            f"cost: unknown, no table has the price of {job.origin!r}; tokens {estimated.source}. "
            "--set caption.prices=FILE names a table of your own"
        )
    if sample.clips:
        what = "cutting the clip" if section.send == "clip" else f"{section.frames} pictures"
        cores = os.cpu_count() or 1
        time = _time(sample.cpu_s * estimated.clips / cores)
        notes.append(
            f"{what}: {sample.cpu_s:.2g} CPU s a clip, {time} in all on {cores} cores; {sample.bytes / 1e3:,.0f} kB a "
            f"clip are sent, {sample.bytes * estimated.clips / 1e6:,.0f} MB in all (measured on {sample.clips} clips)"
        )
        if sample.failed:
            notes.append(f"{sample.failed} of these {sample.clips} clips cannot be made ready")
    if hosted and section.requests_per_minute:
        time = _time(60 * estimated.clips / section.requests_per_minute)
        notes.append(f"{time} at least at {section.requests_per_minute:,} requests a minute")
    if hosted and section.tokens_per_minute:
        time = _time(60 * (estimated.tokens_in + estimated.tokens_out) / section.tokens_per_minute)
        notes.append(f"{time} at least at {section.tokens_per_minute:,} tokens a minute")
    return notes


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
