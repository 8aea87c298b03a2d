"""CLIP and SigLIP of the transformers library behind the interface of all encoders.

Reads   a folder as `save_pretrained` or the hub gives it: config.json, *.safetensors, the preprocessor's config and the
        tokenizer's files; code that ships in a folder is never executed, pickled weights are never opened
Promise a clip is the mean of its frames' unit vectors, of unit length again

Geometry. CLIP: shortest edge, Pillow's bicubic, centre crop. SigLIP: a squash to a square with the antialiased filter
that its preprocessor names.
"""

# Shape legend: B clips or texts, T frames, N = B*T pictures, C colours, H W pixels, L tokens, E embedding size

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    CLIPModel,
    CLIPTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    SiglipModel,
)
from transformers.utils import logging as transformers_logging

from raydist.errors import ModelError
from raydist.models import lora
from raydist.models.encoder import (
    CLIP_MEAN,
    CLIP_STD,
    SIGLIP_MEAN,
    SIGLIP_STD,
    Encoder,
    ModelInfo,
    Statistics,
    pick_dtype,
    unit_length,
)
from raydist.models.tokenizer import VOCABULARY, Tokenizer, clean, without_markers

MODEL_TYPES: dict[str, Any] = {"clip": CLIPModel, "siglip": SiglipModel}

_FILTERS = {2: "squash-bilinear", 3: "squash-bicubic"}
_ALTERS_VECTORS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "patch_size", "image_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a folder's configuration says of its model."""

    model_type: str
    size_px: int
    resize: str
    statistics: Statistics
    dim: int
    context: int
    architecture: Mapping[str, object]
    """What alters vectors beside the weights."""


class ClipEncoder(Encoder):
    """A CLIP or SigLIP on a device."""

    model: Any  # CLIPModel or SiglipModel; what transformers adds to modules is untyped

    def __init__(self, folder: Path, info: ModelInfo, device: torch.device, adapter: Path | None = None) -> None:
        traits = read_traits(folder)
        self.info = info
        self.statistics = traits.statistics
        self.device = device
        self.dtype = pick_dtype(device)
        model = load_model(folder, traits.model_type)
        if adapter is not None:
            model = lora.merged(model, adapter)
        self.temperature = float(torch.exp(-model.logit_scale.detach()))  # before bfloat16 rounds it
        self.model = model.eval().to(device, self.dtype)
        self._read = _text_reader(folder, traits, model.config)

    def video(self, pixels_BTCHW: Tensor) -> Tensor:
        batch = len(pixels_BTCHW)
        features_NE = self.model.get_image_features(pixel_values=pixels_BTCHW.flatten(0, 1)).pooler_output
        return unit_length(features_NE).view(batch, -1, self.info.dim).mean(1)

    def ids(self, texts: Sequence[str]) -> Tensor:
        return self._read(texts).to(self.device)

    def text(self, ids_BL: Tensor) -> Tensor:
        features_BE: Tensor = self.model.get_text_features(input_ids=ids_BL).pooler_output
        return features_BE

    def blocks(self) -> Iterable[nn.Module]:
        return [*self.model.vision_model.encoder.layers, *self.model.text_model.encoder.layers]


def read_traits(folder: Path) -> Traits:
    """What the folder's config.json and preprocessor say, without reading weights.

    Raises:
        ModelError: another kind of model, or a geometry that raydist does not have.
    """
    fields = _json(folder / "config.json")
    model_type = fields.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ModelError(
            f"{str(folder)!r} holds a model of type {model_type!r}; expected {' or '.join(MODEL_TYPES)} "
            "with both its towers, or a ViCLIP"
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    vision, text = config.vision_config, config.text_config
    preprocessor = _preprocessor(folder)
    size_px = _size(folder, preprocessor, vision.image_size)
    mean, std = (CLIP_MEAN, CLIP_STD) if model_type == "clip" else (SIGLIP_MEAN, SIGLIP_STD)
    return Traits(
        model_type=model_type,
        size_px=size_px,
        resize="clip" if model_type == "clip" else _squash(folder, preprocessor),
        statistics=Statistics(
            mean=tuple(preprocessor.get("image_mean", mean)), std=tuple(preprocessor.get("image_std", std))
        ),
        dim=config.projection_dim if model_type == "clip" else text.projection_size,
        context=text.max_position_embeddings,
        architecture={
            f"{tower}.{name}": getattr(part, name)
            for tower, part in (("vision", vision), ("text", text))
            for name in _ALTERS_VECTORS
            if hasattr(part, name)
        },
    )


def load_model(folder: Path, model_type: str) -> Any:
    """The module of transformers in float32 on the CPU.

    Raises:
        ModelError: weights that are missing or of another shape.
    """
    # A progress bar and a table of keys for each worker would bury what raydist says.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a gap of transformers
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # as above
    try:
        model, loading = MODEL_TYPES[model_type].from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"the weights in {str(folder)!r} cannot be loaded ({error}); download them again") from error
    finally:
        transformers_logging.set_verbosity(level)
    # transformers draws missing weights at random and only warns.
    missing = sorted({*loading["missing_keys"], *(str(key) for key in loading["mismatched_keys"])})
    if missing:
        raise ModelError(
            f"{len(missing)} tensors of {str(folder)!r} are missing or of another shape than config.json says "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); download it again"
        )
    return model


