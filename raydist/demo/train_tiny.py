"""train_tiny: trains `tiny`, the bundled ViCLIP, on generated clips of the training combinations.

    python -m raydist.demo.train_tiny --out raydist/demo/tiny

Reads   nothing: clips are drawn, encoded and decoded in memory from seeds
Writes  model.safetensors (float16, the published layout), config.json, README.md with the figures of this very run
Promise held-out combinations are never drawn here before the final measurement

A symmetric contrastive loss with the model's own temperature; where a caption is true of another clip of the batch, the
pair is no negative. Four linear heads (object, colour, motion, scene) help the vision tower on its way and are dropped.
Only the rows of the token table that training captions use are trained; all others stay 0, so that an unknown word
changes little. On the same machine and versions the result is the same, bit for bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from raydist.demo.paraphrases import Named, paraphrase
from raydist.demo.pool import FRAMES, see_all
from raydist.demo.tiny_card import Measured, write_model
from raydist.demo.words import (
    COLOURS,
    MOTIONS,
    OBJECTS,
    SCENES,
    Combination,
    caption,
    held_out_combinations,
    training_combinations,
)
from raydist.models.tokenizer import VOCABULARY, Tokenizer
from raydist.models.viclip import ViCLIP, ViclipShape
from raydist.progress import bar, talk
from raydist.train.schedule import rate

# Shape legend: B clips of a batch, N clips, T frames, P patches of a frame, X pixels of a patch,
# C channels, H W pixels, L tokens, E embedding size

SHAPE = ViclipShape(
    vision_width=96,
    vision_layers=4,
    vision_heads=3,
    patch_px=16,
    image_px=64,
    frames=FRAMES,
    text_width=48,
    text_layers=2,
    text_heads=4,
    vocabulary=VOCABULARY,
    context=32,
    embed_dim=64,
)
FACTORS: dict[str, Sequence[str]] = {
    "object": OBJECTS,
    "colour": tuple(COLOURS),
    "motion": tuple(MOTIONS),
    "scene": tuple(SCENES),
}
MEAN = torch.tensor([0.485, 0.456, 0.406])
DEVIATION = torch.tensor([0.229, 0.224, 0.225])
SHIFT_PX = 3
"""Largest random shift of a training clip, at the model's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the result."""

    seed: int = 2026
    repeats: int = 3
    """Clips drawn for each training combination."""
    steps: int = 3200
    batch: int = 64
    kept: float = 0.4
    """Share of a clip's patches that a step looks at, first those that move; the last tenth of the steps sees all."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.04
    """Share of the steps."""
    heads_weight: float = 2.0
    """Weight of the four heads' loss beside the contrastive one; falls to 0 over the run."""
    alike: float = 0.6
    """Share of the batches whose clips are all of one scene and two colours, so that object and motion must tell."""
    held_out_clips: int = 240
    """For the final measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Clips, a caption each, and what is true of what."""

    frames: Tensor
    """[B, T, H, W, C] uint8, as the model would see them, but for a random shift."""
    ids: Tensor
    """[B, L] of the whole vocabulary."""
    true: Tensor
    """[B, B] whether caption j is true of clip i, but for the pair i = j."""
    factors: dict[str, Tensor]


