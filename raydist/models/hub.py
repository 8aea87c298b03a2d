"""Model folders from the Hugging Face hub: what was fetched before is used without asking the network again."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import is_offline_mode, snapshot_download

# HTTPError is the base of all that the hub's HTTP library raises, whichever that is; the hub does not declare it.
from huggingface_hub.errors import HFValidationError, HTTPError, RevisionResolutionError  # type: ignore[attr-defined]  # not in its list

from raydist.errors import ModelError

PATTERNS = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.jinja")
"""Weights, configuration, tokenizer and chat template; no pickles, no code, no second copy of the weights."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_repository(name: str) -> bool:
    """Whether it reads like `owner/name`."""
    return _REPOSITORY.fullmatch(name) is not None and not name.startswith(".")


def fetch(repository: str, by_hand: Path) -> Path:
    """The snapshot of a repository on this machine, downloaded where need be.

    Args:
        repository: `owner/name`.
        by_hand: where its files belong when a person downloads them.

    Raises:
        ModelError: it is not here and cannot be fetched.
    """
    problem: Exception | str = ""
    for here_only in (True, False):
        if not here_only and is_offline_mode():
            problem = "HF_HUB_OFFLINE is set"
            break
        try:
            snapshot = Path(
                snapshot_download(
                    repository,
                    allow_patterns=list(PATTERNS),
                    ignore_patterns=["*/*"],
                    local_files_only=here_only,
                )
            )
        except (OSError, HTTPError, HFValidationError, RevisionResolutionError) as error:
            problem = error
            continue
        if any(snapshot.glob("*.safetensors")):
            return snapshot
        problem = ModelError("the repository holds no model.safetensors")
    raise ModelError(
        f"{repository} is not on this machine and could not be fetched from the hub ({_first_line(problem)}). "
        f"Where there is internet: `hf download {repository} --local-dir {by_hand}` "
        f"(it needs model.safetensors and the *.json and *.txt files); then use `--model {by_hand.name}`."
    )


def _first_line(problem: Exception | str) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(".")
