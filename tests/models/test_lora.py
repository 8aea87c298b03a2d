"""LoRA: every matrix of both towers is trained, the base stays as it is, and other libraries read what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_models import frames, recipe_of, write_clip, write_siglip, write_viclip
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, CLIPModel

from raydist.errors import ModelError
from raydist.models import lora
from raydist.models.encoder import Encoder, unit_length
from raydist.models.registry import load_encoder
from raydist.models.viclip import ViCLIP, shape_from_tensors

MAKERS = {"viclip": write_viclip, "clip": write_clip, "siglip": write_siglip}
TEXTS = ["a red cat", "a dog jumps", "red", "a cat jumps"]


@pytest.fixture(params=list(MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path / request.param)


def loaded(folder: Path) -> Encoder:
    return load_encoder(str(folder), device="cpu")


def loss_of(encoder: Encoder) -> Tensor:
    video = unit_length(encoder.video(encoder.pixels(frames(len(TEXTS)))))
    text = unit_length(encoder.text(encoder.ids(TEXTS)))
    logits, target = video @ text.T / encoder.temperature, torch.arange(len(TEXTS))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def draw_b(adapter: lora.LoRA, seed: int = 1) -> None:
    """Give B numbers, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    state = adapter.state()
    for name, value in state.items():
        if "lora_B" in name:
            value.normal_(std=0.02, generator=generator)
    adapter.load(state)


def gradients(encoder: Encoder, adapter: lora.LoRA) -> dict[str, Tensor]:
    encoder.model.zero_grad()
    loss_of(encoder).backward()
    found = {}
    for name, parameter in adapter.parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return found


def test_gradient_reaches_every_matrix_of_both_towers(folder: Path) -> None:
    encoder = loaded(folder)
    adapter = lora.attach(encoder, rank=4, alpha=8)
    draw_b(adapter)
    found = gradients(encoder, adapter)
    assert len(found) == 2 * 2 * 4 * 2  # towers, layers, q k v out, A B
    assert {part for name in found for part in ("q", "k", "v", "out") if f"{part}_proj" in name} == {*"qkv", "out"}
    largest = max(gradient.norm() for gradient in found.values())
    for name, gradient in found.items():
        assert gradient.norm() > 1e-5 * largest, name
        assert (gradient.abs().sum(1 if "lora_B" in name else 0) > 0).all(), name


def test_an_untrained_adapter_changes_nothing_and_the_base_is_frozen(folder: Path) -> None:
    encoder, plain = loaded(folder), loaded(folder)
    adapter = lora.attach(encoder, rank=4)
    np.testing.assert_allclose(encoder.encode_frames(frames(2)), plain.encode_frames(frames(2)), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), plain.encode_text(TEXTS), atol=1e-6)
    trained = {id(parameter) for _, parameter in adapter.parameters()}
    assert all(parameter.requires_grad == (id(parameter) in trained) for parameter in encoder.model.parameters())


def test_the_seed_alone_decides_where_training_begins(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "viclip")
    first = lora.attach(loaded(folder), seed=3).state()
    torch.manual_seed(99)
    again, other = lora.attach(loaded(folder), seed=3).state(), lora.attach(loaded(folder), seed=4).state()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert all(torch.equal(value, other[name]) == ("lora_B" in name) for name, value in first.items())
    for name, value in first.items():  # as PEFT draws them
        bound = value.shape[1] ** -0.5
        assert ("lora_B" in name) or (0.9 * bound < value.abs().max() <= bound), name


@pytest.mark.parametrize("keys", ["keys_b16.json", "keys_l14.json"])
def test_a_full_size_viclip_trains_as_many_numbers_as_the_recipe_says(shared: Path, keys: str) -> None:
    fields = json.loads((shared / "parity" / keys).read_text())
    shape = shape_from_tensors({key: tuple(value) for key, value in fields["shapes"].items()})
    with torch.device("meta"):
        model = ViCLIP(shape)
    trained, total = lora.wrap(model).counts
    assert trained == {"keys_b16.json": 3_932_160, "keys_l14.json": 8_650_752}[keys]
    assert total == trained + fields["parameters"]


def test_a_full_size_clip_trains_as_many_numbers_as_the_recipe_says() -> None:
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision |= {"image_size": 336, "patch_size": 14}
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768))
    assert lora.wrap(model).counts == (8_650_752, 8_650_752 + 427_944_193)


def test_activations_computed_again_give_the_same_gradients(folder: Path) -> None:
    encoder = loaded(folder)
    adapter = lora.attach(encoder, rank=4)
    draw_b(adapter)
    kept = gradients(encoder, adapter)
    before = saved_bytes(encoder)
    encoder.checkpoint_activations()
    again = gradients(encoder, adapter)
    for name, value in kept.items():
        assert (again[name] - value).norm() <= 1e-5 * value.norm(), name
    assert saved_bytes(encoder) < before / 2


