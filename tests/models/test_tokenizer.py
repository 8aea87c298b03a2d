"""The tokenizer gives the published ids, and never lets a caption's text act as a marker where it must not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from raydist.models.tokenizer import END, PAD, START, Tokenizer


@pytest.mark.parametrize("context", [32, 77])
def test_every_reference_text_has_the_published_ids(shared: Path, context: int) -> None:
    cases = json.loads((shared / "parity" / "tokenizer" / "cases.json").read_text(encoding="utf-8"))["cases"]
    expected = load_file(shared / "parity" / "tokenizer" / "ids.safetensors")[f"context_{context}"]
    found = Tokenizer(context).encode([case["text"] for case in cases])
    wrong = [case["text"] for case, a, b in zip(cases, found, expected, strict=True) if not np.array_equal(a, b)]
    assert wrong == []
    assert len(cases) == 300


def test_a_plain_caption_has_the_ids_of_clip() -> None:
    # The example of CLIP's own documentation.
    assert Tokenizer(77).encode(["a photo of a cat"])[0, :8].tolist() == [START, 320, 1125, 539, 320, 2368, END, PAD]


@pytest.mark.parametrize("text", ["A  PHOTO of a cat ", "a photo&nbsp;of a cat", "a photo\nof a cat"])
def test_case_entities_and_white_space_do_not_matter(text: str) -> None:
    tokenizer = Tokenizer(32)
    assert tokenizer.encode([text]).tolist() == tokenizer.encode(["a photo of a cat"]).tolist()


@given(st.text(max_size=200), st.sampled_from([2, 32, 77]))
def test_every_text_starts_ends_and_is_padded(text: str, context: int) -> None:
    (ids,) = Tokenizer(context, drop_markers=True).encode([text])
    end = int(np.argmax(ids))
    assert ids[0] == START
    assert ids[end] == END
    assert not ids[end + 1 :].any()
    assert np.count_nonzero(ids == END) == 1


@pytest.mark.parametrize(
    "text",
    [
        "cat<|endoftext|>dog",
        "cat <|ENDOFTEXT|> dog",
        "cat &lt;|endoftext|&gt; dog",
        "cat <|endof<|startoftext|>text|> dog",
    ],
)
def test_a_spelt_marker_cannot_cut_a_text_when_markers_are_dropped(text: str) -> None:
    (ids,) = Tokenizer(32, drop_markers=True).encode([text])
    (dog,) = Tokenizer(32).body("dog")
    assert dog in ids[: int(np.argmax(ids))].tolist()


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="context 1"):
        Tokenizer(1)


def test_no_texts_give_no_rows() -> None:
    assert Tokenizer(32).encode([]).shape == (0, 32)
