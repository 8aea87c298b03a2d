"""The report of an embed run."""

from __future__ import annotations

from raydist import runtime
from raydist.embed.ledger import Ledger
from raydist.records import Report


def summary(name: str, seconds: float, ledger: Ledger, plan: runtime.Plan | None) -> Report:
    """What the run did, how fast, and which step bounds it.

    Shares and clips a second count from the start of the first decode to the end of the last batch; how long Ray, the
    workers and the model took to start is said apart.
    """
    failed = sum(ledger.failures.values())
    shares: dict[str, float] = {}
    if plan is not None and ledger.active_s > 0:
        shares = {
            "decode": round(ledger.busy["decode"] / (ledger.active_s * plan.workers), 3),
            "embed": round(ledger.busy["embed"] / (ledger.active_s * plan.encoders), 3),
        }
    return Report(
        stage="embed",
        run=name,
        seconds=round(seconds, 3),
        counts={"clips": ledger.expected, "rows": ledger.rows, "failed": failed},
        failures=dict(ledger.failures),
        shares=shares,
        bound_by=max(shares, key=lambda step: shares[step]) if shares else "",
        clips_per_s=round(ledger.returned / ledger.active_s, 2) if ledger.active_s else 0.0,
        notes=_notes(ledger, failed),
        details=_offsets(ledger)
        | _spent(ledger, plan)
        | {
            "model": ledger.info.name,
            "model_key": ledger.info.model_key,
            "attempted": ledger.returned,
            "start_s": round(ledger.start_s, 3),
            "active": [round(at, 3) for at in ledger.active],
            "decode_cpu_s": round(ledger.busy["decode_cpu"], 3),
            "bytes_read": int(ledger.busy["bytes_read"]),
            "filled_frames": int(ledger.busy["filled_frames"]),
            "conflicts": ledger.conflicts,
            "spilled_bytes": ledger.spilled_bytes,
        },
    )


def _spent(ledger: Ledger, plan: runtime.Plan | None) -> dict[str, float]:
    """Seconds of cores and of GPUs that worked; an encoder on CPUs is counted with all its threads."""
    on_gpu = plan is not None and plan.encoder_gpus > 0
    cores = 0 if plan is None or on_gpu else plan.threads
    spent = {"cpu_s": float(ledger.busy["decode_cpu"] + ledger.busy["embed"] * cores)}
    if on_gpu:
        spent["gpu_s"] = float(ledger.busy["embed"])
    return {name: round(seconds, 3) for name, seconds in spent.items()}


def _offsets(ledger: Ledger) -> dict[str, float]:
    """How far the frames are from their exact positions, where they were not sampled exactly."""
    if ledger.info.sampling == "exact" or not ledger.busy["offset_frames"]:
        return {}
    mean_s = ledger.busy["offset"] / ledger.busy["offset_frames"]
    return {"offset_mean_s": round(mean_s, 3), "offset_max_s": round(ledger.offset_s, 3)}


def _notes(ledger: Ledger, failed: int) -> tuple[str, ...]:
    notes = [f"model key: {ledger.info.model_key}"]
    if ledger.start_s:
        notes.append(f"{ledger.start_s:.1f} s until the workers had started, not counted in clips/s")
    offsets = _offsets(ledger)
    if offsets:
        notes.append(
            f"fast sampling: frames lie {offsets['offset_mean_s']:.2f} s from their exact positions on average, "
            f"{offsets['offset_max_s']:.2f} s at most"
        )
    if ledger.rounds > 1:
        notes.append(f"nodes went away: planned anew {ledger.rounds - 1:,} times; shares are of what was planned first")
    filled, clips = int(ledger.busy["filled_frames"]), int(ledger.busy["filled_clips"])
    if filled:
        notes.append(f"{filled:,} frames filled, in {clips:,} clips")
    fetched, clips = int(ledger.busy["bytes_read"]), int(ledger.busy["clips_fetched"])
    if clips:
        notes.append(f"{fetched / 1e6:,.1f} MB read from servers, {fetched / clips / 1e6:,.2f} MB a clip")
    if ledger.spilled_bytes:
        notes.append(
            f"{ledger.spilled_bytes / 1e6:,.1f} MB of frames and vectors went to disk: the object store was full"
        )
    elsewhere = ledger.returned - ledger.rows - failed
    if elsewhere > 0:
        notes.append(f"{elsewhere:,} clips were done by another run meanwhile")
    if ledger.waiting:
        notes.append(f"{ledger.waiting:,} clips wait for a scan to finish their files: run `raydist embed` again")
    if not ledger.expected and not ledger.waiting:
        notes.append(
            "nothing to do: every clip has a vector or a failure of this model (--retry-failed tries those again)"
        )
    done = ledger.rows or not failed
    notes.append('next: `raydist search "words"`' if done else "`raydist status` has the books")
    return tuple(notes)
