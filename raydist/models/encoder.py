"""One interface for all models: uint8 frames and texts -> unit vectors of one space.

Frames go to the device as uint8 and are normalised there; a model computes in bfloat16 on a GPU that has it and in
float32 elsewhere. Vectors come back as float32 of length 1, so a dot product is a cosine. What a model gives as NaN,
infinity or nothing but zeros comes back as NaN: the caller checks, nothing is hidden.

Training goes by the steps in between, `pixels` and `video`, `ids` and `text`, which keep the gradient.
"""

# Shape legend: B clips or texts, T frames, H W pixels, C colours, L tokens, E embedding size

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raydist.errors import ResourceError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN, SIGLIP_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

TEXT_BATCH = 256
"""Texts a forward pass: more brings no speed and a file of queries may be long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What other parts need to know of a model, without its weights."""

    name: str
    """`viclip-b16`, or the name of the folder or repository; `+` and the adapter's name where one is used, `@fast` for
    vectors of other frames than the recipe's."""
    model_key: str
    """Safe in a table's name: `viclip_b16_1f0c9a3e`. Another key means vectors that do not compare."""
    frames: int
    """Frames that stand for a clip."""
    sampling: str
    """Which of a clip's frames: `exact` or `fast`, see `clips.sampling`."""
    size_px: int
    """Edge of the square input."""
    resize: str
    """A rule of `clips.resize`: `viclip`, `clip`, …"""
    dim: int
    """Length of a vector."""
    context: int
    """Tokens of a text, start and end included; what is longer is cut."""
    licence: str
    """Of the weights."""
    location: str
    """The folder that holds the weights on this machine."""
    digest: str
    """Of the weights, those of an adapter left out."""
    repository: str = ""
    """Where the hub has the weights, if that is known."""
    adapter: str = ""
    """The absolute folder of the LoRA adapter in use; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Mean and deviation of the colours 0..1 that a model was trained with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, T, 3, H, W], on the device where the frames are."""
        mean, std = (torch.tensor(values, device=frames_BTHWC.device) for values in (self.mean, self.std))
        return ((frames_BTHWC / 255 - mean) / std).movedim(-1, 2).contiguous()


class Encoder(ABC):
    """A model on a device.

    Subclasses give un-normalised vectors; `encode_frames` and `encode_text` check, move, normalise and bring back.
    """

    info: ModelInfo
    model: nn.Module
    """Both towers, in evaluation mode."""
    statistics: Statistics
    temperature: float
    """Similarities are divided by it before a softmax."""
    device: torch.device
    dtype: torch.dtype

    def encode_frames(self, frames_BTHWC: NDArray[np.uint8] | Tensor) -> NDArray[np.float32]:
        """Embed clips.

        Args:
            frames_BTHWC: uint8 RGB [B, T, size_px, size_px, 3], resized by the rule `info.resize`; T is
                `info.frames`, or 1 for a picture.

        Returns:
            float32 [B, E] of length 1; a row of NaN where the model gave no direction.

        Raises:
            ValueError: another type or shape.
        """
        self._check_frames(frames_BTHWC)
        if len(frames_BTHWC) == 0:
            return np.zeros((0, self.info.dim), np.float32)
        with torch.inference_mode():
            return _unit(self.video(self.pixels(frames_BTHWC)))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 [B, E] of length 1; a row of NaN where the model gave no direction.

        A marker of the vocabulary that a text spells, such as `<|endoftext|>`, is read as white space.

        Raises:
            ValueError: one text in place of a list of them.
        """
        if isinstance(texts, str):
            raise ValueError(f"encode_text takes a list of texts, not one: [{texts[:40]!r}]")
        parts = [np.zeros((0, self.info.dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(texts), TEXT_BATCH):
                parts.append(_unit(self.text(self.ids(texts[start : start + TEXT_BATCH]))))
        return np.concatenate(parts)

    def pixels(self, frames_BTHWC: NDArray[np.uint8] | Tensor) -> Tensor:
        """uint8 frames as `encode_frames` takes them -> normalised pixels [B, T, 3, H, W] on the device, in `dtype`.

        Raises:
            ValueError: another type or shape.
        """
        self._check_frames(frames_BTHWC)
        if isinstance(frames_BTHWC, np.ndarray):
            # Ray's arrays are read-only, which torch does not accept; only those are copied.
            frames_BTHWC = torch.from_numpy(np.require(frames_BTHWC, requirements=["C", "W"]))
        return self.statistics.normalise(frames_BTHWC.to(self.device, non_blocking=True)).to(self.dtype)

    @abstractmethod
    def video(self, pixels_BTCHW: Tensor) -> Tensor:
        """Normalised pixels on the device -> [B, E], of any length. Differentiable."""

    @abstractmethod
    def ids(self, texts: Sequence[str]) -> Tensor:
        """At least one text -> token ids [B, L] on the device; each row is as it would be alone."""

    @abstractmethod
    def text(self, ids_BL: Tensor) -> Tensor:
        """Token ids on the device -> [B, E], of any length. Differentiable."""

    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """The transformer blocks of both towers."""

    def checkpoint_activations(self) -> None:
        """From now on a block's activations are not kept for the way back but computed again: less memory, more time.

        Gradients stay what they are.
        """
        for block in self.blocks():
            # transformers' own switch works in training mode only, which would bring dropout along.
            block.forward = partial(_checkpointed, block.forward)

    def _check_frames(self, frames_BTHWC: NDArray[np.uint8] | Tensor) -> None:
        side, shape = self.info.size_px, tuple(frames_BTHWC.shape)
        if frames_BTHWC.dtype not in (np.uint8, torch.uint8) or len(shape) != 5 or shape[2:] != (side, side, 3):
            raise ValueError(
                f"frames are {frames_BTHWC.dtype} {list(shape)}; {self.info.name} takes uint8 [B, T, {side}, {side}, 3]"
            )
        if shape[1] not in (1, self.info.frames):
            raise ValueError(f"{shape[1]} frames a clip; {self.info.name} takes {self.info.frames}, or 1 for a picture")


def pick_device(device: str) -> torch.device:
    """The device for `cpu`, `cuda`, `cuda:N` or `auto`.

    Raises:
        ResourceError: torch sees no such GPU.
        ValueError: another word.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ValueError(f"device {device!r}: expected cpu, cuda, cuda:N or auto")
    if kind == "cuda" and int(number or 0) >= gpus:
        raise ResourceError(
            f"device {device!r}: torch {torch.__version__} sees {gpus} GPUs; use cpu or auto (`--set embed.device=cpu`)"
        )
    return torch.device(device)


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU whose cores have it, else float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def unit_length(vectors_BE: Tensor) -> Tensor:
    """Vectors of length 1 in float32, or in float64 where they come so.

    Zeros become NaN here, on purpose: there is no direction to give.
    """
    if vectors_BE.dtype != torch.float64:
        vectors_BE = vectors_BE.float()
    length_B1: Tensor = torch.linalg.vector_norm(vectors_BE, dim=-1, keepdim=True)
    return vectors_BE / length_B1


def _unit(vectors_BE: Tensor) -> NDArray[np.float32]:
    return unit_length(vectors_BE).float().cpu().numpy()


def _checkpointed(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    # Nothing is random in evaluation mode, so there is no random state to keep.
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **named)
