"""What a provider receives for the clip that gets its caption shows that clip's span, compared by pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archives import rows, scanned
from asked import KEY, KEYS, Asked
from footage import ALIKE, Source, check, join_real, opened
from llm_server import LLMServer, Received, caption_of
from PIL import Image
from videos import X264, encode, join

from raydist.clips.sampling import middle_ranks
from raydist.records import Cut, Span

pytestmark = pytest.mark.usefixtures("cluster")

LONG_GOP = {**X264, "g": "250", "keyint_min": "250", "sc_threshold": "0"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LLMServer]:
    monkeypatch.setenv(KEYS["gemini"], KEY)
    with LLMServer() as running:
        yield running


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 joined from encodes of one key frame each; a changing rate; a file that starts late."""
    folder = tmp_path_factory.mktemp("sent")
    (folder / "v").mkdir()
    parts = [encode(folder / f"{seed}.mp4", count=150, options=LONG_GOP, seed=seed) for seed in range(3)]
    join(parts, folder / "v" / "long.mp4")
    times = np.cumsum(np.random.default_rng(3).integers(100, 2_500, 150)).tolist()
    encode(folder / "v" / "vfr.mp4", count=150, times=times, options=LONG_GOP, seed=7)
    late = [(95 * 25 + number) * 512 for number in range(100)]
    encode(folder / "v" / "late.mkv", count=100, times=late, options=LONG_GOP, seed=8)
    return folder / "v"


def received(asked: Asked) -> dict[str, tuple[Span, Received]]:
    """Clip id -> its span, and a request whose answer became its caption; of clips of equal pictures, any."""
    by_caption = {caption_of(one.images, one.video): one for one in asked.server.received}
    clips = {
        row["clip_id"]: Span(start_ms=row["start_ms"], end_ms=row["end_ms"]) for row in rows(asked.archive, "clips")
    }
    found = asked.captions()
    assert found.keys() == clips.keys()
    return {name: (clips[name], by_caption[text]) for name, (text,) in found.items()}


def look(asked: Asked, folder: Path, noise: float = 0.0) -> None:
    """All pictures that were sent are those of their clip's span, at the right places of it, and of no other frame."""
    sources = {path.name: Source(path) for path in folder.iterdir()}
    for name, (span, one) in received(asked).items():
        source = sources[name.partition("#")[0].rpartition("/")[2]]
        if one.video is not None:
            height, width = opened(one.video)[1][0].shape[:2]
            made = Cut(span=span, data=one.video, width_px=width, height_px=height)
            check(source, made, noise=noise, may_be_copied=True)
            continue
        inside = source.inside(span)
        wanted = sorted({inside[rank] for rank in middle_ranks(len(inside), 8)})
        for place, data in zip(wanted, one.images, strict=True):
            off = source.distances(np.asarray(Image.open(io.BytesIO(data))))
            assert off[place] < ALIKE
            assert off[place] <= off.min() + noise


@pytest.mark.parametrize("send", ["frames", "clip"])
def test_of_each_clip_its_own_span_is_sent(server: LLMServer, films: Path, tmp_path: Path, send: str) -> None:
    scanned(tmp_path / "archive", films)
    asked = Asked(tmp_path / "archive", server, "gemini")
    asked.run(f"caption.send={send}")
    assert (
        len({text for (text,) in asked.captions().values()})
        == len(server.received)
        == len(rows(asked.archive, "clips"))
    )
    look(asked, films)


@pytest.mark.parametrize("send", ["frames", "clip"])
def test_of_clips_of_a_long_file_joined_from_real_ones_their_own_span_is_sent(
    server: LLMServer, shared: Path, tmp_path: Path, send: str
) -> None:
    real = shared / "realvideo" / "files"
    if not real.is_dir():
        pytest.skip("no real video files beside the checkout")
    (tmp_path / "v").mkdir()
    join_real([real / f"{name}.mp4" for name in ("s017", "s018", "s019", "s062")], tmp_path / "v" / "alike.mp4")
    mixed = ("s055", "s101", "s144", "s150", "s154")
    join_real([real / f"{name}.mp4" for name in mixed], tmp_path / "v" / "mixed.ts")
    scanned(tmp_path / "archive", tmp_path / "v")
    asked = Asked(tmp_path / "archive", server, "gemini")
    asked.run(f"caption.send={send}")
    look(asked, tmp_path / "v", noise=1.0)
