"""archives: small real archives: drawn videos, scanned in this process, embedded with a small random model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from raydist import embed, load_encoder, scan
from raydist.config import Config, load
from raydist.models import adapters, lora
from raydist.records import Report
from raydist.store import read

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "clips"), str(HERE / "models")]

from small_models import write_viclip  # noqa: E402  # other tests' helpers
from videos import encode  # noqa: E402  # as above

__all__ = [
    "adapter_for",
    "as_stored",
    "configure",
    "embeddings",
    "encode",
    "fails_with",
    "made",
    "rows",
    "scanned",
    "videos",
    "write_viclip",
]

RATE = 10


def videos(folder: Path, count: int, seconds: float = 3, first: int = 0) -> Path:
    """Draw `count` videos `v000.mp4`, …; no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        encode(folder / f"v{number:03}.mp4", count=round(seconds * RATE), rate=RATE, seed=number)
    return folder


def configure(archive: Path | str, model: Path | str = "", *changes: str) -> Config:
    """Settings for a small archive of clips of one second."""
    given = ("scan.clip_seconds=1", "scan.min_clip_seconds=0.2", "scan.probes=1", "embed.decoders=1", *changes)
    options = {"archive": str(archive), "embed.model": str(model) or None}
    return load(changes=given, options=options, environment={}).config


def scanned(archive: Path | str, folder: Path) -> None:
    """Scan a folder into the archive."""
    scan.run(configure(archive), scan.Request(inputs=(str(folder),)))


def made(archive: Path | str, model: Path | str, *changes: str, retry_failed: bool = False) -> Report:
    """Embed what the archive lacks."""
    return embed.run(configure(archive, model, *changes), retry_failed=retry_failed)


def rows(archive: Path | str, table: str) -> list[dict[str, Any]]:
    """All rows of a table, by clip key where it has one; [] where there is no such table."""
    batches = list(read.scan_batches(str(archive), table))
    found = pa.Table.from_batches(batches).to_pylist() if batches else []
    return sorted(found, key=lambda row: row.get("clip_key") or 0)


def embeddings(archive: Path | str, key: str | None = None) -> dict[str, dict[str, Any]]:
    """Clip id -> row of the archive's only model, or of one."""
    (only,) = [key] if key else read.model_keys(str(archive))
    table = rows(archive, f"embeddings_{only}")
    found = {row["clip_id"]: row for row in table}
    assert len(found) == len(table), "a clip has two rows"
    return found


def as_stored(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """As the table holds it: float16."""
    return vector.astype(np.float16).astype(np.float32)


def fails_with(error: type[Exception], *words: str) -> pytest.RaisesExc[Exception]:
    """Expect an error whose message holds all of the patterns, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*(?:{word}))" for word in words))


def adapter_for(base: Path | str, folder: Path, seed: int = 1) -> Path:
    """An adapter with its card, with numbers in B as after some training."""
    encoder = load_encoder(str(base), device="cpu")
    trained = lora.attach(encoder, rank=4)
    generator = torch.Generator().manual_seed(seed)
    state = trained.state()
    for name, value in state.items():
        if "lora_B" in name:
            value.normal_(std=0.05, generator=generator)
    trained.load(state)
    card = adapters.card_of(encoder.info, recipe={"rank": 4}, data={"train_clips": 2}, before={}, after={})
    adapters.write(trained, folder, card)
    return folder
