"""The command line: parse, resolve the settings, call the stage, print. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from raydist import __version__
from raydist import config as settings_of
from raydist.config import Config, Resolved
from raydist.errors import RaydistError, UsageError
from raydist.progress import talk

if TYPE_CHECKING:
    from raydist.records import Report

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and Ray's logs.")
def cli(debug: bool) -> None:
    """Teach CLIP your archive: embed and search millions of video clips on Ray.

    Begin with `raydist demo`, or with your own videos:
    `raydist scan FOLDER`, `raydist embed`, `raydist search "words"`.
    """
    if debug:
        os.environ["RAYDIST_DEBUG"] = "1"


def settings(command: Callable[..., None]) -> Callable[..., None]:
    """Options that every verb takes; the command gets `resolve`, which makes a configuration of them."""

    def wrapped(archive: str | None, file: str | None, changes: tuple[str, ...], **rest: Any) -> None:
        def resolve(**options: Any) -> Resolved:
            named = {name.replace("__", "."): value for name, value in options.items()}
            return settings_of.load(file, changes, {"archive": archive, **named})

        command(resolve, **rest)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click's own protocol
    for option in (
        click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change one setting."),
        click.option("--config", "file", metavar="FILE", help="TOML file of settings. [default: ./raydist.toml]"),
        click.option("--archive", metavar="FOLDER", help="The archive. [default: RAYDIST_ARCHIVE]"),
    ):
        wrapped = option(wrapped)
    return wrapped


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
with_adapter = click.option("--adapter", metavar="RUN", help="A LoRA adapter: a run of the archive, or a folder.")
again = click.option("--retry-failed", is_flag=True, help="Try clips again that could not be decoded.")
Resolve = Callable[..., Resolved]


@cli.command()
@click.argument("inputs", nargs=-1, metavar="VIDEO_OR_FOLDER...")
@click.option("--clip-seconds", type=float, help="Length of a clip; belongs to the archive. [default: 30]")
@click.option("--metadata", metavar="FILE", help="CSV, JSONL or Parquet with a `path` column: your own columns.")
@click.option("--splits", metavar="FILE", help="CSV, TSV, JSONL or JSON: a video and train, val or test, a line.")
@click.option("--as", "as_name", metavar="NAME", help="Name of the root, where its folder's name is taken.")
@click.option("--moved", nargs=2, metavar="OLD NEW", help="A scanned folder lies elsewhere now.")
@click.option("--resplit", is_flag=True, help="Deal train, val and test again.")
@click.option("--retry-failed", is_flag=True, help="Look again at files that failed.")
@as_json
@settings
def scan(resolve: Resolve, inputs: tuple[str, ...], clip_seconds: float | None, as_json: bool, **request: Any) -> None:
    """Find videos and cut them into clips; nothing is re-encoded."""
    from raydist import scan as stage  # here and below: `raydist --help` must not wait for Ray, torch and Lance

    config = resolve(scan__clip_seconds=clip_seconds).config
    finish(stage.run(config, stage.Request(inputs=inputs, **request)), config, as_json)


@cli.command()
@click.option("--from", "listed", metavar="FILE", help="CSV, TSV, JSONL or JSON: a file or clip, its caption, a line.")
@click.option("--keep", is_flag=True, help="Captions of files that changed since are still right.")
@as_json
@settings
def caption(resolve: Resolve, listed: str | None, keep: bool, as_json: bool) -> None:
    """Give clips captions."""
    from raydist import caption as stage

    config = resolve().config
    finish(stage.run(config, stage.Request(file=listed, keep=keep)), config, as_json)


@cli.command()
@click.option("--model", metavar="M", help="The base model. [default: the archive's, else viclip-b16]")
@click.option(
    "--run", "run", metavar="NAME", default="lora", show_default=True, help="Name of the run and its adapter."
)
@again
@as_json
@settings
def train(resolve: Resolve, model: str | None, as_json: bool, **request: Any) -> None:
    """Fine-tune the model on the archive's captioned clips: a LoRA adapter."""
    from raydist import train as stage

    config = resolve(embed__model=model).config
    finish(stage.run(config, stage.Request(**request)), config, as_json)


@cli.command()
@click.option(
    "--model", metavar="M", help="A name, a folder or a hub repository. [default: the archive's, else viclip-b16]"
)
@with_adapter
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed with this model.")
@as_json
@settings
def embed(resolve: Resolve, model: str | None, adapter: str | None, retry_failed: bool, as_json: bool) -> None:
    """Give every clip a vector."""
    from raydist import embed as stage

    config = resolve(embed__model=model, embed__adapter=adapter).config
    finish(stage.run(config, retry_failed=retry_failed), config, as_json)


@cli.command("eval")
@click.option("--model", metavar="M", help="The base model. [default: the adapter's, else the archive's]")
@with_adapter
@click.option("--split", metavar="SPLIT", help="Whose clips are searched: test, val or train. [default: test]")
@again
@as_json
@settings
def eval_(
    resolve: Resolve, model: str | None, adapter: str | None, split: str | None, retry_failed: bool, as_json: bool
) -> None:
    """Measure how well captions find their held-out clips, base against adapter."""
    from raydist import eval as stage

    config = resolve(embed__model=model, embed__adapter=adapter, eval__split=split).config
    finish(stage.run(config, retry_failed=retry_failed), config, as_json, stage)


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


def finish(report: Report, config: Config, as_json: bool, shown: Any = None) -> None:
    """Print a stage's report, as the stage `shown` shows it; end with 1 where too many failed."""
    from raydist import report as reports

    shown = shown or reports
    if as_json:
        print_json([shown.as_json(report)])
    else:
        click.echo(shown.render(report))
    if reports.too_many_failed(report, config.max_failed):
        talk.print(
            f"more than max_failed = {config.max_failed:.0%} failed; the reasons are above and in `raydist status`"
        )
        raise SystemExit(1)


def print_json(rows: Iterable[Any]) -> None:
    """One JSON object a line."""
    for row in rows:
        click.echo(json.dumps(row, ensure_ascii=False, default=str))


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run the command and turn errors into one message and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if sys.platform == "win32":
        talk.print("raydist does not run on Windows itself: use it in WSL2")
        raise SystemExit(2)
    try:
        cli.main(args=arguments, prog_name="raydist", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):  # click makes the first of the second
        talk.print("interrupted; the same command goes on from here")
        raise SystemExit(INTERRUPTED) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except RaydistError as error:
        _explain(error, str(error))
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # `raydist search … | head`: the reader has enough; Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:  # noqa: BLE001  # the one edge where anything becomes a message
        _explain(error, f"{type(error).__name__}: {error}\nThis is not expected; --debug shows where it comes from.")
        raise SystemExit(1) from None


def _explain(error: BaseException, message: str) -> None:
    if os.environ.get("RAYDIST_DEBUG"):
        talk.print("".join(traceback.format_exception(error)), markup=False)
    talk.print(f"error: {message}", markup=False, style="red")