class Heads(nn.Module):
    """One linear classifier for each thing that a clip shows, on the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(names)) for name, names in FACTORS.items()})

    def forward(self, video_BE: Tensor, factors: dict[str, Tensor]) -> Tensor:
        losses = [cross_entropy(head(video_BE), factors[name]) for name, head in self.heads.items()]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def right(self, video_BE: Tensor, factors: dict[str, Tensor]) -> str:
        """How often each head is right, in words."""
        shares = {name: (head(video_BE).argmax(1) == factors[name]).float().mean() for name, head in self.heads.items()}
        return ", ".join(f"{name} {float(share):.0%}" for name, share in shares.items())


def contrastive(video_BE: Tensor, text_BE: Tensor, temp: Tensor, true_BB: Tensor) -> Tensor:
    """Symmetric InfoNCE on unit vectors; pairs of `true_BB` are left out of the negatives."""
    sim_BB = (normalize(video_BE, dim=-1) @ normalize(text_BE, dim=-1).T) / temp
    sim_BB = sim_BB.masked_fill(true_BB, float("-inf"))
    target = torch.arange(len(sim_BB))
    return (cross_entropy(sim_BB, target) + cross_entropy(sim_BB.T, target)) / 2


def shift(frames_BTHWC: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move each clip by up to `SHIFT_PX` both ways; what it leaves bare stays as it was."""
    shifted = frames_BTHWC.copy()
    side = frames_BTHWC.shape[2]
    for clip, frames, (down, right) in zip(
        shifted, frames_BTHWC, rng.integers(-SHIFT_PX, SHIFT_PX + 1, (len(shifted), 2)).tolist(), strict=True
    ):
        to = slice(max(0, down), side + min(0, down)), slice(max(0, right), side + min(0, right))
        source = slice(max(0, -down), side - max(0, down)), slice(max(0, -right), side - max(0, right))
        clip[:, *to] = frames[:, *source]
    return shifted


def normalise(frames_BTHWC: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] to float32 [B, T, C, H, W] with ImageNet's mean and deviation."""
    return ((frames_BTHWC.float() / 255 - MEAN) / DEVIATION).permute(0, 1, 4, 2, 3)


def truth(captions: Sequence[Named], shown: Sequence[Combination]) -> Tensor:
    """[B, B]: caption j is true of clip i, the diagonal left out."""
    true = torch.ones(len(shown), len(shown), dtype=torch.bool)
    for name, names in FACTORS.items():
        said = torch.tensor([-1 if (word := getattr(named, name)) is None else names.index(word) for named in captions])
        seen = torch.tensor([names.index(getattr(combination, name)) for combination in shown])
        true &= (said[None, :] == seen[:, None]) | (said[None, :] < 0)
    return true & ~torch.eye(len(shown), dtype=torch.bool)


def batches(
    frames_NTHWC: NDArray[np.uint8], shown: Sequence[Combination], tokenizer: Tokenizer, recipe: Recipe
) -> Iterator[Batch]:
    """`recipe.steps` batches of distinct clips."""
    rng = np.random.default_rng(recipe.seed)
    for places in choices(shown, recipe, rng):
        combinations = [shown[place] for place in places]
        captions = [paraphrase(combination, rng) for combination in combinations]
        ids_BL = torch.from_numpy(tokenizer.encode([named.text for named in captions]))
        yield Batch(
            frames=torch.from_numpy(shift(frames_NTHWC[places], rng)),
            ids=ids_BL[:, : int((ids_BL != 0).sum(1).max())],
            true=truth(captions, combinations),
            factors={
                name: torch.tensor([names.index(getattr(combination, name)) for combination in combinations])
                for name, names in FACTORS.items()
            },
        )