def saved_bytes(encoder: Encoder) -> int:
    """What a forward pass keeps for the way back."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = encoder.video(encoder.pixels(frames(4)))
    assert kept.requires_grad
    return sum(size for place, size in sizes.items() if place not in weights)


def test_float32_matrices_are_trained_on_a_bfloat16_base(folder: Path) -> None:
    fine, coarse = loaded(folder), loaded(folder)
    coarse.model.to(torch.bfloat16)
    coarse.dtype = torch.bfloat16
    expected, found = {}, {}
    for encoder, into in ((fine, expected), (coarse, found)):
        adapter = lora.attach(encoder, rank=4)
        draw_b(adapter)
        assert {parameter.dtype for _, parameter in adapter.parameters()} == {torch.float32}
        assert encoder.video(encoder.pixels(frames(1))).dtype in (encoder.dtype, torch.float32)
        into.update(gradients(encoder, adapter))
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        similar = nn.functional.cosine_similarity(gradient.flatten(), found[name].flatten(), dim=0)
        assert similar > 0.9, (name, similar)


def test_everything_is_float64_where_the_base_is(folder: Path) -> None:
    encoder = loaded(folder)
    encoder.model.double()
    encoder.dtype = torch.float64
    adapter = lora.attach(encoder, rank=4)
    draw_b(adapter)
    assert loss_of(encoder).dtype == torch.float64
    assert {value.dtype for value in gradients(encoder, adapter).values()} == {torch.float64}


def test_matrices_go_out_and_in_again_and_others_are_refused(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "viclip")
    one, two = lora.attach(loaded(folder), rank=4), lora.attach(loaded(folder), rank=4, seed=1)
    before = [parameter for _, parameter in two.parameters()]
    draw_b(one)
    two.load(one.state())
    assert all(a is b for a, (_, b) in zip(before, two.parameters(), strict=True))
    assert all(torch.equal(value, two.state()[name]) for name, value in one.state().items())
    with pytest.raises(ModelError, match=r"\[8, 64\]; this adapter's is \[4, 64\].*resume with"):
        two.load(lora.attach(loaded(folder), rank=8).state())
    with pytest.raises(ModelError, match="1 matrices are those of another adapter"):
        two.load(dict(list(one.state().items())[1:]))


def test_a_saved_adapter_merges_to_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    encoder = loaded(folder)
    adapter = lora.attach(encoder, rank=4, alpha=6)
    draw_b(adapter)
    saved = tmp_path / "adapter"
    saved.mkdir()
    adapter.save(saved)
    again = load_encoder(str(folder), adapter=str(saved), device="cpu")
    assert np.abs(encoder.encode_frames(frames(2)) - loaded(folder).encode_frames(frames(2))).max() > 1e-4
    np.testing.assert_allclose(again.encode_frames(frames(2)), encoder.encode_frames(frames(2)), atol=2e-6)
    np.testing.assert_allclose(again.encode_text(TEXTS), encoder.encode_text(TEXTS), atol=2e-6)


def test_plain_peft_and_transformers_give_a_clip_adapters_embeddings(tmp_path: Path) -> None:
    folder, saved = write_clip(tmp_path / "clip"), tmp_path / "adapter"
    encoder = loaded(folder)
    adapter = lora.attach(encoder, rank=4, alpha=8)
    draw_b(adapter)
    saved.mkdir()
    adapter.save(saved, base="owner/clip")
    fields = json.loads((saved / "adapter_config.json").read_text())
    assert (fields["base_model_name_or_path"], fields["inference_mode"]) == ("owner/clip", True)
    assert str(tmp_path) not in json.dumps(fields)
    other = PeftModel.from_pretrained(CLIPModel.from_pretrained(folder), saved).eval()
    pixels, ids = encoder.pixels(frames(2, frames_a_clip=1)), encoder.ids(TEXTS)
    with torch.inference_mode():
        picture = other.get_image_features(pixel_values=pixels[:, 0]).pooler_output
        text = other.get_text_features(input_ids=ids).pooler_output
        np.testing.assert_allclose(encoder.video(pixels), normalize(picture, dim=-1), atol=2e-6)
        np.testing.assert_allclose(encoder.text(ids), text, atol=2e-6)


def test_a_published_adapter_gets_the_published_gradients(shared: Path, tmp_path: Path) -> None:
    parity = shared / "parity"
    keys = json.loads((parity / "lora" / "keys.json").read_text())
    model = CLIPModel(CLIPConfig(**keys["config"])).eval()
    weights = recipe_of(parity).weights(keys["shapes"], keys["recipe_seed"])
    model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    adapter = lora.wrap(model, rank=4, alpha=8)
    adapter.load(load_file(parity / "lora" / "adapter" / "adapter_model.safetensors"))
    expected = load_file(parity / "lora" / "expected.safetensors")
    image = model.get_image_features(pixel_values=expected["input.pixel_values"]).pooler_output
    text = model.get_text_features(input_ids=expected["input.input_ids"]).pooler_output
    logits = unit_length(text) @ unit_length(image).T * model.logit_scale.exp()
    target = torch.arange(len(logits))
    loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    loss.backward()
    assert loss.item() == pytest.approx(expected["lora.loss"].item(), abs=2e-5)
    published = load_file(parity / "lora" / "adapter_gradients.safetensors")
    found = {name: parameter.grad for name, parameter in adapter.parameters()}
    assert published.keys() == found.keys()
    for name, gradient in published.items():
        assert (found[name] - gradient).norm() <= 5e-5 * gradient.norm(), name
