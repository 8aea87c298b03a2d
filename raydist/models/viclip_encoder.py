"""ViCLIP behind the interface of all encoders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from raydist.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, ModelInfo, Statistics, pick_dtype
from raydist.models.tokenizer import Tokenizer
from raydist.models.viclip import ViCLIP

STATISTICS = Statistics(mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""ImageNet's, with which ViCLIP was trained; public wrappers use CLIP's."""


class ViclipEncoder(Encoder):
    """A ViCLIP on a device."""

    model: ViCLIP
    statistics = STATISTICS

    def __init__(self, model: ViCLIP, info: ModelInfo, device: torch.device) -> None:
        self.info = info
        self.device = device
        self.dtype = pick_dtype(device)
        self.temperature = float(model.temp.detach())  # before bfloat16 rounds it
        self.model = model.eval().to(device, self.dtype)
        self._tokenizer = Tokenizer(info.context, drop_markers=True)

    def video(self, pixels_BTCHW: Tensor) -> Tensor:
        return self.model.encode_video(pixels_BTCHW)

    def ids(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._tokenizer.encode(texts)).to(self.device)

    def text(self, ids_BL: Tensor) -> Tensor:
        return self.model.encode_text(ids_BL)

    def blocks(self) -> Iterable[nn.Module]:
        return [*self.model.vision_encoder.transformer.resblocks, *self.model.text_encoder.transformer.resblocks]