def _size(folder: Path, preprocessor: Mapping[str, Any], image_size: int) -> int:
    """The edge of the square that the model sees, where the preprocessor's steps are ones that `clips.resize` has."""
    size = preprocessor.get("size", image_size)
    edges = set(size.values()) if isinstance(size, dict) else {size}
    if preprocessor.get("do_center_crop"):
        crop = preprocessor.get("crop_size", image_size)
        edges |= set(crop.values()) if isinstance(crop, dict) else {crop}
    if edges != {image_size}:
        raise ModelError(
            f"the preprocessor of {str(folder)!r} resizes or crops to {sorted(edges)} pixels, its model takes "
            f"{image_size}; raydist needs one square size"
        )
    return image_size


def _squash(folder: Path, preprocessor: Mapping[str, Any]) -> str:
    """The rule of `clips.resize` for a SigLIP; its filter stands as Pillow's number, 3 where none is named."""
    number = preprocessor.get("resample", 3)
    if number not in _FILTERS:
        raise ModelError(
            f"the preprocessor of {str(folder)!r} resizes with filter {number!r}; "
            "raydist has 2 (bilinear) and 3 (bicubic)"
        )
    return _FILTERS[number]


def _preprocessor(folder: Path) -> Mapping[str, Any]:
    """The image processor's fields, from either file that transformers writes; empty where there is none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            fields = _json(folder / name)
            fields = fields.get("image_processor", fields)
            if isinstance(fields, dict):
                return fields
    return {}


def _json(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(file)!r} cannot be read ({error}); download it again") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{str(file)!r} holds no JSON object; download it again")
    return fields


def _text_reader(folder: Path, traits: Traits, config: PretrainedConfig) -> Callable[[Sequence[str]], Tensor]:
    """A function from texts to ids [B, L]."""
    tokenizer = _folder_tokenizer(folder, traits.model_type)
    if tokenizer is not None:
        prepare = _preparer(folder, traits.model_type)

        def ids(texts: Sequence[str]) -> Tensor:
            # SigLIP was trained with all positions filled; CLIP's causal tower does not see what follows the end.
            encoded = tokenizer(
                [prepare(text) for text in texts],
                padding="max_length",
                truncation=True,
                max_length=traits.context,
                return_tensors="pt",
            )
            return encoded["input_ids"]

        return ids
    if traits.model_type == "clip" and config.text_config.vocab_size == VOCABULARY:
        own = Tokenizer(traits.context, drop_markers=True)
        return lambda texts: torch.from_numpy(own.encode(texts))
    raise ModelError(
        f"{str(folder)!r} has no tokenizer that raydist reads; put the repository's tokenizer.json "
        "(for CLIP also vocab.json and merges.txt will do) beside its weights"
    )


def has_own_tokenizer(folder: Path) -> bool:
    """Whether texts are read with a tokenizer of the folder, not with CLIP's vocabulary."""
    return _tokenizer_files(folder, str(_json(folder / "config.json").get("model_type"))) is not None


def text_ids(folder: Path) -> tuple[Callable[[str], list[int]], int]:
    """The folder's own tokenizer: from a text of any length to its ids, and how many more each text has around it.

    Raises:
        ModelError: there is none.
    """
    model_type = str(_json(folder / "config.json").get("model_type"))
    tokenizer = _folder_tokenizer(folder, model_type)
    if tokenizer is None:
        raise ModelError(f"{str(folder)!r} has no tokenizer of its own")
    prepare = _preparer(folder, model_type)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(prepare(text), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    return ids, int(tokenizer.num_special_tokens_to_add())


def _preparer(folder: Path, model_type: str) -> Callable[[str], str]:
    return _canonical(folder) if model_type == "siglip" else _clip_words


def _tokenizer_files(folder: Path, model_type: str) -> tuple[str, ...] | None:
    for names, types in (("tokenizer.json",), MODEL_TYPES), (("vocab.json", "merges.txt"), ("clip",)):
        if model_type in types and all((folder / name).is_file() for name in names):
            return names
    return None


def _folder_tokenizer(folder: Path, model_type: str) -> Any:
    # split_special_tokens: a text that spells `</s>` is text.
    files = _tokenizer_files(folder, model_type)
    if files == ("tokenizer.json",):
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, split_special_tokens=True)
    if files is not None:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, split_special_tokens=True)
    return None


def _clip_words(text: str) -> str:
    return without_markers(clean(text))


def _canonical(folder: Path) -> Callable[[str], str]:
    """SigLIP's form of a text: lower case and single spaces; the first generation also drops ASCII punctuation."""
    config = folder / "tokenizer_config.json"
    first = config.is_file() and str(_json(config).get("tokenizer_class", "")).startswith("SiglipTokenizer")
    dropped = str.maketrans("", "", string.punctuation if first else "")
    return lambda text: " ".join(text.lower().translate(dropped).split())
