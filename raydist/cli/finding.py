"""The verbs that find what an archive holds, write it out, or take it away: search, index, export, forget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from raydist.cli.common import Resolve, as_json, cli, finish, print_json, settings, with_adapter
from raydist.errors import UsageError
from raydist.progress import talk

if TYPE_CHECKING:
    import pyarrow as pa

    from raydist.search import Query


@cli.command()
@click.argument("words", nargs=-1)
@click.option("--image", "images", multiple=True, metavar="FILE", help="Search by a picture.")
@click.option("--clip", "clips", multiple=True, metavar="CLIP_ID", help="Search by a clip of the archive.")
@click.option("--video-file", "files", multiple=True, metavar="FILE[#t=S,E]", help="Search by a video from outside.")
@click.option("--queries", metavar="FILE", help="A text file, a query a line.")
@click.option("--top", type=int, help="Hits a query. [default: 10]")
@click.option("--per-video", type=int, metavar="N", help="At most N hits of one video.")
@click.option("--min-score", metavar="N|auto", help="Only hits of that cosine; auto: only those that stand out.")
@click.option("--hybrid", is_flag=True, default=None, help="Look for the words in captions too.")
@click.option("--no-moments", is_flag=True, help="Each clip is a hit of its own.")
@click.option("--video", "videos", multiple=True, metavar="VIDEO", help="Only of this video; `talks/*` for several.")
@click.option("--split", metavar="SPLIT", help="Only clips of train, val or test.")
@click.option("--duration", metavar="S-S", help="Only clips of so many seconds: 5-60, 5-, -60.")
@click.option("--where", metavar="SQL", help="Only clips for which it is true, your own columns of videos included.")
@click.option("--sheet", metavar="FILE", help="Write the hits as a page or a picture: .html, .png.")
@click.option("--model", metavar="M", help="The model whose vectors are searched. [default: the archive's only one]")
@with_adapter
@as_json
@settings
def search(resolve: Resolve, as_json: bool, sheet: str | None, **given: Any) -> None:
    """Find moments by words, by a picture, by a clip, by a video, or by a file of queries."""
    from raydist import search as stage
    from raydist.search import page

    config = resolve(
        search__top=given["top"],
        search__per_video=given["per_video"],
        search__min_score=given["min_score"],
        search__hybrid=given["hybrid"],
        search__moment_s=0 if given["no_moments"] else None,
        embed__model=given["model"],
        embed__adapter=given["adapter"],
    ).config
    asked = _asked(given)
    if sheet is not None:
        page.check(sheet)
    narrow = {name: given[name] for name in ("where", "videos", "split", "duration")}
    found = stage.run(config, asked, where=stage.condition(config, **narrow))
    hits = found.to_pylist()
    if given["queries"] is None and len(asked) == 1:
        hits = [{name: value for name, value in hit.items() if name != "query"} for hit in hits]
    if as_json:
        print_json(hits)
    else:
        click.echo(stage.render(hits))
    _tell_of_cuts(asked, found)
    if sheet is not None:
        file = page.write(config, [query.label for query in asked], found, sheet)
        talk.print(f"look: {file}")


def _asked(given: dict[str, Any]) -> list[Query]:
    from raydist.search import Query, read_queries

    words = " ".join(given["words"])
    kinds = [bool(given["words"]), *(bool(given[name]) for name in ("images", "clips", "files", "queries"))]
    if sum(kinds) != 1:
        raise UsageError(
            "expected one of: words, --image FILE, --clip CLIP_ID, --video-file FILE, --queries FILE; an option may be "
            "given several times"
        )
    if given["queries"]:
        return read_queries(given["queries"])
    if given["words"]:
        return [Query(words=words)]
    return [
        *(Query(image=name) for name in given["images"]),
        *(Query(clip_id=name) for name in given["clips"]),
        *(Query(video=name) for name in given["files"]),
    ]


def _tell_of_cuts(asked: list[Query], found: pa.Table) -> None:
    """Say on stderr which queries a cut-off left without a hit."""
    from raydist.search import floors_of

    having = set(found["query"].to_pylist())
    for query, floor in zip(asked, floors_of(found), strict=True):
        if floor is not None and query.label not in having:
            talk.print(f"{query.label!r}: nothing in the archive reaches the cut-off, {floor:.3f}")


@cli.command()
@click.option("--model", metavar="M", help="The model whose vectors are indexed. [default: the archive's only one]")
@with_adapter
@click.option("--rebuild", is_flag=True, help="Build it anew, also where it is up to date.")
@as_json
@settings
def index(resolve: Resolve, model: str | None, adapter: str | None, rebuild: bool, as_json: bool) -> None:
    """Build or refresh the index of a model's vectors; `embed` does it by itself where it pays."""
    from raydist import index as verb

    config = resolve(embed__model=model, embed__adapter=adapter).config
    finish(verb.run(config, rebuild=rebuild), config, as_json)


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


@export.command()
@with_adapter
@click.option("--model", metavar="M", help="The model whose vectors are written. [default: the archive's only one]")
@click.option("--where", metavar="SQL", help="Only clips for which it is true.")
@click.option("--out", required=True, metavar="FILE", help="A new file: .parquet, or .npy with a .csv beside it.")
@as_json
@settings
def embeddings(
    resolve: Resolve, adapter: str | None, model: str | None, where: str | None, out: str, as_json: bool
) -> None:
    """Write the vectors of all clips with their names and times."""
    from raydist import export as verb

    config = resolve(embed__model=model, embed__adapter=adapter).config
    finish(verb.embeddings(config, out, where=where), config, as_json)


@export.command()
@click.option("--out", required=True, metavar="PLACE", help="A new file: .parquet, .jsonl; else a folder of shards.")
@click.option("--media", type=click.Choice(["clip", "frames", "none"]), help="What shards hold. [default: clip]")
@click.option("--split", metavar="SPLIT", help="Only clips of train, val or test.")
@click.option("--origin", metavar="NAME", help="Only captions of this origin: sidecar, or a model.")
@click.option("--where", metavar="SQL", help="Only clips for which it is true.")
@click.option("--shard-clips", type=int, metavar="N", help="Clips of a shard, at most. [default: 1000]")
@as_json
@settings
def captions(resolve: Resolve, out: str, as_json: bool, **given: Any) -> None:
    """Write the clips that have captions: pairs, or shards of WebDataset with the clips."""
    from raydist import export as verb

    if out.lower().endswith((".parquet", ".jsonl")) and (given["media"] or given["shard_clips"]):
        raise UsageError(f"--media and --shard-clips are of shards, and --out {out!r} is none: leave them out")
    config = resolve().config
    finish(
        verb.captions(config, out, **{name: value for name, value in given.items() if value is not None}),
        config,
        as_json,
    )


@cli.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@settings
def forget(resolve: Resolve, videos: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove videos from everything in the archive, for good; their files stay."""
    from raydist import forget as verb

    config = resolve().config
    plan = verb.plan(config, videos)
    talk.print(verb.render(plan))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("forget cannot be undone and nobody can be asked here: expected --yes")
        click.confirm("Forget them for good?", abort=True, err=True)
    finish(verb.run(config, plan), config, as_json)
