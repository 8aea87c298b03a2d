"""LoRA adapters in PEFT's format, the only user of peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TypeVar

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from raydist.errors import ModelError

Model = TypeVar("Model", bound=nn.Module)


def merged(model: Model, folder: Path) -> Model:
    """The float32 model with the adapter folded into its weights: the same vectors, at no cost a batch.

    Raises:
        ModelError: no adapter, or one for another model.
    """
    try:
        stored = load_file(folder / "adapter_model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft warns of is an error below
            adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter in {str(folder)!r} does not fit {type(model).__name__} ({error}); "
            "name the model that it was trained on"
        ) from error
    different = sorted(stored.keys() ^ get_peft_model_state_dict(adapted).keys())
    if different:
        raise ModelError(
            f"{len(different)} tensors of the adapter in {str(folder)!r} have no place in {type(model).__name__} "
            f"or are missing ({', '.join(different[:3])}{', ...' if len(different) > 3 else ''})"
        )
    return adapted.merge_and_unload()
