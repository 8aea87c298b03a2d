"""Adapters as folders: found by name, described by a card, of use with their own base alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import write_clip, write_viclip

from raydist import load_encoder
from raydist.errors import ModelError
from raydist.models import adapters, lora
from raydist.models.registry import base_of, describe


def written(base: Path, folder: Path, **changes: object) -> adapters.Card:
    encoder = load_encoder(str(base), device="cpu")
    card = adapters.card_of(
        encoder.info,
        recipe={"rank": 4, "batch": 8, "jitter": False},
        data={"train_clips": 12, "fingerprint": "0f"},
        before={"loss": 2.0, "text_to_video": {"r1": 10.0}, "ranks": [1, 2]},
        after={"loss": 1.5, "text_to_video": {"r1": 25.0}, "ranks": [1, 1]},
    )
    card = replace(card, **changes)
    adapters.write(lora.attach(encoder, rank=4), folder, card)
    return card


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "small")
    card = written(base, tmp_path / "mine")
    assert adapters.read_card(tmp_path / "mine") == card
    assert (card.base, card.base_digest, card.base_location) == ("small", describe(str(base)).digest, str(base))
    assert sorted(os.listdir(tmp_path / "mine")) == ["README.md", "adapter_config.json", "adapter_model.safetensors", "card.json"]  # fmt: skip  # noqa: E501


def test_people_read_scores_data_and_licence_on_the_card(tmp_path: Path) -> None:
    written(write_viclip(tmp_path / "small"), tmp_path / "runs" / "mine" / "adapter", temperature=0.05)
    page = (tmp_path / "runs" / "mine" / "adapter" / "README.md").read_text()
    for line in (
        'base_model: "small"', "# mine", "| text to video r1 | 10 | 25 |", "- train clips: 12", "- rank: 4",
        "- licence of the base: unknown to raydist; see the page the weights came from",
        "- temperature, trained too: 0.05", "`raydist embed --adapter mine`",
    ):  # fmt: skip
        assert line in page, line
    assert "ranks" not in page
    assert str(tmp_path) not in page


def test_a_card_of_a_later_version_is_read_and_a_torn_one_refused(tmp_path: Path) -> None:
    card = written(write_viclip(tmp_path / "small"), tmp_path / "mine")
    file = tmp_path / "mine" / "card.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mood": "good"}))
    assert adapters.read_card(tmp_path / "mine") == card
    for text in ("", "[]", '{"recipe": {}}'):
        file.write_text(text)
        with pytest.raises(ModelError, match=r"card.json' cannot be read.*raydist train"):
            adapters.read_card(tmp_path / "mine")


def test_writing_again_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "small")
    written(base, tmp_path / "mine")
    (tmp_path / "mine" / "old.txt").write_text("old")
    written(base, tmp_path / "mine", data={"train_clips": 99})
    assert adapters.read_card(tmp_path / "mine").data == {"train_clips": 99}  # type: ignore[union-attr]
    assert not (tmp_path / "mine" / "old.txt").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir() if "mine" in entry.name) == ["mine"]


def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "small")
    card = written(base, tmp_path / "mine")
    with pytest.raises(TypeError):
        written(base, tmp_path / "mine", data={"train_clips": object()})
    assert adapters.read_card(tmp_path / "mine") == card
    assert sorted(entry.name for entry in tmp_path.iterdir() if "mine" in entry.name) == ["mine"]


def test_an_adapter_is_found_by_its_run_by_its_folder_and_by_its_runs_folder(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    folder = archive / "runs" / "mine" / "adapter"
    written(write_viclip(tmp_path / "small"), folder)
    for name in ("mine", str(folder), str(folder.parent)):
        assert adapters.find(name, str(archive)) == folder
    assert adapters.name_of(folder) == "mine"
    assert adapters.name_of(tmp_path / "other") == "other"


def test_an_adapter_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    written(write_viclip(tmp_path / "small"), archive / "runs" / "mine" / "adapter")
    (archive / "runs" / "begun").mkdir()
    with pytest.raises(ModelError, match=r"no adapter 'yours'.*Runs with an adapter: mine\."):
        adapters.find("yours", str(archive))
    with pytest.raises(ModelError, match=r"run 'begun' has no adapter.*raydist train --run begun"):
        adapters.find("begun", str(archive))
    with pytest.raises(ModelError, match=r"adapter_config.json and adapter_model.safetensors missing"):
        adapters.find(str(tmp_path / "small"))
    for name in ("", " ", "..", "../mine"):
        with pytest.raises(ModelError, match="no adapter"):
            adapters.find(name, str(archive))


def test_an_adapter_finds_its_base_by_name_by_place_or_by_what_peft_wrote(tmp_path: Path, models_home: Path) -> None:
    base = write_viclip(tmp_path / "small")
    written(base, tmp_path / "mine")
    assert base_of(tmp_path / "mine") == str(base)
    kept = write_viclip(models_home / "small")
    assert base_of(tmp_path / "mine") == "small"
    assert load_encoder("", adapter=str(tmp_path / "mine")).info.name == "small+mine"
    write_viclip(kept, seed=1)  # another model of that name
    assert base_of(tmp_path / "mine") == str(base)
    (tmp_path / "mine" / "card.json").unlink()
    assert base_of(tmp_path / "mine") == "small"


def test_a_base_that_is_not_here_is_named_in_the_error(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "small")
    card = written(base, tmp_path / "mine")
    write_viclip(base, seed=1)
    with pytest.raises(ModelError, match=rf"'small' \(weights {card.base_digest[:8]}\).*not found.*--model"):
        base_of(tmp_path / "mine")


def test_an_adapter_on_other_weights_than_its_base_is_refused_with_the_remedy(tmp_path: Path) -> None:
    written(write_viclip(tmp_path / "small"), tmp_path / "mine")
    other = write_viclip(tmp_path / "other", seed=1)
    for load in (describe, load_encoder):
        with pytest.raises(ModelError, match=r"'mine' was trained on 'small'.*'other'.*Leave --model out"):
            load(str(other), adapter=str(tmp_path / "mine"))


def test_the_key_follows_the_adapter(tmp_path: Path) -> None:
    base = write_clip(tmp_path / "clip")
    written(base, tmp_path / "mine")
    plain, adapted = describe(str(base)), describe(str(base), str(tmp_path / "mine"))
    assert (adapted.name, adapted.adapter, adapted.digest) == ("clip+mine", str(tmp_path / "mine"), plain.digest)
    encoder = load_encoder(str(base), device="cpu")
    adapter = lora.attach(encoder, rank=4, seed=7)
    adapters.write(adapter, tmp_path / "mine", adapters.card_of(plain, recipe={}, data={}, before={}, after={}))
    again, fast = describe(str(base), str(tmp_path / "mine")), describe(f"{base}@fast", str(tmp_path / "mine"))
    assert fast.name == "clip+mine@fast"
    assert len({info.model_key for info in (plain, adapted, again, fast)}) == 4


def test_a_card_names_a_base_and_no_adapter(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "small")
    written(base, tmp_path / "mine")
    with pytest.raises(ValueError, match=r"small\+mine is no base"):
        adapters.card_of(describe(str(base), str(tmp_path / "mine")), recipe={}, data={}, before={}, after={})
    fast = adapters.card_of(describe(f"{base}@fast"), recipe={}, data={}, before={}, after={})
    assert fast.base == "small"


def test_the_merge_is_made_in_float32_before_a_gpus_bfloat16(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "small")
    written(base, tmp_path / "mine")
    encoder = load_encoder(str(base), adapter=str(tmp_path / "mine"), device="cpu")
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    assert not [name for name, _ in encoder.model.named_parameters() if "lora" in name]
