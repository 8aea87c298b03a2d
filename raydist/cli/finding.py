"""The verbs that find and write out what an archive holds: search, export."""

from __future__ import annotations

import click

from raydist.cli.common import Resolve, as_json, cli, finish, print_json, settings, with_adapter
from raydist.errors import UsageError


@cli.command()
@click.argument("words", nargs=-1)
@click.option("--image", metavar="FILE", help="Search by a picture.")
@click.option("--clip", metavar="CLIP_ID", help="Search by a clip of the archive.")
@click.option("--queries", metavar="FILE", help="A text file, a query a line.")
@click.option("--top", type=int, help="Hits a query. [default: 10]")
@click.option("--where", metavar="SQL", help="Only clips for which it is true: \"split = 'test'\".")
@click.option("--model", metavar="M", help="The model whose vectors are searched. [default: the archive's only one]")
@with_adapter
@as_json
@settings
def search(
    resolve: Resolve,
    words: tuple[str, ...],
    image: str | None,
    clip: str | None,
    queries: str | None,
    top: int | None,
    where: str | None,
    model: str | None,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Find clips by words, by a picture, by a clip, or by a file of queries."""
    from raydist import search as stage

    config = resolve(search__top=top, embed__model=model, embed__adapter=adapter).config
    given = [bool(words), image is not None, clip is not None, queries is not None]
    if sum(given) != 1:
        raise UsageError("expected one of: words, --image FILE, --clip CLIP_ID, --queries FILE")
    if queries is not None:
        asked = stage.read_queries(queries)
    else:
        asked = [stage.Query(words=" ".join(words) if words else None, image=image, clip_id=clip)]
    hits = stage.run(config, asked, where=where).to_pylist()
    if queries is None:
        hits = [{name: value for name, value in hit.items() if name != "query"} for hit in hits]
    if as_json:
        print_json(hits)
    else:
        click.echo(stage.render(hits))


@cli.group()
def export() -> None:
    """Write what the archive holds for other programs."""


@export.command()
@with_adapter
@click.option("--model", metavar="M", help="The base. [default: the one that the adapter was trained on]")
@click.option("--out", required=True, metavar="FOLDER", help="A new folder, or an empty one.")
@as_json
@settings
def checkpoint(resolve: Resolve, adapter: str | None, model: str | None, out: str, as_json: bool) -> None:
    """Write a model with its adapter folded in, in the model's own layout."""
    from raydist import export as verb

    config = resolve(embed__model=model, embed__adapter=adapter).config
    finish(verb.checkpoint(config, out), config, as_json)
