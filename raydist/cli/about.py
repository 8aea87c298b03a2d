"""The verbs about raydist and an archive: status, report, demo, config."""

from __future__ import annotations

import click

from raydist import config as settings_of
from raydist.cli.common import Resolve, as_json, cli, print_json, settings
from raydist.progress import talk


@cli.command()
@as_json
@settings
def status(resolve: Resolve, as_json: bool) -> None:
    """What is done, pending and failed, by stage and model."""
    from raydist import status as verb

    books = verb.run(resolve().config)
    if as_json:
        print_json([books])
    else:
        click.echo(verb.render(books))


@cli.command()
@click.option("--since", default="24h", show_default=True, metavar="TIME", help="30m, 12h, 3d, or 2026-11-25.")
@click.option("--run", "name", metavar="RUN", default="", help="Only this run.")
@click.option("--core-hour-price", type=float, help="Money for an hour of a core. [default: report.core_hour_price]")
@click.option("--gpu-hour-price", type=float, help="Money for an hour of a GPU. [default: report.gpu_hour_price]")
@as_json
@settings
def report(
    resolve: Resolve,
    since: str,
    name: str,
    core_hour_price: float | None,
    gpu_hour_price: float | None,
    as_json: bool,
) -> None:
    """What was done, what failed and why, what it cost, what to do next."""
    from raydist import report as verb

    config = resolve(report__core_hour_price=core_hour_price, report__gpu_hour_price=gpu_hour_price).config
    told = verb.run(config, verb.Request(since=since, run=name))
    if as_json:
        print_json([told])
    else:
        click.echo(verb.render(told))


@cli.command()
@click.option("--clips", default=240, show_default=True, help="How many clips to draw.")
@as_json
@settings
def demo(resolve: Resolve, clips: int, as_json: bool) -> None:
    """Draw captioned clips, scan, embed and search them: no download, no GPU, three minutes."""
    from raydist import demo as verb

    archive = resolve().config.archive or "demo-archive"
    outcome = verb.run(resolve(archive=archive).config, clips=clips, say=talk.print)
    if as_json:
        print_json([outcome])


@cli.command("config")
@as_json
@settings
def show_config(resolve: Resolve, as_json: bool) -> None:
    """Show every setting, its value and where the value came from."""
    resolved = resolve()
    rows = [
        {
            "key": key,
            "value": settings_of.value_of(resolved.config, key),
            "from": origin,
            "what": settings_of.describe(key),
        }
        for key, origin in resolved.origins.items()
    ]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['key']:<24} {row['value']!s:<16} {row['from']:<14} {row['what']}")
