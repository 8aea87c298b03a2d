"""bench steps: what one training step costs: clips a second, peak memory, share of a GPU's peak.

Answers: does the recipe's batch fit, whole or in chunks, and how much of the device does a step use?

    python tests/benchmarks/steps.py --model tiny --batch 64 --micro-batch 8
    python tests/benchmarks/steps.py --model viclip-b16 --batch 64 --device cuda

A LoRA step of rank 32 in both towers, as `raydist train` takes it: gradients, clipping, AdamW; frames are on the device
already. Weights are drawn by a seed in the published shapes, so nothing is downloaded. Memory is what the steps take at
most beyond what the process had before the first one (CPU), or all that was allocated (GPU). One JSON line.
"""

# Shape legend: B clips, T frames, H W pixels, C colours

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]

from small_models import write_clip, write_viclip  # noqa: E402  # the tests' own models

from raydist.models import lora  # noqa: E402
from raydist.models.encoder import Encoder  # noqa: E402
from raydist.models.registry import load_encoder  # noqa: E402
from raydist.models.viclip import ViclipShape  # noqa: E402
from raydist.train.share import Share, share_of  # noqa: E402
from raydist.train.step import Step  # noqa: E402

RANK, ALPHA = 32, 64.0

VICLIP_B16 = ViclipShape(
    vision_width=768,
    vision_layers=12,
    vision_heads=12,
    patch_px=16,
    image_px=224,
    frames=8,
    text_width=512,
    text_layers=12,
    text_heads=8,
    vocabulary=49408,
    context=32,
    embed_dim=512,
)
CLIP_L14_336 = {
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
    "projection_dim": 768,
}

GFLOP = {"viclip-b16": 869, "clip-l14-336": 6672}
"""Of a LoRA training step, a clip of 8 frames, a multiply-add counted as two: forward (359 and 3,055), then backward
without gradients of frozen weights. What chunks and checkpoints compute again is not counted as use. By the towers'
dimensions: ViCLIP-B/16 has 1,569 tokens a clip, CLIP-L/14@336 577 a frame."""

PEAK_TFLOPS = {"H100": 790, "H200": 790}
"""bfloat16, dense, as measured on matrices of 8192; other cards are measured here."""


def main() -> None:
    """Measure; one JSON line."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", choices=("tiny", "viclip-b16", "clip-l14-336"), default="tiny")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--micro-batch", type=int, default=0, help="0: whole")
    options.add_argument("--checkpointing", action="store_true")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--repeat", type=int, default=5)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        encoder = load_encoder(write_model(given.model, Path(place)), device=given.device)
    figures: dict[str, Any] = {
        "bench": "steps",
        "model": given.model,
        "batch": given.batch,
        "micro_batch": given.micro_batch,
        "checkpointing": given.checkpointing,
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
    }
    try:
        seconds, memory_bytes = measure(encoder, given.batch, given.micro_batch, given.checkpointing, given.repeat)
    except torch.OutOfMemoryError:
        print(json.dumps(figures | {"fits": False}))
        return
    rate = given.batch / median(seconds)
    figures |= {
        "fits": True,
        "clips_per_s": round(rate, 1),
        "step_s": [round(one, 3) for one in sorted(seconds)],
        "memory_gb": round(memory_bytes / 1e9, 2),
    }
    if given.device == "cuda" and given.model in GFLOP:
        peak = peak_tflops(figures["device"])
        share = rate * GFLOP[given.model] / 1e3 / peak
        figures |= {"tflops": round(share * peak, 1), "peak_tflops": round(peak), "share_of_peak": round(share, 3)}
    print(json.dumps(figures | {"torch": torch.__version__}))


def write_model(name: str, place: Path) -> str:
    """What `load_encoder` takes: the bundled model's name, or a folder of drawn weights."""
    if name == "viclip-b16":
        return str(write_viclip(place / name, VICLIP_B16))
    if name == "clip-l14-336":
        return str(write_clip(place / name, CLIP_L14_336))
    return name


def measure(
    encoder: Encoder, batch: int, micro_batch: int, checkpointing: bool, repeat: int
) -> tuple[list[float], int]:
    """Seconds of each step after the first two, and the bytes that they took at most."""
    torch.set_float32_matmul_precision("high")  # as training sets it
    adapter = lora.attach(encoder, rank=RANK, alpha=ALPHA)
    if checkpointing:
        encoder.checkpoint_activations()
    named = [parameter for _, parameter in adapter.parameters()]
    optimizer = torch.optim.AdamW(named, lr=1e-4)
    temperature = nn.Parameter(torch.tensor(encoder.temperature, device=encoder.device), requires_grad=False)
    step, share = Step(encoder, temperature, micro_batch), drawn(encoder, batch)
    seconds = []
    with Peak(encoder.device) as peak:
        for _ in range(repeat + 2):  # the first ones plan kernels and make the optimizer's state
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            step.gradients(share)
            nn.utils.clip_grad_norm_(named, 1.0)
            optimizer.step()
            if encoder.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    return seconds[2:], peak.bytes


def drawn(encoder: Encoder, batch: int) -> Share:
    """Random frames, and a caption each that no other has."""
    info = encoder.info
    shape = (batch, info.frames, info.size_px, info.size_px, 3)
    frames_BTHWC = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    texts = [f"a person shows thing number {number} to the camera and walks on" for number in range(batch)]
    return share_of(frames_BTHWC, np.ones(batch, np.bool_), texts, encoder.ids, (batch,), encoder.device)


class Peak:
    """The most memory in use while it is open: on a CPU beyond what the process had before."""

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._gpu = device.type == "cuda"
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._before = self._process.memory_info().rss
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._gpu:
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._ended.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)


def peak_tflops(name: str) -> float:
    """What the card can do at most in bfloat16: known, else measured on one large product."""
    known = [peak for card, peak in PEAK_TFLOPS.items() if card in name]
    if known:
        return known[0]
    side, seconds = 8192, []
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        left @ right
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds) / 1e12


if __name__ == "__main__":
    main()
