"""ViCLIP gives the published model's numbers: the small models of the reference data, and torch's own attention."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from raydist.models.viclip import ViCLIP, load_reference, shape_from_tensors, to_reference, to_reference_layout

FEATURES, UNIT, LOGITS, LOSS, GRADIENT = 2e-5, 2e-6, 2e-4, 2e-5, 5e-5
"""Limits in float32 on a CPU: absolute, and relative L2 for gradients."""


def contrastive(video_BE: Tensor, text_BE: Tensor, temperature: Tensor | float, target: Tensor | None = None) -> Tensor:
    logits_BB = normalize(video_BE, dim=-1) @ normalize(text_BE, dim=-1).T / temperature
    target = torch.arange(len(logits_BB)) if target is None else target
    return (cross_entropy(logits_BB, target) + cross_entropy(logits_BB.T, target)) / 2


class Case:
    """A reference model, its inputs and its expected outputs."""

    def __init__(self, folder: Path, home: Path) -> None:
        sys.path.insert(0, str(folder.parent))
        try:
            import recipe
        finally:
            sys.path.pop(0)
        keys = json.loads((folder / "keys.json").read_text())
        self.expected = load_file(folder / "expected.safetensors")
        self.gradients = load_file(folder / "gradients.safetensors")
        weights = recipe.weights(keys["shapes"], keys["recipe_seed"])
        save_file({key: torch.from_numpy(value) for key, value in weights.items()}, home / "model.safetensors")
        (home / "config.json").write_text(json.dumps(keys["config"]))
        size = keys["config"]["vision"]["image_size"]
        self.keys = keys
        self.model = load_reference(home)
        self.video = torch.from_numpy(recipe.video(keys["recipe_seed"], 4, 8, size))
        self.tokens = self.expected["input.tokens"].long()


@pytest.fixture(scope="module", params=["tiny", "trunc"])
def case(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(shared / "parity" / request.param, tmp_path_factory.mktemp(request.param))


def test_the_configuration_is_read_from_shapes(case: Case) -> None:
    vision, text, shape = case.keys["config"]["vision"], case.keys["config"]["text"], case.model.shape
    assert (shape.vision_width, shape.vision_layers, shape.vision_heads) == (
        vision["width"],
        vision["layers"],
        vision["heads"],
    )
    assert (shape.patch_px, shape.image_px, shape.frames) == (vision["patch_size"], vision["image_size"], 8)
    assert (shape.text_width, shape.text_layers, shape.text_heads) == (text["width"], text["layers"], text["heads"])
    assert (shape.vocabulary, shape.context, shape.embed_dim) == (
        text["vocab_size"],
        32,
        case.keys["config"]["embed_dim"],
    )
    assert sum(parameter.numel() for parameter in case.model.parameters()) == case.keys["parameters"]


def test_features_similarities_and_losses_are_the_published_ones(case: Case) -> None:
    expected = case.expected
    with torch.inference_mode():
        video, text = case.model.encode_video(case.video), case.model.encode_text(case.tokens)
        similar = normalize(video, dim=-1) @ normalize(text, dim=-1).T
        close(video, expected["vision"], FEATURES)
        close(text, expected["text"], FEATURES)
        close(normalize(video, dim=-1), expected["vision_norm"], UNIT)
        close(normalize(text, dim=-1), expected["text_norm"], UNIT)
        close(similar, expected["sim"], UNIT)
        close(similar / case.model.temp, expected["sim_over_temp"], LOGITS)
        close(contrastive(video, text, case.model.temp), expected["loss"], LOSS)
        close(contrastive(video, text, 0.07), expected["temp_0.07.loss"], LOSS)
        same = (expected["dup_idx.idx"][:, None] == expected["dup_idx.idx"]).float()
        target = same / same.sum(1, keepdim=True)
        close(contrastive(video, text, case.model.temp, target), expected["dup_idx.loss"], LOSS)


def test_a_picture_is_a_clip_of_one_frame(case: Case) -> None:
    with torch.inference_mode():
        close(case.model.encode_video(case.video[:, :1]), case.expected["image_t1.vision"], FEATURES)


def test_gradients_of_every_tensor_are_the_published_ones(case: Case) -> None:
    model = case.model
    model.zero_grad()
    contrastive(model.encode_video(case.video), model.encode_text(case.tokens), model.temp).backward()
    found = to_reference_layout({name: grad_of(parameter) for name, parameter in model.named_parameters()})
    compared = set()
    for key, expected in case.gradients.items():
        name, _, part = key.partition("#")
        compared.add(name)
        gradient = found[name]
        if part == "norm":
            assert gradient.double().norm().item() == pytest.approx(expected.item(), rel=GRADIENT), name
            continue
        if part == "[:16,:16]":
            gradient = gradient.reshape(len(gradient), -1)[:16, :16]
        assert (gradient - expected).norm() <= GRADIENT * expected.norm(), key
    assert compared == found.keys()


def test_captions_give_the_published_text_features(case: Case) -> None:
    if "captions.tokens" not in case.expected:
        pytest.skip("the tiny model has no vocabulary for captions")
    with torch.inference_mode():
        close(case.model.encode_text(case.expected["captions.tokens"].long()), case.expected["captions.text"], FEATURES)


def test_activations_agree_layer_by_layer(case: Case) -> None:
    stages = {key.removeprefix("stage."): value for key, value in case.expected.items() if key.startswith("stage.")}
    if not stages:
        pytest.skip("activations are kept for the tiny model only")
    found = activations(case.model, case.video, case.tokens)
    for key, expected in stages.items():
        close(found[key][: len(expected)], expected, FEATURES)


def test_saving_gives_back_the_loaded_tensors_bit_for_bit(case: Case) -> None:
    saved = to_reference(case.model)
    assert {key: list(value.shape) for key, value in saved.items()} == case.keys["shapes"]
    assert (
        shape_from_tensors(
            {key: tuple(value.shape) for key, value in saved.items()},
            vision_heads=case.model.shape.vision_heads,
            text_heads=case.model.shape.text_heads,
        )
        == case.model.shape
    )


def grad_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def close(found: Tensor, expected: Tensor, limit: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= limit


def activations(model: ViCLIP, video: Tensor, tokens: Tensor) -> Mapping[str, Tensor]:
    """Of batch row 1, by the names of the reference data."""
    vision, text, found = model.vision_encoder, model.text_encoder, {}
    modules: dict[str, Any] = {"vision.ln_pre": vision.ln_pre, "text.ln_final": text.ln_final}
    modules["text.token_embedding"] = text.token_embedding
    for tower, encoder in (("vision", vision), ("text", text)):
        for number, block in enumerate(encoder.transformer.resblocks):
            modules[f"{tower}.block{number}"] = block
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, out, name=name: found.__setitem__(name, out[1].detach()))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        vision.transformer(vision.ln_pre(vision.embed(video)))
        model.encode_text(tokens)
        last = found[f"vision.block{len(vision.transformer.resblocks) - 1}"]
        found["vision.ln_post"] = vision.ln_post(last)
    for hook in hooks:
        hook.remove()
    return found
