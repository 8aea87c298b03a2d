"""What all verbs of the command line share: their options, how settings are resolved, how reports are printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from raydist import __version__
from raydist import config as settings_of
from raydist.config import Config, Resolved
from raydist.progress import talk

if TYPE_CHECKING:
    from raydist.records import Report


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


def finish(report: Report, config: Config, as_json: bool, shown: Any = None) -> None:
    """Print a stage's report, as the stage `shown` shows it; end with 1 where too many failed."""
    from raydist import rendering as reports

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
