"""LoRA adapters in PEFT's format, the only user of peft.

Trains  q, k, v and out of the attention layers of both towers; the base is frozen in the type that it computes in
Keeps   the matrices in float32 (float64 where the base is), so that small steps are not rounded away; their products
        are computed in the type of the activations, on a GPU bfloat16 like the rest
Promise the same seed draws the same matrices on every machine; B begins with zeros, so an untrained adapter changes
        nothing
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from raydist.errors import ModelError
from raydist.models.encoder import Encoder

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
TARGETS = r".*\.self_attn\.(q|k|v|out)_proj"
"""Layers that are adapted, in ViCLIP, CLIP and SigLIP alike; the pooling head of SigLIP is none of them."""

_NAME = "default"
"""PEFT's own name for an only adapter; files do not hold it."""

Model = TypeVar("Model", bound=nn.Module)


class LoRA:
    """The trained part of a model. What it computes with is the model itself, which has the layers in it."""

    def __init__(self, adapted: PeftModel) -> None:
        self._adapted = adapted
        self._matrices = {
            name.replace(f".{_NAME}.", "."): parameter
            for name, parameter in adapted.named_parameters()
            if parameter.requires_grad
        }

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The trained matrices with their names in the adapter's file, in the order of the layers."""
        return list(self._matrices.items())

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers that are trained, and all numbers of the model with them."""
        trained = sum(parameter.numel() for parameter in self._matrices.values())
        return trained, sum(parameter.numel() for parameter in self._adapted.parameters())

    def state(self) -> dict[str, Tensor]:
        """A copy of the matrices on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._matrices.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over matrices that `state` gave, in place: an optimiser goes on with them.

        Raises:
            ModelError: names or shapes of another adapter.
        """
        different = sorted(state.keys() ^ self._matrices.keys())
        if different:
            raise ModelError(
                f"{len(different)} matrices are those of another adapter or are missing ({', '.join(different[:3])}"
                f"{', ...' if len(different) > 3 else ''}); resume with the model and the rank that the run began with"
            )
        for name, parameter in self._matrices.items():
            if state[name].shape != parameter.shape:
                raise ModelError(
                    f"{name} has shape {list(state[name].shape)}; this adapter's is {list(parameter.shape)}: resume "
                    "with the model and the rank that the run began with"
                )
            parameter.copy_(state[name])

    def save(self, folder: Path, base: str = "") -> None:
        """Write the adapter into a folder, as PEFT does.

        Args:
            folder: there already.
            base: how the adapter's file names the base: a hub repository, or a model's name.
        """
        matrices = {name: value.float().contiguous() for name, value in self.state().items()}
        save_file(matrices, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        config = self._adapted.peft_config[_NAME]
        # Where the base lies on this machine is nobody's business.
        config.base_model_name_or_path = base or None
        training, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(folder))
        config.inference_mode = training


def attach(encoder: Encoder, *, rank: int = 32, alpha: float = 64, seed: int = 0) -> LoRA:
    """Put an adapter into the encoder's model, in place, and freeze all the rest.

    The model stays in evaluation mode: nothing in it is random.
    """
    return wrap(encoder.model, rank=rank, alpha=alpha, seed=seed)


def wrap(model: nn.Module, *, rank: int = 32, alpha: float = 64, seed: int = 0) -> LoRA:
    """`attach` for the module alone; on the meta device it costs no memory.

    Raises:
        ModelError: the model has no layers to adapt.
    """
    config = LoraConfig(r=rank, lora_alpha=_whole(alpha), target_modules=TARGETS, lora_dropout=0.0, bias="none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers has renamed
            adapted = get_peft_model(model, config)
    except ValueError as error:  # peft's message lists all modules
        raise ModelError(f"{type(model).__name__} has no layers like {TARGETS!r} to adapt") from error
    adapted.eval()
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            _prepare(layer, generator)
    return LoRA(adapted)


def merged(model: Model, folder: Path) -> Model:
    """The float32 model with the adapter folded into its weights: the same vectors, at no cost a batch.

    Raises:
        ModelError: no adapter, or one for another model.
    """
    try:
        stored = load_file(folder / WEIGHTS_FILE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft warns of is an error below
            adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter in {str(folder)!r} does not fit {type(model).__name__} ({error}); "
            "name the model that it was trained on"
        ) from error
    # With peft's default it would ask the hub for the base's configuration, to see whether its vocabulary grew.
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    different = sorted(stored.keys() ^ wanted.keys())
    if different:
        raise ModelError(
            f"{len(different)} tensors of the adapter in {str(folder)!r} have no place in {type(model).__name__} "
            f"or are missing ({', '.join(different[:3])}{', ...' if len(different) > 3 else ''})"
        )
    return adapted.merge_and_unload()


class Matrix(nn.Linear):
    """A linear layer without bias that keeps its weight finer than it computes."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.to(x.dtype))


def _prepare(layer: Any, generator: torch.Generator) -> None:
    """Draw A as PEFT does, but from the generator; keep both matrices in float32 at least."""
    layer.cast_input_dtype_enabled = False  # or the input would be held in float32, once for each of q, k and v
    base = layer.get_base_layer().weight
    for part in (layer.lora_A, layer.lora_B):
        old = part[_NAME]
        new = Matrix(old.in_features, old.out_features, bias=False, device="meta")
        values = torch.zeros(new.weight.shape)
        if part is layer.lora_A and not base.is_meta:
            nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
        new.weight = nn.Parameter(values.to(base.device, torch.promote_types(base.dtype, torch.float32)))
        part[_NAME] = new


def _whole(alpha: float) -> Any:
    """PEFT's field is an integer; another number is as good for it."""
    return int(alpha) if float(alpha).is_integer() else alpha
