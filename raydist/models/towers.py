"""The two towers of ViCLIP as torch modules: joint space-time attention over a clip, a causal text transformer.

Linear layers bear the leaf names of transformers (`self_attn.q_proj`, `mlp.fc1`, ...), so that one list of LoRA targets
serves ViCLIP and CLIP; other names are the published ones. `viclip.py` loads and saves the published layout.

Source: Wang et al., InternVid (arXiv:2307.06942); the towers are CLIP's (arXiv:2103.00020) with a temporal position
table. LayerNorm epsilon is 1e-5. `temp` is the temperature itself: similarities are divided by it, and training keeps
it >= 0.01.
"""

# Shape legend: B clips, T frames, C channels, H W pixels, P patches of a frame, L tokens, D width, E embedding size

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, scaled_dot_product_attention

from raydist.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class ViclipShape:
    """Every dimension of a ViCLIP."""

    vision_width: int
    vision_layers: int
    vision_heads: int
    patch_px: int
    image_px: int
    frames: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    context: int
    embed_dim: int

    def __post_init__(self) -> None:
        for tower, width, heads in (
            ("vision", self.vision_width, self.vision_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if heads < 1 or width % heads:
                raise ModelError(
                    f"{heads} attention heads do not divide the {tower} width {width}; "
                    f'state the true count in config.json: {{"{tower}": {{"heads": ...}}}}'
                )


class SelfAttention(nn.Module):
    """Multi-head attention with four separate linear layers, so that an adapter reaches each of them."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, rows: int | None = None) -> Tensor:
        q, k, v = (
            proj(part_BLD).view(*part_BLD.shape[:2], self.heads, -1).transpose(1, 2)
            for proj, part_BLD in ((self.q_proj, x_BLD[:, :rows]), (self.k_proj, x_BLD), (self.v_proj, x_BLD))
        )
        mixed = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with the quick GELU of CLIP between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        hidden = self.fc1(x_BLD)
        return self.fc2(hidden * torch.sigmoid(1.702 * hidden))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads, causal=causal)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x_BLD: Tensor, rows: int | None = None) -> Tensor:
        """The block's output, or only its first `rows` tokens, which costs less and attends to all the same."""
        x_BLD = x_BLD[:, :rows] + self.self_attn(self.ln_1(x_BLD), rows)
        return x_BLD + self.mlp(self.ln_2(x_BLD))


class Transformer(nn.Module):
    """Blocks in a row; `resblocks` is the published name."""

    def __init__(self, width: int, layers: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, causal=causal) for _ in range(layers))

    def forward(self, x_BLD: Tensor, rows: int | None = None) -> Tensor:
        """The last block's output, or only its first `rows` tokens."""
        last = len(self.resblocks) - 1
        for number, block in enumerate(self.resblocks):
            x_BLD = block(x_BLD, rows if number == last else None)
        return x_BLD[:, :rows]


class VisionEncoder(nn.Module):
    """All patches of all frames and one class token attend to each other in every layer."""

    def __init__(self, shape: ViclipShape) -> None:
        super().__init__()
        width, patch = shape.vision_width, shape.patch_px
        self.patches = (shape.image_px // patch) ** 2
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(self.patches + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, shape.frames, width))
        self.proj = nn.Parameter(torch.empty(width, shape.embed_dim))
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), stride=(1, patch, patch), bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.vision_layers, shape.vision_heads, causal=False)
        self.ln_post = nn.LayerNorm(width)

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        tokens = self.ln_pre(self.embed(pixels_BTCHW))
        # Only the class token is read: leaving the others out of the last block saves 7 % (ViCLIP-B).
        return self.ln_post(self.transformer(tokens, rows=1)[:, 0]) @ self.proj

    def embed(self, pixels_BTCHW: Tensor) -> Tensor:
        """Tokens with their positions: the class token, then (patch, frame) with the frame running fastest."""
        batch, frames = pixels_BTCHW.shape[:2]
        # A kernel one frame deep is a 2-D convolution of each frame, which is the faster one on CPUs.
        kernel = self.conv1.weight.squeeze(2)
        grid = conv2d(pixels_BTCHW.flatten(0, 1), kernel, stride=self.conv1.stride[1:])
        x_BTPD = grid.flatten(2).transpose(1, 2).reshape(batch, frames, self.patches, -1)
        x_BTPD = x_BTPD + self.positional_embedding[1:]
        x_BPTD = x_BTPD.transpose(1, 2) + self._temporal(frames)
        first = (self.class_embedding + self.positional_embedding[0]).to(x_BPTD.dtype).expand(batch, 1, -1)
        return torch.cat([first, x_BPTD.flatten(1, 2)], dim=1)

    def _temporal(self, frames: int) -> Tensor:
        table = self.temporal_positional_embedding[0]
        if frames == len(table):
            return table
        if frames == 1:
            return table.mean(0, keepdim=True)
        raise ValueError(f"{frames} frames a clip; this ViCLIP takes {len(table)} or 1")


