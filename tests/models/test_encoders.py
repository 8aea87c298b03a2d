"""Encoders: uint8 frames and texts in, unit vectors out, the same numbers as the models behind them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import frames, recipe_of, write_clip, write_siglip, write_tokenizer, write_viclip
from torch.nn.functional import normalize
from transformers import CLIPImageProcessor, CLIPModel, SiglipImageProcessor, SiglipModel

from raydist.clips.resize import resize_frames
from raydist.errors import ModelError, ResourceError
from raydist.models.encoder import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Encoder, Statistics, pick_device
from raydist.models.registry import load_encoder
from raydist.models.viclip import load_reference

MAKERS = {"viclip": write_viclip, "clip": write_clip, "siglip": write_siglip}


@pytest.fixture(scope="module", params=list(MAKERS))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(str(MAKERS[request.param](tmp_path_factory.mktemp("models") / request.param)), device="cpu")


def test_vectors_have_unit_length_and_one_row_a_clip_or_text(encoder: Encoder) -> None:
    video, text = encoder.encode_frames(frames(3)), encoder.encode_text(["a red cat", "a dog jumps", ""])
    assert video.shape == text.shape == (3, encoder.info.dim)
    assert video.dtype == text.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([video, text]), axis=1), 1, atol=1e-6)


def test_a_clip_has_the_same_vector_in_every_batch(encoder: Encoder) -> None:
    clips = frames(5)
    together = encoder.encode_frames(clips)
    alone = np.concatenate([encoder.encode_frames(clips[row : row + 1]) for row in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_read_only_arrays_and_tensors_give_the_same_vectors(encoder: Encoder) -> None:
    clips = frames(2)
    expected = encoder.encode_frames(torch.from_numpy(clips.copy()))
    clips.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode_frames(clips), expected)


def test_a_picture_is_a_clip_of_one_frame(encoder: Encoder) -> None:
    assert encoder.encode_frames(frames(2, frames_a_clip=1)).shape == (2, encoder.info.dim)


def test_nothing_in_gives_nothing_out(encoder: Encoder) -> None:
    assert encoder.encode_frames(frames(0)).shape == encoder.encode_text([]).shape == (0, encoder.info.dim)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (np.zeros((1, 8, 32, 32, 3), np.float32), "float32"),
        (np.zeros((8, 32, 32, 3), np.uint8), r"\[8, 32, 32, 3\].*takes uint8 \[B, T, 32, 32, 3\]"),
        (np.zeros((1, 8, 32, 30, 3), np.uint8), "30"),
        (np.zeros((1, 3, 32, 32, 3), np.uint8), "3 frames a clip; .* takes 8, or 1 for a picture"),
    ],
)
def test_frames_of_another_kind_are_refused(encoder: Encoder, clips: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.encode_frames(clips)


def test_one_text_in_place_of_a_list_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="a list of texts"):
        encoder.encode_text("a red cat")


def test_many_texts_are_the_same_as_each_alone(encoder: Encoder) -> None:
    texts = [f"a {word} {number}" for number in range(60) for word in ("cat", "dog", "red", "jumps", "s")]
    found = encoder.encode_text(texts)
    np.testing.assert_allclose(found[-1:], encoder.encode_text(texts[-1:]), atol=1e-5)
    assert len(found) == len(texts)


@settings(max_examples=10, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_a_vector(encoder: Encoder, text: str) -> None:
    assert np.isfinite(encoder.encode_text([text])).all()


@pytest.mark.parametrize("marker", ["<|endoftext|>", "<|ENDOFTEXT|>", "</s>"])
def test_a_marker_spelt_in_a_text_does_not_hide_what_follows(encoder: Encoder, marker: str) -> None:
    cut, cat, dog = encoder.encode_text(["a", f"a {marker} cat", f"a {marker} dog"])
    assert np.abs(cat - dog).max() > 1e-4
    assert np.abs(cat - cut).max() > 1e-4


def test_nan_and_zero_vectors_come_back_as_nan(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_encoder.proj"] *= torch.nan
    tensors["text_encoder.text_projection"] *= 0
    save_file(tensors, folder / "model.safetensors")
    encoder = load_encoder(str(folder), device="cpu")
    assert np.isnan(encoder.encode_frames(frames(2))).all()
    assert np.isnan(encoder.encode_text(["a cat"])).all()


def test_viclip_vectors_are_the_models_own(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    clips = frames(2)
    pixels = (clips / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    with torch.inference_mode():
        expected = load_reference(folder).encode_video(torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 2))
    found = load_encoder(str(folder), device="cpu").encode_frames(clips)
    np.testing.assert_allclose(found, normalize(expected, dim=-1).numpy(), atol=2e-6)


@pytest.mark.parametrize(
    ("make", "model_class", "processor"),
    [(write_clip, CLIPModel, CLIPImageProcessor), (write_siglip, SiglipModel, SiglipImageProcessor)],
)
def test_an_image_model_gives_the_mean_of_its_frames_unit_vectors(
    tmp_path: Path, make: object, model_class: type, processor: type
) -> None:
    folder = make(tmp_path / "small")  # type: ignore[operator]
    clips = frames(2)
    steps = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    pictures = [Image.fromarray(frame) for frame in clips.reshape(-1, 32, 32, 3)]
    pixels = processor(**steps)(pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = model_class.from_pretrained(folder).eval().get_image_features(pixel_values=pixels).pooler_output
    expected = normalize(normalize(features, dim=-1).view(2, 8, -1).mean(1), dim=-1)
    np.testing.assert_allclose(
        load_encoder(str(folder), device="cpu").encode_frames(clips), expected.numpy(), atol=2e-6
    )


@pytest.mark.parametrize("number", [2, 3])
def test_siglip_frames_get_the_size_that_its_own_processor_gives(tmp_path: Path, number: int) -> None:
    folder = write_siglip(tmp_path / "siglip")
    (folder / "preprocessor_config.json").write_text(f'{{"resample": {number}}}')
    rule = load_encoder(str(folder), device="cpu").info.resize
    frame = np.random.default_rng(0).integers(0, 256, (90, 161, 3), np.uint8)
    processor = SiglipImageProcessor(size={"height": 32, "width": 32}, resample=number, do_normalize=False)
    if "Fast" in type(processor).__name__:
        pytest.skip("transformers' processor without Pillow resizes tensors, up to a level otherwise")
    pixels = processor([Image.fromarray(frame)], return_tensors="np")["pixel_values"][0]
    resized = resize_frames(frame[None], 32, rule)[0]
    assert np.abs(resized / 255 - np.moveaxis(pixels, 0, -1)).max() < 1e-6


def test_temperatures_are_what_similarities_are_divided_by(tmp_path: Path) -> None:
    clip = load_encoder(str(write_clip(tmp_path / "clip")), device="cpu")
    assert clip.temperature == pytest.approx(np.exp(-2.6592), rel=1e-5)
    assert load_encoder(str(write_viclip(tmp_path / "viclip")), device="cpu").temperature == pytest.approx(0.07)


def test_the_preprocessors_statistics_are_used(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    plain = load_encoder(str(folder), device="cpu").encode_frames(frames(1))
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    assert np.abs(load_encoder(str(folder), device="cpu").encode_frames(frames(1)) - plain).max() > 1e-3


def test_a_preprocessor_with_another_crop_is_refused(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    steps = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    with pytest.raises(ModelError, match=r"\[32, 36\] pixels, its model takes 32"):
        load_encoder(str(folder), device="cpu")


def test_missing_weights_are_not_drawn_at_random(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors of .*missing.*visual_projection.weight"):
        load_encoder(str(folder), device="cpu")


def test_frames_are_normalised_as_the_reference_does(shared: Path) -> None:
    viclip = load_file(shared / "parity" / "preprocess" / "viclip.safetensors")
    found = Statistics(mean=IMAGENET_MEAN, std=IMAGENET_STD).normalise(viclip["viclip.32x32.uint8"][None])
    assert (found - viclip["viclip.32x32"]).abs().max() <= 1e-6
    clip = load_file(shared / "parity" / "preprocess" / "clip336.safetensors")
    for name in ("landscape", "portrait", "upright_small", "large"):
        picture_HWC = clip[f"{name}.32.uint8"].movedim(0, -1)
        found = Statistics(mean=CLIP_MEAN, std=CLIP_STD).normalise(picture_HWC[None, None])[0, 0]
        assert (found - clip[f"{name}.32"]).abs().max() <= 1e-6


def test_the_reference_clip_gives_the_published_features(shared: Path, tmp_path: Path) -> None:
    encoder = reference_clip(shared, tmp_path)
    expected = load_file(shared / "parity" / "lora" / "expected.safetensors")
    with torch.inference_mode():
        features = encoder.video(expected["input.pixel_values"][:, None])
    np.testing.assert_allclose(normalize(features, dim=-1), expected["base.image_embeds_normalised"], atol=2e-6)


def reference_clip(shared: Path, folder: Path, adapter: str | None = None) -> Encoder:
    parity = shared / "parity"
    keys = json.loads((parity / "lora" / "keys.json").read_text())
    write_clip(folder, keys["config"])
    weights = recipe_of(parity).weights(keys["shapes"], keys["recipe_seed"])
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    words = ["<unk>", *(f"w{number}" for number in range(1, 62)), "<start>", "<end>"]
    write_tokenizer(folder, words, "<end>", "CLIPTokenizer", start="<start>")
    return load_encoder(str(folder), adapter=adapter, device="cpu")


def test_a_clip_adapter_gives_the_published_features(shared: Path, tmp_path: Path) -> None:
    encoder = reference_clip(shared, tmp_path, str(shared / "parity" / "lora" / "adapter"))
    expected = load_file(shared / "parity" / "lora" / "expected.safetensors")
    ids = expected["input.input_ids"]
    with torch.inference_mode():
        image = encoder.video(expected["input.pixel_values"][:, None])
        text = encoder.model.get_text_features(input_ids=ids).pooler_output
    np.testing.assert_allclose(normalize(image, dim=-1), expected["merged.image_embeds_normalised"], atol=5e-6)
    np.testing.assert_allclose(text, expected["merged.text_features"], atol=2e-5)
    assert encoder.info.name.endswith("+lora")  # called by the folder above, as a run is


def test_a_viclip_adapter_reaches_every_layer_that_it_names(shared: Path, tmp_path: Path) -> None:
    parity = shared / "parity"
    keys = json.loads((parity / "tiny" / "keys.json").read_text())
    folder, adapter = tmp_path / "tiny", tmp_path / "adapter"
    folder.mkdir()
    adapter.mkdir()
    (folder / "model.safetensors").write_bytes((parity / "tiny" / "model.safetensors").read_bytes())
    (folder / "config.json").write_text(json.dumps(keys["config"]))
    # The reference's adapter was made on packed attention: its layers have the reference's names.
    names = {"c_fc": "fc1", "c_proj": "fc2", "out_proj": "out_proj"}
    config = json.loads((parity / "lora" / "viclip" / "adapter_config.json").read_text())
    config["target_modules"] = [names[target] for target in config["target_modules"]]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(parity / "lora" / "viclip" / "adapter_model.safetensors")
    renamed = {
        key.replace("attn.out_proj", "self_attn.out_proj").replace("c_fc", "fc1").replace("c_proj", "fc2"): value
        for key, value in tensors.items()
    }
    save_file(renamed, adapter / "adapter_model.safetensors")
    encoder = load_encoder(str(folder), adapter=str(adapter), device="cpu")
    expected, inputs = (load_file(parity / part / "expected.safetensors") for part in ("lora/viclip", "tiny"))
    with torch.inference_mode():
        video = encoder.video(inputs["input.video"])
        text = encoder.model.encode_text(inputs["input.tokens"].long())
    np.testing.assert_allclose(video, expected["merged.vision"], atol=2e-5)
    np.testing.assert_allclose(text, expected["merged.text"], atol=2e-5)


def test_an_adapter_for_another_model_is_refused(shared: Path, tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    with pytest.raises(ModelError, match="adapter"):
        load_encoder(str(folder), adapter=str(shared / "parity" / "lora" / "adapter"), device="cpu")


def test_devices_are_named_or_chosen() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="'tpu': expected cpu, cuda"):
        pick_device("tpu")
    with pytest.raises(ResourceError, match=r"'cuda:99': torch .* sees"):
        pick_device("cuda:99")
