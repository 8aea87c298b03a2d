"""Damaged variants of videos: no crash that spreads, no hang, no span without a result, no frame given away.

RAYDIST_FUZZ_SEED sets the seed of the long run, which is another one each time and shown at the end whatever comes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return fuzz.generated(tmp_path_factory.mktemp("drawn"))


def test_a_hundred_damaged_files_end_as_they_should(drawn: list[Path], tmp_path: Path) -> None:
    found = fuzz.run(drawn, seed=0, count=104, folder=tmp_path)
    assert found.problems == []
    assert found.statuses.total() == 104
    assert found.statuses["ok"] + found.statuses["filled"] > 30
    assert found.statuses["not_a_video"] + found.statuses["no_frames"] + found.statuses["no_video_stream"] > 10


@pytest.mark.slow
def test_thousands_of_damaged_files_end_as_they_should(
    drawn: list[Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("RAYDIST_FUZZ_SEED", random.randrange(1 << 32)))
    record_property("seed", f"RAYDIST_FUZZ_SEED={seed}")
    folder = ROOT.parent / "shared" / "realvideo"
    found = fuzz.run(drawn + (fuzz.real(folder) if folder.is_dir() else []), seed, 2500, tmp_path)
    assert found.problems == [], f"run again with RAYDIST_FUZZ_SEED={seed}"
    assert found.statuses.total() == 2500


def test_a_seed_is_shown_also_when_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "test_drawn.py").write_text("def test_it(record_property):\n    record_property('seed', 'SEED=17')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", str(tmp_path)]
    paths = os.pathsep.join(str(ROOT / "tests" / below) for below in (".", "clips"))
    environment = {**os.environ, "PYTHONPATH": paths}
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.count("test_it: SEED=17") == 1


def test_a_seed_gives_the_same_variants_again(drawn: list[Path]) -> None:
    first, again, other = (list(fuzz.variants(drawn, seed, 26)) for seed in (1, 1, 2))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    originals = [path.read_bytes() for path in drawn]
    assert sum(data not in originals for _, _, data in first) > 20


def test_plain_decoding_is_a_witness(drawn: list[Path], tmp_path: Path) -> None:
    plain = fuzz.Plain()
    (tmp_path / "noise").write_bytes(b"no video" * 1000)
    assert [plain.frames(path) for path in drawn] == [1] * len(drawn)
    assert plain.frames(tmp_path / "noise") == 0
    plain.close()