class TextEncoder(nn.Module):
    """A causal transformer, read at the first end token."""

    def __init__(self, shape: ViclipShape) -> None:
        super().__init__()
        width = shape.text_width
        self.positional_embedding = nn.Parameter(torch.empty(shape.context, width))
        self.text_projection = nn.Parameter(torch.empty(width, shape.embed_dim))
        self.transformer = Transformer(width, shape.text_layers, shape.text_heads, causal=True)
        self.token_embedding = nn.Embedding(shape.vocabulary, width)
        self.ln_final = nn.LayerNorm(width)

    def forward(self, ids_BL: Tensor) -> Tensor:
        x_BLD = self.token_embedding(ids_BL) + self.positional_embedding[: ids_BL.shape[1]]
        x_BLD = self.ln_final(self.transformer(x_BLD))
        # The end token is the largest id, and argmax takes the first of equals.
        ends_B = ids_BL.argmax(dim=-1)
        return x_BLD[torch.arange(len(ids_BL), device=ids_BL.device), ends_B] @ self.text_projection


class ViCLIP(nn.Module):
    """Both towers and the temperature."""

    def __init__(self, shape: ViclipShape) -> None:
        """Weights are drawn as CLIP draws them (seed with `torch.manual_seed`)."""
        super().__init__()
        self.shape = shape
        self.temp = nn.Parameter(torch.empty(()))
        self.vision_encoder = VisionEncoder(shape)
        self.text_encoder = TextEncoder(shape)
        if not self.temp.is_meta:
            self._draw()

    def encode_video(self, pixels_BTCHW: Tensor) -> Tensor:
        """Embed clips of normalised pixels.

        Args:
            pixels_BTCHW: RGB, ImageNet mean and deviation; T is `shape.frames`, or 1 for a picture.

        Returns:
            (B, E), not normalised.

        Raises:
            ValueError: another number of axes, channels, frames or pixels.
        """
        side = self.shape.image_px
        if pixels_BTCHW.ndim != 5 or pixels_BTCHW.shape[2:] != (3, side, side):
            raise ValueError(f"pixels of shape {tuple(pixels_BTCHW.shape)}; expected [B, T, 3, {side}, {side}]")
        return self.vision_encoder(pixels_BTCHW)

    def encode_text(self, ids_BL: Tensor) -> Tensor:
        """Embed token ids, at most `shape.context` a row: (B, E), not normalised.

        Raises:
            ValueError: another number of axes, or longer rows.
        """
        if ids_BL.ndim != 2 or ids_BL.shape[1] > self.shape.context:
            raise ValueError(f"ids of shape {tuple(ids_BL.shape)}; expected [B, at most {self.shape.context}]")
        return self.text_encoder(ids_BL)

    @torch.no_grad()
    def _draw(self) -> None:
        nn.init.constant_(self.temp, 0.07)
        vision, text = self.vision_encoder, self.text_encoder
        scale = self.shape.vision_width**-0.5
        for table in (vision.class_embedding, vision.positional_embedding, vision.proj):
            nn.init.normal_(table, std=scale)
        nn.init.zeros_(vision.temporal_positional_embedding)
        nn.init.normal_(text.positional_embedding, std=0.01)
        nn.init.normal_(text.token_embedding.weight, std=0.02)
        nn.init.normal_(text.text_projection, std=self.shape.text_width**-0.5)
        for tower, width in ((vision.transformer, self.shape.vision_width), (text.transformer, self.shape.text_width)):
            deep = width**-0.5 * (2 * max(1, len(tower.resblocks))) ** -0.5
            stds = {"out_proj": deep, "fc1": (2 * width) ** -0.5, "fc2": deep}
            for name, layer in tower.named_modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=stds.get(name.rpartition(".")[2], width**-0.5))
                    nn.init.zeros_(layer.bias)
