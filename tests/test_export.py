"""export checkpoint: a base with its adapter folded in, in the base's own layout, whole or not at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import write_viclip
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from small_models import frames, write_clip, write_siglip
from transformers import CLIPModel

from raydist import cli, export, load_encoder
from raydist.config import load
from raydist.errors import ModelError, UsageError
from raydist.models import adapters, lora
from raydist.models.registry import describe, weights_types

MAKERS = {"viclip": write_viclip, "clip": write_clip, "siglip": write_siglip}
TEXTS = ["a red cat", "a dog jumps"]


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYDIST_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def trained(base: Path, folder: Path, temperature: float | None = None) -> Path:
    """An adapter for a base, with numbers in B as after some training."""
    encoder = load_encoder(str(base), device="cpu")
    adapter = lora.attach(encoder, rank=4)
    generator = torch.Generator().manual_seed(1)
    adapter.load(
        {
            name: value.normal_(std=0.02, generator=generator) if "lora_B" in name else value
            for name, value in adapter.state().items()
        }
    )
    card = adapters.card_of(describe(str(base)), recipe={}, data={}, before={}, after={}, temperature=temperature)
    adapters.write(adapter, folder, card)
    return folder


def exported(adapter: Path, out: Path, model: Path | str = "") -> Path:
    options = {"embed.adapter": str(adapter), "embed.model": str(model) or None}
    export.checkpoint(load(options=options, environment={}).config, str(out))
    return out


@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_checkpoint_is_a_model_that_gives_the_adapters_vectors(tmp_path: Path, kind: str) -> None:
    base = MAKERS[kind](tmp_path / kind)
    adapter = trained(base, tmp_path / "mine")
    out = exported(adapter, tmp_path / "out")
    merged, adapted = (load_encoder(str(out), device="cpu"), load_encoder(str(base), str(adapter), device="cpu"))
    np.testing.assert_allclose(merged.encode_frames(frames(3)), adapted.encode_frames(frames(3)), atol=2e-6)
    np.testing.assert_allclose(merged.encode_text(TEXTS), adapted.encode_text(TEXTS), atol=2e-6)
    plain = load_encoder(str(base), device="cpu").encode_frames(frames(3))
    assert np.abs(merged.encode_frames(frames(3)) - plain).max() > 1e-4
    assert merged.info.model_key not in (adapted.info.model_key, describe(str(base)).model_key)


def test_a_viclip_has_the_published_layout_again(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "viclip")
    (base / "LICENSE").write_text("terms")
    out = exported(trained(base, tmp_path / "mine"), tmp_path / "out")
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    different = {name for name in before if not torch.equal(before[name], after[name])}
    assert different == {name for name in before if name.endswith((".attn.in_proj_weight", ".attn.out_proj.weight"))}
    assert (out / "config.json").read_text() == (base / "config.json").read_text()
    assert (out / "LICENSE").read_text() == "terms"


def test_a_viclip_without_a_configuration_gets_one_with_its_heads(tmp_path: Path) -> None:
    from raydist.models.viclip import ViCLIP, ViclipShape, to_reference

    base = tmp_path / "viclip"
    base.mkdir()
    shape = ViclipShape(
        vision_width=64, vision_layers=1, vision_heads=1, patch_px=16, image_px=32, frames=8, text_width=64,
        text_layers=1, text_heads=1, vocabulary=49408, context=32, embed_dim=32,
    )  # fmt: skip
    save_file(to_reference(ViCLIP(shape)), base / "model.safetensors")
    out = exported(trained(base, tmp_path / "mine"), tmp_path / "out")
    assert json.loads((out / "config.json").read_text()) == {"vision": {"heads": 1}, "text": {"heads": 1}}


def test_a_clip_loads_in_transformers_with_its_preprocessor(tmp_path: Path) -> None:
    base = write_clip(tmp_path / "clip")
    (base / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    (base / "old.bin").write_bytes(b"pickled")
    out = exported(trained(base, tmp_path / "mine"), tmp_path / "out")
    model = CLIPModel.from_pretrained(out).eval()
    encoder = load_encoder(str(out), device="cpu")
    with torch.inference_mode():
        text = model.get_text_features(input_ids=encoder.ids(TEXTS)).pooler_output
    np.testing.assert_allclose(text / text.norm(dim=1, keepdim=True), encoder.encode_text(TEXTS), atol=2e-6)
    assert encoder.statistics.std == (1, 1, 1)
    assert not (out / "old.bin").exists()
    assert str(tmp_path) not in (out / "config.json").read_text()


@pytest.mark.parametrize("kind", ["viclip", "clip"])
@pytest.mark.parametrize(
    ("stored", "expected"), [(torch.float16, "F16"), (torch.float32, "F32"), (torch.bfloat16, "F32")]
)
def test_the_type_is_that_of_the_base_where_it_has_room_for_an_adapter(
    tmp_path: Path, kind: str, stored: torch.dtype, expected: str
) -> None:
    base = MAKERS[kind](tmp_path / kind)
    tensors = {name: value.to(stored) for name, value in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter = trained(base, tmp_path / "mine")
    out = exported(adapter, tmp_path / "out")
    assert weights_types(out) == {expected}
    merged, adapted = (load_encoder(str(out), device="cpu"), load_encoder(str(base), str(adapter), device="cpu"))
    limit = 2e-3 if expected == "F16" else 2e-6
    np.testing.assert_allclose(merged.encode_frames(frames(2)), adapted.encode_frames(frames(2)), atol=limit)


@pytest.mark.parametrize("kind", ["viclip", "clip"])
def test_a_temperature_that_was_trained_goes_along(tmp_path: Path, kind: str) -> None:
    base = MAKERS[kind](tmp_path / kind)
    adapter = trained(base, tmp_path / "mine", temperature=0.031)
    assert load_encoder("", str(adapter), device="cpu").temperature == 0.031
    out = exported(adapter, tmp_path / "out")
    assert load_encoder(str(out), device="cpu").temperature == pytest.approx(0.031, rel=1e-5)


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    adapter = trained(write_viclip(tmp_path / "viclip"), tmp_path / "mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty \(it holds thesis.txt\): expected a new folder"):
        exported(adapter, out)
    with pytest.raises(UsageError, match="is a file"):
        exported(adapter, out / "thesis.txt")
    assert [entry.name for entry in out.iterdir()] == ["thesis.txt"]
    (out / "thesis.txt").unlink()
    assert (exported(adapter, out) / "model.safetensors").is_file()


def run_in_child(prepare: str, adapter: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Export in a process of its own, after some lines of code."""
    code = (
        "import os, resource, signal, sys\n"
        "from raydist import cli, export\n"
        f"{prepare}\n"
        "cli.main(['export', 'checkpoint', '--adapter', sys.argv[1], '--out', sys.argv[2]])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(adapter), str(out)], capture_output=True, text=True, check=False
    )


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    adapter = trained(write_viclip(tmp_path / "viclip"), tmp_path / "mine")
    out = tmp_path / "disk" / "out"
    done = run_in_child("resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))", adapter, out)
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "File too large" in done.stderr
    assert not list(out.parent.iterdir())


