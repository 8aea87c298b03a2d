"""The stages as verbs: scan, caption, train, embed, eval."""

from __future__ import annotations

from typing import Any

import click

from raydist.cli.common import Resolve, again, as_json, cli, finish, settings, with_adapter
from raydist.errors import UsageError


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
@click.option(
    "--from",
    "listed",
    metavar="PATH",
    help="Captions that there are: CSV, TSV, JSONL, JSON, Parquet, SRT, VTT, a WebDataset shard, or a folder of .txt, "
    ".json, .srt and .vtt beside clips.",
)
@click.option(
    "--provider",
    type=click.Choice(["gemini", "openai", "local"]),
    help="Let a model look at the clips; openai: any server that speaks its API. Keys come from the environment.",
)
@click.option("--model", metavar="M", help="The provider's model; local: a folder or a hub repository.")
@click.option("--limit", type=int, default=0, metavar="N", help="Ask about N clips at most, spread over all.")
@click.option("--max-cost", type=float, metavar="MONEY", help="Stop before more is spent. [default: no limit]")
@click.option("--dry-run", is_flag=True, help="Only say what would be asked, what it takes and what it costs.")
@click.option("--retry-failed", is_flag=True, help="Ask again about clips that failed.")
@click.option("--review", is_flag=True, help="Look through the captions: suspects, repeats, a page with pictures.")
@click.option("--sheet", metavar="FILE", help="The page that --review writes. [default: in the run's folder]")
@click.option("--keep", is_flag=True, help="Captions of files that changed since are still right.")
@as_json
@settings
def caption(
    resolve: Resolve,
    listed: str | None,
    provider: str | None,
    model: str | None,
    max_cost: float | None,
    as_json: bool,
    **request: Any,
) -> None:
    """Give clips captions: those of a list, or of a model that looks at them."""
    from raydist import caption as stage

    if provider and (listed or request["keep"] or request["review"]):
        raise UsageError("--provider asks a model for captions: leave it out, or --from, --keep and --review")
    config = resolve(caption__provider=provider, caption__model=model, caption__max_cost=max_cost).config
    finish(stage.run(config, stage.Request(file=listed, **request)), config, as_json)


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
