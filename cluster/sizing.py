"""sizing: how many CPU cores feed one GPU, and what a number of clips costs.

    python cluster/sizing.py --model viclip-b16 --gpu-clips-per-s 145 --core-hour 0.04 --gpu-hour 0.60

Reads   the decoding table of docs/benchmarks.md, which is measured; what a clip costs a model, which is counted
Takes   the GPU's clips a second, as a report of yours has them; or, before there is one, what the GPU sustains
Gives   cores a GPU, core-hours, GPU-hours and money, as a table or as one line of JSON
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

BENCHMARKS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

GFLOP_A_CLIP = {"tiny": 0.13, "viclip-b16": 333.07, "viclip-l14": 1592.6, "clip-l14-336": 3055.36}
"""Billions of operations of the video tower, 8 frames: `python tests/benchmarks/flops.py`."""

HOUR_S = 3600


def decoding_ms(sampling: str, page: Path = BENCHMARKS) -> dict[str, float]:
    """CPU milliseconds that a clip of 30 s costs a core, by kind of file: the medians of the table.

    Args:
        sampling: `exact` or `fast`.
        page: the page with the table.

    Raises:
        ValueError: the page has no such table.
    """
    found: dict[str, float] = {}
    column = -1
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "file" and f"raydist {sampling.upper()}" in cells:
            column = cells.index(f"raydist {sampling.upper()}")
        elif column > 0 and not line.startswith("|"):
            return found
        elif column > 0 and (times := re.match(r"[\d.]+ / ([\d.]+)", cells[column])):
            found[cells[0]] = float(times[1])
    raise ValueError(f"{page} has no table with the columns `file` and `raydist {sampling.upper()}`")


def estimate(
    *,
    decode_s: float,
    gpu_clips_per_s: float,
    busy: float = 0.9,
    clips: int = 1_000_000,
    core_hour: float = 0.0,
    gpu_hour: float = 0.0,
) -> dict[str, float]:
    """What `clips` clips take.

    Args:
        decode_s: CPU seconds that decoding a clip costs one core.
        gpu_clips_per_s: what one GPU embeds.
        busy: share of a core's time that is decoding; the rest is Ray's, reading's and writing's.
        core_hour, gpu_hour: prices.

    Raises:
        ValueError: a figure that is not above zero.
    """
    for name, value in (("decode_s", decode_s), ("gpu_clips_per_s", gpu_clips_per_s), ("busy", busy)):
        if value <= 0:
            raise ValueError(f"{name} is {value}: expected more than 0")
    core_hours = clips * decode_s / busy / HOUR_S
    gpu_hours = clips / gpu_clips_per_s / HOUR_S
    return {
        "cores_a_gpu": gpu_clips_per_s * decode_s / busy,
        "core_hours": core_hours,
        "gpu_hours": gpu_hours,
        "cost": core_hours * core_hour + gpu_hours * gpu_hour,
    }


def matrix(gpu_tflops: float, utilisation: float, busy: float) -> str:
    """Cores a GPU by kind of file and model as a Markdown table: exact sampling, and fast behind the slash."""
    models = [name for name in GFLOP_A_CLIP if name != "tiny"]
    rates = {name: utilisation * gpu_tflops * 1000 / GFLOP_A_CLIP[name] for name in models}
    exact, fast = decoding_ms("exact"), decoding_ms("fast")
    lines = [
        "| file | CPU ms a clip | " + " | ".join(f"{name}, {rates[name]:.0f} clips/s" for name in models) + " |",
        "| --- | ---: | " + " | ".join("---:" for _ in models) + " |",
    ]
    for kind in exact:
        cells = []
        for name in models:
            cores = [
                estimate(decode_s=times[kind] / 1000, gpu_clips_per_s=rates[name], busy=busy)["cores_a_gpu"]
                for times in (exact, fast)
            ]
            cells.append(" / ".join(f"{count:.0f}" if count >= 10 else f"{count:.1f}" for count in cores))
        lines.append(f"| {kind} | {exact[kind]:.0f} / {fast[kind]:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--model", type=click.Choice(list(GFLOP_A_CLIP)), default="viclip-b16", show_default=True)
@click.option("--file", "kind", help="A row of the decoding table. [default: all of them]")
@click.option("--sampling", type=click.Choice(["exact", "fast"]), default="exact", show_default=True)
@click.option("--gpu-clips-per-s", type=float, help="What one GPU embeds, from a report of yours.")
@click.option(
    "--gpu-tflops", type=float, help="Without such a report: the GPU's bfloat16 peak, as its maker states it."
)
@click.option("--utilisation", type=float, default=0.4, show_default=True, help="Share of the peak, assumed.")
@click.option("--busy", type=float, default=0.9, show_default=True, help="Share of a core's time that is decoding.")
@click.option("--clips", type=int, default=1_000_000, show_default=True)
@click.option("--core-hour", type=float, default=0.0, help="Price of a CPU core for an hour.")
@click.option("--gpu-hour", type=float, default=0.0, help="Price of a GPU for an hour, without its machine's cores.")
@click.option("--table", is_flag=True, help="Cores a GPU by file and model, in Markdown; needs --gpu-tflops.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def main(
    model: str,
    kind: str | None,
    sampling: str,
    gpu_clips_per_s: float | None,
    gpu_tflops: float | None,
    utilisation: float,
    table: bool,
    as_json: bool,
    **prices: Any,
) -> None:
    """How many CPU cores feed one GPU, and what a number of clips costs."""
    if (gpu_clips_per_s is None) == (gpu_tflops is None):
        raise click.UsageError("state --gpu-clips-per-s, which is measured, or --gpu-tflops, which is a guess")
    if table:
        if gpu_tflops is None:
            raise click.UsageError("--table compares models: it needs --gpu-tflops")
        click.echo(matrix(gpu_tflops, utilisation, prices["busy"]))
        return
    times_ms = decoding_ms(sampling)
    if kind is not None and kind not in times_ms:
        raise click.UsageError(f"no row {kind!r}: expected one of {', '.join(times_ms)}")
    rate = gpu_clips_per_s or utilisation * (gpu_tflops or 0) * 1000 / GFLOP_A_CLIP[model]
    if not as_json:
        source = "as you measured" if gpu_clips_per_s else f"assumed: {utilisation:.0%} of {gpu_tflops:g} TFLOP/s"
        click.echo(f"{model}, {rate:,.1f} clips/s on a GPU ({source}); {prices['clips']:,} clips of 30 s\n")
        click.echo(
            f"{'file':<18}{'CPU ms a clip':>14}{'cores a GPU':>13}{'core-hours':>12}{'GPU-hours':>11}{'cost':>10}"
        )
    for name in [kind] if kind else times_ms:
        row = estimate(decode_s=times_ms[name] / 1000, gpu_clips_per_s=rate, **prices)
        if as_json:
            click.echo(
                json.dumps({"file": name, "model": model, "gpu_clips_per_s": rate, "cpu_ms": table[name], **row})
            )
        else:
            click.echo(
                f"{name:<17}{times_ms[name]:>15,.0f}{row['cores_a_gpu']:>13,.1f}{row['core_hours']:>12,.0f}"
                f"{row['gpu_hours']:>11,.1f}{row['cost']:>9,.2f}"
            )


if __name__ == "__main__":
    main()
