"""Names of models: where they are looked for, what their keys depend on, what is said when there is no such model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import SMALL, frames, recipe_of, write_clip, write_siglip, write_viclip

from raydist.errors import ModelError
from raydist.models import registry
from raydist.models.keys import safe_name
from raydist.models.registry import describe, load_encoder, resolve


def test_a_folder_is_described_without_its_weights(tmp_path: Path) -> None:
    info = describe(str(write_viclip(tmp_path / "My Model")))
    assert (info.name, info.size_px, info.resize, info.dim, info.context) == ("My Model", 32, "viclip", 32, 32)
    assert info.model_key.startswith("my_model_")
    assert info.location == str(tmp_path / "My Model")


def test_clip_and_siglip_folders_are_described(tmp_path: Path) -> None:
    clip, siglip = describe(str(write_clip(tmp_path / "clip"))), describe(str(write_siglip(tmp_path / "siglip")))
    assert (clip.size_px, clip.resize, clip.dim, clip.context) == (32, "clip", 16, 77)
    assert (siglip.size_px, siglip.resize, siglip.dim, siglip.context) == (32, "squash-bicubic", 32, 8)


def test_a_siglip_is_squashed_with_the_filter_that_its_preprocessor_names(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "siglip")
    (folder / "preprocessor_config.json").write_text('{"resample": 2}')
    assert describe(str(folder)).resize == "squash-bilinear"
    (folder / "preprocessor_config.json").write_text('{"resample": 1}')
    with pytest.raises(ModelError, match="filter 1"):
        describe(str(folder))


def test_the_key_stays_when_the_folder_moves_and_changes_with_the_weights(
    tmp_path: Path, models_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_viclip(tmp_path / "here" / "viclip-b16")
    key = describe(str(one)).model_key
    shutil.copytree(one, models_home / "viclip-b16")
    assert describe("viclip-b16").model_key == key
    assert describe(str(models_home / "viclip-b16" / "model.safetensors")).model_key == key
    monkeypatch.chdir(one)
    assert describe(".").model_key == key
    write_viclip(models_home / "viclip-b16", seed=1)
    assert describe("viclip-b16").model_key != key


def test_the_key_changes_with_heads_statistics_and_adapter(shared: Path, tmp_path: Path) -> None:
    viclip, clip = write_viclip(tmp_path / "viclip"), write_clip(tmp_path / "clip")
    keys = [describe(str(viclip)).model_key, describe(str(clip)).model_key]
    (viclip / "config.json").write_text('{"vision": {"heads": 2}, "text": {"heads": 2}}')
    (clip / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    adapter = str(shared / "parity" / "lora" / "adapter")
    keys += [describe(str(viclip)).model_key, describe(str(clip)).model_key, describe(str(clip), adapter).model_key]
    assert len(set(keys)) == len(keys)


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    key = describe(str(folder)).model_key
    (remembered,) = (tmp_path / "cache" / "raydist" / "digests").iterdir()
    remembered.write_text("ab" * 32)
    assert describe(str(folder)).model_key != key  # read from the cache
    remembered.write_text("torn")
    assert describe(str(folder)).model_key == key


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert describe(str(write_viclip(tmp_path / "small"))).dim == 32


@given(st.text())
def test_readable_names_are_safe_in_table_names(name: str) -> None:
    assert set(safe_name(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert safe_name(name)


def test_known_names_come_before_folders_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny").folder == registry.TINY.folder
    assert resolve("./tiny").folder == tmp_path / "tiny"


def test_a_name_of_ones_own_is_found_below_the_models_folder(models_home: Path) -> None:
    write_viclip(models_home / "mine")
    assert describe("mine").name == "mine"


def test_a_snapshot_in_the_hubs_cache_bears_its_repositorys_name(tmp_path: Path) -> None:
    known = write_viclip(tmp_path / "models--OpenGVLab--ViCLIP-B-16-hf" / "snapshots" / "0123abcd")
    other = write_viclip(tmp_path / "models--me--my-viclip" / "snapshots" / "0123abcd")
    assert describe(str(known)).model_key.startswith("viclip_b16_")
    assert "CC-BY-NC-SA" in describe(str(known)).licence
    assert describe(str(other)).model_key.startswith("my_viclip_")


def test_offline_a_known_name_says_what_to_download_and_where_to_put_it(models_home: Path) -> None:
    with pytest.raises(ModelError) as caught:
        describe("viclip-l14")
    message = str(caught.value)
    assert f"`hf download OpenGVLab/ViCLIP-L-14-hf --local-dir {models_home / 'viclip-l14'}`" in message
    assert "model.safetensors" in message
    assert "HF_HUB_OFFLINE" in message


def test_offline_a_repository_says_the_same(models_home: Path) -> None:
    with pytest.raises(ModelError, match=r"hf download google/siglip-base-patch16-224 --local-dir .*siglip-base"):
        describe("google/siglip-base-patch16-224")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("viclip-b61", "no model named 'viclip-b61'. Did you mean viclip-b16"),
        ("VICLIP_B16", "Did you mean viclip-b16"),
        ("zzz", "no model named 'zzz'. Known: tiny, viclip-b16"),
        ("/no/such/folder", "no model at '/no/such/folder': no such folder"),
        ("", "no model named ''"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is an empty folder"),
        (["pytorch_model.bin", "config.json"], r"pickled weights only \(pytorch_model.bin\)"),
        (["a.mp4", "b.mp4"], "no model.safetensors in .*it holds a.mp4, b.mp4"),
    ],
)
def test_folders_without_weights_say_what_they_hold(tmp_path: Path, files: list[str], message: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=message):
        describe(str(folder))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_file({"bert.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="type 'bert'; expected clip or siglip"):
        describe(str(tmp_path))


def test_weights_without_a_configuration_are_refused(tmp_path: Path) -> None:
    save_file({"anything": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"config.json' cannot be read"):
        describe(str(tmp_path))


def test_sharded_weights_are_one_model(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "clip")
    expected = load_encoder(str(whole), device="cpu").encode_frames(frames(1))
    tensors = load_file(whole / "model.safetensors")
    shards = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(tensors)}
    for shard in set(shards.values()):
        part = {key: value for key, value in tensors.items() if shards[key] == shard}
        save_file(part, whole / shard, metadata={"format": "pt"})
    (whole / "model.safetensors").unlink()
    (whole / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    np.testing.assert_array_equal(load_encoder(str(whole), device="cpu").encode_frames(frames(1)), expected)
    (whole / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        describe(str(whole))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config.json and adapter_model.safetensors missing"):
        describe(str(write_viclip(tmp_path / "small")), str(tmp_path))


@pytest.mark.parametrize(
    ("name", "keys"),
    [("viclip-b16", "keys_b16.json"), pytest.param("viclip-l14", "keys_l14.json", marks=pytest.mark.slow)],
)
def test_published_keys_load_under_their_name_and_embed(shared: Path, models_home: Path, name: str, keys: str) -> None:
    reference = json.loads((shared / "parity" / keys).read_text())
    recipe = recipe_of(shared / "parity")
    # A tensor at a time, in half the bytes: the larger model has 1.7 GB.
    tensors = {
        key: torch.from_numpy(recipe.tensor(key, shape, reference["recipe_seed"])).half()
        for key, shape in reference["shapes"].items()
    }
    (models_home / name).mkdir()
    save_file(tensors, models_home / name / "model.safetensors")
    del tensors
    encoder = load_encoder(name, device="cpu")
    assert sum(value.numel() for value in encoder.model.parameters()) == reference["parameters"]
    assert encoder.info.model_key.startswith(safe_name(name) + "_")
    assert "CC-BY-NC-SA" in encoder.info.licence
    video, text = encoder.encode_frames(frames(1, size_px=224)), encoder.encode_text(["a dog jumps"])
    assert video.shape == text.shape == (1, reference["config"]["embed_dim"])
    assert np.isfinite(video).all()
    assert np.isfinite(text).all()


def test_the_small_models_shape_is_inferred(tmp_path: Path) -> None:
    encoder = load_encoder(str(write_viclip(tmp_path / "small")), device="cpu")
    assert encoder.model.shape == SMALL