def test_a_kill_in_the_middle_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    adapter = trained(write_viclip(tmp_path / "viclip"), tmp_path / "mine")
    out = tmp_path / "disk" / "out"
    done = run_in_child("export.checkpoints._explain = lambda *_: os.kill(os.getpid(), signal.SIGKILL)", adapter, out)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert (exported(adapter, out) / "model.safetensors").is_file()


def test_another_base_and_a_missing_adapter_are_refused_with_the_remedy(tmp_path: Path) -> None:
    base, other = write_viclip(tmp_path / "viclip"), write_viclip(tmp_path / "other", seed=1)
    adapter = trained(base, tmp_path / "mine")
    with pytest.raises(ModelError, match=r"'mine' was trained on 'viclip'.*'other'.*other weights.*Leave --model out"):
        exported(adapter, tmp_path / "out", other)
    with pytest.raises(UsageError, match="expected --adapter RUN"):
        export.checkpoint(load(environment={}).config, str(tmp_path / "out"))
    with pytest.raises(ModelError, match="no adapter 'nowhere'"):
        exported(Path("nowhere"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_where_it_is_and_how_to_use_it(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    trained(write_viclip(tmp_path / "viclip"), archive / "runs" / "mine" / "adapter")
    arguments = ["export", "checkpoint", "--archive", str(archive), "--adapter", "mine", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.cli, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["details"]["model"], said["details"]["type"], said["details"]["folder"]) == (
        "viclip+mine",
        "float32",
        str(tmp_path / "out"),
    )
    assert f"--model {tmp_path / 'out'}" in said["notes"][0]
    assert "viclip+mine" in (tmp_path / "out" / "README.md").read_text()
