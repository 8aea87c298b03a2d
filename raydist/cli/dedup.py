"""The verb dedup."""

from __future__ import annotations

from typing import Any

import click

from raydist.cli.common import Resolve, again, as_json, cli, finish, print_json, settings, with_adapter
from raydist.errors import UsageError

_SAYS = ("decisions", "different", "same", "keep")


@cli.command()
@click.option("--threshold", type=float, help="Cosine from which two clips are a pair. [default: 0.95]")
@click.option("--against", metavar="ARCHIVE", help="Another archive: only pairs of a clip here and one there.")
@click.option("--drop", type=click.Choice(["copies", "similar"]), help="What makes a clip redundant. [default: copies]")
@click.option(
    "--read/--no-read", default=None, help="Read pairs again, to tell copies from look-alikes. [default: yes]"
)
@click.option("--pairs", "with_pairs", is_flag=True, help="Print every pair too, one JSON object a line.")
@click.option("--sweep", is_flag=True, help="Only show pairs and groups by threshold, with examples.")
@click.option("--sheet", metavar="FILE", help="Where the review sheet goes. [default: into the run's folder]")
@click.option("--different", nargs=2, multiple=True, metavar="A B", help="Two clips or videos are no duplicates.")
@click.option("--same", nargs=2, multiple=True, metavar="A B", help="Two clips or videos are duplicates.")
@click.option("--keep", multiple=True, metavar="CLIP", help="A clip or video stays.")
@click.option("--decisions", metavar="FILE", help="Decisions that the review sheet saved.")
@click.option("--by", default="", metavar="NAME", help="Who decides. [default: the user]")
@click.option("--model", metavar="M", help="The model whose vectors are compared. [default: the archive's only one]")
@with_adapter
@again
@as_json
@settings
def dedup(
    resolve: Resolve,
    threshold: float | None,
    drop: str | None,
    read: bool | None,
    with_pairs: bool,
    sweep: bool,
    model: str | None,
    adapter: str | None,
    as_json: bool,
    **request: Any,
) -> None:
    """Find duplicate clips, tell which could go, and delete nothing."""
    from raydist import dedup as stage

    config = resolve(
        dedup__threshold=threshold, dedup__drop=drop, dedup__read=read, embed__model=model, embed__adapter=adapter
    ).config
    if sweep:
        extra = [f"--{name.replace('_', '-')}" for name in (*_SAYS, "against", "retry_failed") if request[name]] + [
            "--pairs"
        ] * with_pairs
        if extra:
            raise UsageError(f"--sweep only shows what thresholds would give: leave out {', '.join(extra)}")
        finish(stage.sweep(config, request["sheet"]), config, as_json, stage)
        return
    report = stage.run(config, stage.Request(**request))
    if with_pairs:
        print_json(stage.pairs(config, report))
    finish(report, config, as_json or with_pairs, stage)
