"""bench flops: what a clip costs the video tower of each model, in floating-point operations.

Answers: how many clips a second can a GPU embed at best?

    python tests/benchmarks/flops.py

Counted by torch on tensors without content, not timed: two operations a multiply-add, in matrix products, attention and
convolutions; the rest is little. A GPU's clips a second are what it sustains of its peak, divided by this.
"""

from __future__ import annotations

import json

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from raydist.models.registry import TINY
from raydist.models.towers import ViCLIP, ViclipShape
from raydist.models.viclip import read_shape, weights_file

FRAMES = 8
B16 = ViclipShape(
    vision_width=768,
    vision_layers=12,
    vision_heads=12,
    patch_px=16,
    image_px=224,
    frames=FRAMES,
    text_width=512,
    text_layers=12,
    text_heads=8,
    vocabulary=49_408,
    context=32,
    embed_dim=512,
)
L14 = ViclipShape(
    vision_width=1024,
    vision_layers=24,
    vision_heads=16,
    patch_px=14,
    image_px=224,
    frames=FRAMES,
    text_width=768,
    text_layers=12,
    text_heads=12,
    vocabulary=49_408,
    context=32,
    embed_dim=768,
)
"""As published; the tests hold them against the tensors of the published files."""

CLIP_L14_336 = CLIPConfig(
    text_config=CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12).to_dict(),
    vision_config=CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=336,
        projection_dim=768,
    ).to_dict(),
    projection_dim=768,
)


def viclip(shape: ViclipShape) -> int:
    """Operations of one clip."""
    with torch.device("meta"), torch.inference_mode():
        model = ViCLIP(shape).eval()
        frames = torch.empty(1, shape.frames, 3, shape.image_px, shape.image_px)
        with FlopCounterMode(display=False) as counter:
            model.encode_video(frames)
    return counter.get_total_flops()


def clip(config: CLIPConfig) -> int:
    """Operations of one clip: an image model sees its frames one by one."""
    side = config.vision_config.image_size
    with torch.device("meta"), torch.inference_mode():
        model = CLIPModel(config).eval()
        with FlopCounterMode(display=False) as counter:
            model.get_image_features(pixel_values=torch.empty(FRAMES, 3, side, side))
    return counter.get_total_flops()


def counted() -> dict[str, float]:
    """Model -> billions of operations a clip."""
    operations = {
        "tiny": viclip(read_shape(weights_file(TINY.folder))),
        "viclip-b16": viclip(B16),
        "viclip-l14": viclip(L14),
        "clip-l14-336": clip(CLIP_L14_336),
    }
    return {name: round(count / 1e9, 2) for name, count in operations.items()}


if __name__ == "__main__":
    for name, billions in counted().items():
        print(json.dumps({"bench": "flops", "model": name, "gflop_a_clip": billions}))
