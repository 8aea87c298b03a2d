"""A merged checkpoint: an adapter (of a run of the archive, or a folder) folded into the base that it was trained on.

Promises  the folder is there whole or not at all
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from safetensors import SafetensorError

from raydist import choice
from raydist.config import Config
from raydist.errors import ResourceError, UsageError
from raydist.export.folders import free
from raydist.models import adapters
from raydist.models.encoder import ModelInfo
from raydist.models.folders import written_whole
from raydist.models.registry import base_of, describe, plain_name
from raydist.models.viclip import tensor_names
from raydist.records import Report
from raydist.store.runs import new_run, save
from raydist.version import __version__


def checkpoint(config: Config, out: str) -> Report:
    """Write `embed.model` with `embed.adapter` folded in, in the model's own layout.

    Args:
        config: an empty `embed.model` is the base that the adapter was trained on; `archive` is needed for the name of
            a run alone.
        out: a folder that is not there yet, or empty.

    Raises:
        ModelError: no such adapter or model, or they do not belong together.
        ResourceError: the folder cannot be written; nothing is left of it.
        UsageError: no adapter was named, or something is there already.
    """
    began = time.monotonic()
    named = _named(config)
    adapter = choice.find_adapter(config.require_archive(), named) if config.archive else adapters.find(named)
    folder = free(out)
    info = describe(plain_name(config.embed.model or base_of(adapter)), str(adapter))
    # Here and not above: peft imports transformers, and a wrong name should be said at once.
    from raydist.models.checkpoint import write_merged

    try:
        with written_whole(folder) as part:
            dtype = write_merged(Path(info.location), adapter, part)
            _explain(info, adapter, part)
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"the checkpoint could not be written to {str(folder)!r} ({error}); nothing is left of it. Make room "
            "there, or name another --out."
        ) from error
    weights = list(folder.glob("*.safetensors"))
    stored = str(dtype).removeprefix("torch.")
    report = Report(
        stage="export",
        run=new_run("export"),
        seconds=time.monotonic() - began,
        counts={
            "tensors": sum(len(tensor_names(file)) for file in weights),
            "bytes": sum(file.stat().st_size for file in weights),
        },
        notes=(f"{info.name} as {stored} in {folder}: use it with `--model {folder}`", f"licence: {info.licence}"),
        details={
            "folder": str(folder),
            "model": info.name,
            "adapter": adapters.name_of(adapter),
            "type": stored,
            "licence": info.licence,
        },
    )
    if config.archive:
        save(report, config.require_archive())
    return report


def _named(config: Config) -> str:
    if not config.embed.adapter:
        raise UsageError("no adapter was named: expected --adapter RUN, a run of the archive or a folder")
    return config.embed.adapter


def _explain(info: ModelInfo, adapter: Path, part: Path) -> None:
    """Say beside the weights what they are; the adapter's own card goes along."""
    text = (
        f"# {info.name}\n\n{info.repository or info.name.rpartition('+')[0]} with the LoRA adapter "
        f"{adapters.name_of(adapter)} folded into its weights by raydist {__version__}.\n\n"
        f"- weights of the base: `{info.digest}`\n- licence of the base: {info.licence}\n"
    )
    (part / "README.md").write_text(text, encoding="utf-8")
    if (adapter / "README.md").is_file():
        shutil.copyfile(adapter / "README.md", part / "ADAPTER.md")