def choices(shown: Sequence[Combination], recipe: Recipe, rng: np.random.Generator) -> Iterator[list[int]]:
    """Which clips each step takes: any, or clips that are hard to tell apart."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, combination in enumerate(shown):
        groups.setdefault((combination.scene, combination.colour), []).append(place)
    scenes = sorted({scene for scene, _ in groups})
    for _ in range(recipe.steps):
        among = np.arange(len(shown))
        if rng.random() < recipe.alike:
            scene = scenes[rng.integers(len(scenes))]
            pairs = [pair for pair in groups if pair[0] == scene]
            two = rng.permutation(len(pairs))[:2]
            among = np.concatenate([groups[pairs[which]] for which in two])
        yield rng.permutation(among)[: recipe.batch].tolist()


def train(
    frames_NTHWC: NDArray[np.uint8], shown: Sequence[Combination], tokenizer: Tokenizer, recipe: Recipe
) -> ViCLIP:
    """Train a model of `SHAPE` from nothing."""
    torch.manual_seed(recipe.seed)
    used = used_tokens(shown, tokenizer, recipe)
    model, heads = ViCLIP(replace(SHAPE, vocabulary=len(used))).train(), Heads(SHAPE.embed_dim)
    # A ViCLIP starts without a sense of time, because it starts from a picture model; this one starts from nothing.
    nn.init.normal_(model.vision_encoder.temporal_positional_embedding, std=SHAPE.vision_width**-0.5)
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and "embedding" not in name]
    plain = [p for name, p in model.named_parameters() if p.ndim <= 1 or "embedding" in name]
    groups: list[dict[str, Any]] = [{"params": [*decayed, *heads.parameters()]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    with bar("train tiny", recipe.steps) as progress:
        for step, batch in enumerate(batches(frames_NTHWC, shown, tokenizer, recipe)):
            done = step / recipe.steps
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate(done, recipe.warm_up)
            video_BE = look(model, batch.frames, recipe.kept if done < 0.9 else 1.0)
            text_BE = model.encode_text(torch.searchsorted(used, batch.ids.contiguous()))
            loss = contrastive(video_BE, text_BE, model.temp, batch.true)
            loss = loss + recipe.heads_weight * (1 - done) * heads(video_BE, batch.factors)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.temp.clamp_(min=0.01)
            progress.advance()
            if step % 100 == 0:
                right = heads.right(video_BE, batch.factors)
                talk.print(f"step {step}: loss {loss.item():.3f}, temperature {model.temp.item():.3f}, {right}")
    return with_whole_vocabulary(model, used)


def look(model: ViCLIP, frames_BTHWC: Tensor, kept: float) -> Tensor:
    """`encode_video` on a share of each clip's patches, with random brightness and colour: (B, E).

    The same sums as `encode_video`, but patches are chosen first, so that the others cost nothing.
    """
    tower, side = model.vision_encoder, SHAPE.patch_px
    batch, frames = frames_BTHWC.shape[:2]
    grid = frames_BTHWC.view(batch, frames, SHAPE.image_px // side, side, SHAPE.image_px // side, side, 3)
    patches = grid.permute(0, 2, 4, 1, 3, 5, 6).reshape(batch, tower.patches * frames, side * side, 3)
    chosen = liveliest(patches.view(batch, -1, frames, side * side, 3), round(kept * tower.patches * frames))
    gain = 1 + 0.12 * (torch.rand(batch, 1, 1, 1) - 0.5) + 0.08 * (torch.rand(batch, 1, 1, 3) - 0.5)
    pixels = (patches[torch.arange(batch)[:, None], chosen].float() / 255 * gain - MEAN) / DEVIATION
    kernel = tower.conv1.weight.squeeze(2).permute(2, 3, 1, 0).flatten(0, 2)
    places = tower.positional_embedding[1:, None] + tower.temporal_positional_embedding
    tokens_BLD = pixels.flatten(2) @ kernel + places.flatten(0, 1)[chosen]
    first = (tower.class_embedding + tower.positional_embedding[0]).expand(batch, 1, -1)
    tokens_BLD = tower.ln_pre(torch.cat([first, tokens_BLD], dim=1))
    return tower.ln_post(tower.transformer(tokens_BLD)[:, 0]) @ tower.proj


def liveliest(patches_BPTXC: Tensor, count: int) -> Tensor:
    """Which (patch, frame) to look at, [B, count] into P * T: rather those unlike the same place at other times.

    Random ones among them keep the background in sight.
    """
    thumbs = patches_BPTXC[:, :, :, ::11].float()
    change = (thumbs - thumbs.mean(dim=2, keepdim=True)).abs().mean(dim=(3, 4)).flatten(1)
    luck = torch.rand(change.shape)
    return (change * luck + 8 * luck).argsort(dim=1, descending=True)[:, :count]


def with_whole_vocabulary(model: ViCLIP, used: Tensor) -> ViCLIP:
    """The same model with a token table of all ids; rows that training never used are 0."""
    state = dict(model.state_dict())
    key = "text_encoder.token_embedding.weight"
    table = torch.zeros(VOCABULARY, SHAPE.text_width)
    table[used] = state[key]
    whole = ViCLIP(SHAPE)
    whole.load_state_dict({**state, key: table})
    return whole.eval()


def used_tokens(shown: Sequence[Combination], tokenizer: Tokenizer, recipe: Recipe) -> Tensor:
    """The ids that training captions use, rising: in a table of these alone the end token is still the largest."""
    rng = np.random.default_rng(recipe.seed + 1)
    texts = {paraphrase(shown[int(rng.integers(len(shown)))], rng).text for _ in range(20_000)}
    return torch.from_numpy(np.unique(tokenizer.encode(sorted(texts))))


@torch.no_grad()
def measure(model: ViCLIP, frames_NTHWC: Tensor, shown: Sequence[Combination], tokenizer: Tokenizer) -> Measured:
    """Text to video on clips with distinct captions: how often the right clip is first, or among the first five."""
    video = [normalize(model.encode_video(normalise(part)), dim=-1) for part in torch.split(frames_NTHWC, 64)]
    ids = torch.from_numpy(tokenizer.encode([caption(combination) for combination in shown]))
    sim_NN = normalize(model.encode_text(ids), dim=-1) @ torch.cat(video).T
    rank_N = (sim_NN > sim_NN.diagonal()[:, None]).sum(1)
    best = [shown[int(place)] for place in sim_NN.argmax(1)]
    agree = {
        name: sum(getattr(a, name) == getattr(b, name) for a, b in zip(best, shown, strict=True)) / len(shown)
        for name in FACTORS
    }
    return Measured(
        clips=len(shown),
        top1=float((rank_N < 1).float().mean()),
        top5=float((rank_N < 5).float().mean()),
        agree=agree,
    )


def draw_held_out(clips: int, seed: int) -> list[Combination]:
    """So many different combinations that training never sees, in a random order."""
    every = held_out_combinations()
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[int(place)] for place in order[:clips]]


def drawn_clips(shown: Sequence[Combination], seed: int, processes: int, keep: Path | None) -> NDArray[np.uint8]:
    """The training clips [N, 8, S, S, 3]; kept in a file, or taken from there, where one is named."""
    if keep is not None and keep.exists():
        frames_NTHWC: NDArray[np.uint8] = np.load(keep)
        if frames_NTHWC.shape != (len(shown), FRAMES, SHAPE.image_px, SHAPE.image_px, 3):
            raise SystemExit(f"--pool {str(keep)!r} holds clips of another recipe {frames_NTHWC.shape}: delete it")
        return frames_NTHWC
    frames_NTHWC = see_all([(each, seed + place) for place, each in enumerate(shown)], SHAPE.image_px, processes)
    if keep is not None:
        np.save(keep, frames_NTHWC)
    return frames_NTHWC


def main() -> None:
    """Draw, train, measure, write."""
    parser = argparse.ArgumentParser(description="Train the bundled tiny model on generated clips.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--pool", type=Path, help=".npy file that keeps the drawn clips for another run")
    parser.add_argument("--processes", type=int, default=2, help="drawing processes")
    options = parser.parse_args()
    recipe = Recipe()
    # One thread: sums come in one order on every machine, and a busy machine does not slow the others' barriers.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = Tokenizer(SHAPE.context)
    shown = training_combinations() * recipe.repeats
    talk.print(f"{len(shown):,} training clips of {len(training_combinations()):,} combinations")
    frames_NTHWC = drawn_clips(shown, recipe.seed * 1000, options.processes, options.pool)
    drawn = time.monotonic()
    model = train(frames_NTHWC, shown, tokenizer, recipe)
    trained = time.monotonic()
    unseen = draw_held_out(recipe.held_out_clips, recipe.seed)
    frames_NTHWC = see_all([(each, recipe.seed) for each in unseen], SHAPE.image_px, options.processes)
    measured = measure(model, torch.from_numpy(frames_NTHWC), unseen, tokenizer)
    talk.print(str(measured))
    write_model(options.out, model, asdict(recipe), measured, trained - drawn)


if __name__ == "__main__":
    main()
