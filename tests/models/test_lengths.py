"""A text is as long as the model's own tokenizer says, and what a model reads of it is never guessed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import small_models
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from raydist.errors import ModelError
from raydist.models import registry
from raydist.models.lengths import TextLimit, limit_of, text_limit
from raydist.models.tokenizer import END, Tokenizer


@pytest.mark.parametrize(
    ("name", "context", "room"),
    [
        ("viclip-b16", 32, 30),
        ("viclip-l14", 32, 30),
        ("viclip-b16@fast", 32, 30),
        ("clip-l14-336", 77, 75),
    ],
)
def test_a_known_model_need_not_be_here(name: str, context: int, room: int) -> None:
    limit = limit_of(name)
    assert (limit.context, limit.room, limit.folder) == (context, room, "")


def test_the_bundled_model_says_its_own() -> None:
    info = registry.describe("tiny")
    assert limit_of("tiny") == text_limit(info) == TextLimit(info.context)


def test_a_viclip_folder_is_counted_with_the_vocabulary_of_clip(models_home: Path) -> None:
    small_models.write_viclip(models_home / "mine")
    assert limit_of("mine") == text_limit(registry.describe("mine")) == TextLimit(32)


def test_a_clip_folder_without_a_tokenizer_is_counted_with_the_vocabulary_of_clip(tmp_path: Path) -> None:
    folder = small_models.write_clip(tmp_path / "clip")
    assert limit_of(str(folder)).folder == ""
    assert limit_of(str(folder)).count("a photo of a cat") == 5


def test_a_folder_with_a_tokenizer_is_counted_with_that(tmp_path: Path) -> None:
    folder = small_models.write_siglip(tmp_path / "siglip")
    limit = limit_of(str(folder))
    assert limit == text_limit(registry.describe(str(folder)))
    assert limit.room == 7  # of 8; no start
    # The first SigLIP reads texts without punctuation and capitals.
    assert limit.count("A red, CAT   jumps!") == 4
    assert limit.count(" ".join(["cat"] * 50)) == 50
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert limit.count("a red cat jumps") == len(own.encode("a red cat jumps").ids) - 1


def test_a_limit_travels_to_other_processes(tmp_path: Path) -> None:
    limit = limit_of(str(small_models.write_siglip(tmp_path / "siglip")))
    assert limit.count("a cat") == 2
    assert pickle.loads(pickle.dumps(limit)) == limit


@given(st.text(max_size=120), st.sampled_from([32, 77]))
def test_what_fits_loses_nothing(text: str, context: int) -> None:
    limit = TextLimit(context)
    (ids,) = Tokenizer(context, drop_markers=True).encode([text])
    shown = int(np.argmax(ids == END)) - 1
    assert limit.fits(text) == (limit.count(text) == shown)
    assert shown <= limit.room


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(ModelError, match="no-such"):
        limit_of("no-such")
