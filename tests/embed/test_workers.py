"""Workers of embed, called without Ray: what goes in comes out, as a vector or with a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from archives import as_stored, encode, scanned, write_viclip
from safetensors.torch import load_file, save_file

from raydist import load_encoder
from raydist.clips.decode import decode_clip
from raydist.clips.decoder import DECODED, Decoder, Geometry
from raydist.embed.embedder import Embedder, embedded_schema
from raydist.embed.write import write_blocks
from raydist.records import Limits
from raydist.store import commit, schema

GEOMETRY = Geometry(frames=8, sampling="exact", size_px=32, resize="viclip")
DIM = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("workers")
    for number in range(3):
        encode(made / f"{number}.mp4", count=30, rate=10, seed=number)
    (made / "bad.mp4").write_bytes(b"no video at all" * 100)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viclip(tmp_path_factory.mktemp("model") / "small")


def unit(*files: tuple[str, int]) -> pa.Table:
    """One unit: files, and how many clips of a second of each."""
    packed = [
        {
            "video_id": f"v/{name}",
            "root": "v",
            "path": name,
            "file_fingerprint": "",
            "clips": [
                {
                    "clip_key": 100 * number + place,
                    "clip_id": f"v/{name}#t={place},{place + 1}",
                    "fingerprint": "ab" * 16,
                    "start_ms": 1000 * place,
                    "end_ms": 1000 * place + 1000,
                    "split": "train",
                    "has_signature": place == 0,
                }
                for place in range(count)
            ],
        }
        for number, (name, count) in enumerate(files)
    ]
    return pa.table({"files": [packed]})


@pytest.fixture(scope="module")
def decoded(folder: Path) -> pa.Table:
    decoder = Decoder({"v": str(folder)}, GEOMETRY, Limits())
    return pa.concat_tables(decoder(unit(("0.mp4", 3), ("bad.mp4", 2), ("gone.mp4", 1), ("1.mp4", 20), ("2.mp4", 3))))


def test_each_clip_of_a_unit_is_one_row(decoded: pa.Table) -> None:
    assert decoded.schema == DECODED
    assert decoded["clip_key"].to_pylist() == [0, 1, 2, 100, 101, 200, *range(300, 320), 400, 401, 402]


def test_a_row_has_frames_or_a_reason(decoded: pa.Table) -> None:
    for row in decoded.to_pylist():
        assert (len(row["frames"]) == 8 * 32 * 32 * 3) == (row["reason"] == "")
    reasons = dict(zip(decoded["clip_id"].to_pylist(), decoded["reason"].to_pylist(), strict=True))
    assert reasons["v/bad.mp4#t=1,2"] == "not_a_video"
    assert reasons["v/gone.mp4#t=0,1"] == "missing"
    assert reasons["v/1.mp4#t=2,3"] == ""
    assert reasons["v/1.mp4#t=19,20"] == "no_frames"


def test_rows_say_when_and_how_long_they_were_decoded(decoded: pa.Table) -> None:
    begun = decoded["began"].to_pylist()
    assert begun == sorted(begun)
    assert 0 < time.time() - begun[0] < 3600
    assert all(seconds >= 0 for seconds in decoded["decode_s"].to_pylist())
    assert sum(decoded["decode_cpu_s"].to_pylist()) > 0


def test_vectors_are_those_of_the_encoder_called_by_hand(decoded: pa.Table, model: Path, folder: Path) -> None:
    out = Embedder(str(model), "", "cpu", GEOMETRY, 1)(decoded)
    assert out.schema == embedded_schema(DIM)
    frames = decode_clip(folder / "2.mp4", 1, 2, size=32)
    expected = load_encoder(str(model)).encode_frames(frames[None])[0]
    vector = next(row["vector"] for row in out.to_pylist() if row["clip_id"] == "v/2.mp4#t=1,2")
    np.testing.assert_allclose(np.array(vector, np.float32), as_stored(expected), atol=5e-4)


def test_failed_rows_pass_the_encoder_untouched(decoded: pa.Table, model: Path) -> None:
    out = Embedder(str(model), "", "cpu", GEOMETRY, 1)(decoded)
    assert out.num_rows == decoded.num_rows
    for before, after in zip(decoded.to_pylist(), out.to_pylist(), strict=True):
        assert (after["clip_key"], after["reason"]) == (before["clip_key"], before["reason"])
        assert (after["vector"] is None) == (after["reason"] != "")


def test_a_batch_of_failures_alone_needs_no_forward_pass(decoded: pa.Table, model: Path) -> None:
    failed = decoded.filter(pa.compute.not_equal(decoded["reason"], ""))
    assert Embedder(str(model), "", "cpu", GEOMETRY, 1)(failed)["vector"].null_count == failed.num_rows


def broken(model: Path, folder: Path) -> Path:
    """A model of which one weight is NaN."""
    folder.mkdir()
    weights = load_file(model / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("ln_post.weight"))
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text((model / "config.json").read_text())
    return folder


def test_what_the_model_gives_as_nan_becomes_a_reason(decoded: pa.Table, model: Path, tmp_path: Path) -> None:
    out = Embedder(str(broken(model, tmp_path / "nan")), "", "cpu", GEOMETRY, 1)(decoded).to_pylist()
    assert all(row["vector"] is None and row["reason"] for row in out)
    assert sum(row["reason"] == "not_finite" for row in out) == 9


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_actor_leaves_no_decoding_process(tmp_path: Path, busy: bool) -> None:
    import ray

    encode(tmp_path / "a.mp4", count=6000, rate=10, size=(640, 360), options={"g": "6000", "preset": "ultrafast"})
    actor = ray.remote(max_restarts=0)(Decoder).remote({"v": str(tmp_path)}, GEOMETRY, Limits())
    work = lambda decoder, table: sum(rows.num_rows for rows in decoder(table))  # noqa: E731
    assert ray.get(actor.__ray_call__.remote(work, unit(("a.mp4", 2)))) == 2
    worker, child = ray.get(actor.__ray_call__.remote(lambda decoder: (os.getpid(), decoder._child.pid)))
    assert psutil.Process(child).ppid() == worker
    used = psutil.Process(child).cpu_times().user
    pending = actor.__ray_call__.remote(work, unit(("a.mp4", 600))) if busy else None
    while busy and psutil.Process(child).cpu_times().user < used + 0.1:
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {child} outlived its actor"
        time.sleep(0.05)
    if pending is not None:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(pending)


@pytest.mark.usefixtures("cluster")
def test_written_fragments_hold_every_row_once(decoded: pa.Table, model: Path, folder: Path, tmp_path: Path) -> None:
    out = Embedder(str(model), "", "cpu", GEOMETRY, 1)(decoded)
    scanned(tmp_path / "archive", folder)
    columns, location = schema.embeddings(DIM), str(tmp_path / "archive")
    of = {"embeddings_m": columns, "signatures": schema.SIGNATURES, "failures": schema.FAILURES}
    for table, kind in of.items():
        commit.Committer(location, table, kind)
    half = [out.slice(0, 10), out.slice(10)]
    written = write_blocks(location, "embeddings_m", columns, "m", *half)
    assert sum(written.reasons.values()) == out.num_rows - 9
    assert written.reasons["no_frames"] == 17
    assert (len(written.embeddings), len(written.failures), len(written.signatures)) == (1, 1, 1)
    assert written.began == out["began"][0].as_py()
    assert written.ended == out["ended"][0].as_py()


def test_decoding_workers_do_without_torch() -> None:
    code = "import raydist.clips.decoder, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ray_is_not_imported_before_its_environment_is_set() -> None:
    """Ray reads at import whether its ports are on loopback only."""
    code = "import raydist.embed.graph, raydist.scan, raydist.archive, sys; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
