"""The verbs about raydist and an archive: status, demo, config."""

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
