"""Image-text-to-text models of the transformers library: a folder -> something that says a text about pictures.

Reads     a folder as the hub or `save_pretrained` gives it: config.json, *.safetensors, the files of its processor and
          tokenizer, a chat template (which transformers runs in a sandbox); code that ships in it is never executed,
          pickled weights are never opened
Two kinds A model with a chat template is shown all frames of a clip in one message and follows the instruction. A plain
          captioning model (BLIP, BLIP-2, GIT, a vision encoder with a text decoder) has no ear for instructions: it
          captions the middle frame in its own way

transformers reads videos with torchvision, and many chat models load with their part for videos or not at all. Here
they are shown pictures only, so where torchvision is missing that part is left out.
"""

# Shape legend: B clips, L tokens

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from raydist.errors import ModelError
from raydist.models import hub, registry
from raydist.models.encoder import pick_device, pick_dtype

_LARGEST_PIXELS = 64 << 20
"""Of a picture; those that a run makes are far smaller."""
_NOT_NEEDED = "pooler"
"""Tensors that a vision encoder has and a captioning model does not use: published weights may lack them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What a model said of one clip."""

    text: str
    tokens_in: int
    tokens_out: int


class Speaker(ABC):
    """A model on a device."""

    follows: bool
    """Whether it does what an instruction says."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.folder = folder
        self.model = model

    @abstractmethod
    def say(self, clips: Sequence[Sequence[Image.Image]], words: Sequence[str], max_tokens: int) -> list[Spoken]:
        """Say something of each clip.

        Args:
            clips: frames of each, in the order of time.
            words: the instruction for each.
            max_tokens: of an answer.
        """

    def _generated(self, inputs: Any, max_tokens: int) -> torch.Tensor:
        """Tokens of the answers [B, L], without those of the question."""
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            ids_BL: torch.Tensor = self.model.generate(
                **inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1
            )
        asked = inputs.get("input_ids")
        if asked is None or self.model.config.is_encoder_decoder:
            return ids_BL
        # Some models give the question again, some only what is new.
        again = ids_BL.shape[1] >= asked.shape[1] and bool((ids_BL[:, : asked.shape[1]] == asked).all())
        return ids_BL[:, asked.shape[1] :] if again else ids_BL


class ChatModel(Speaker):
    """A model that is asked in a conversation: all frames as pictures of one message."""

    follows = True

    def __init__(self, folder: Path, model: Any, processor: Any) -> None:
        super().__init__(folder, model)
        self._processor = processor
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # an answer is the continuation of what is on the right
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        self._marks = sorted({*tokenizer.all_special_tokens, *added} - {""}, key=len, reverse=True)
        if getattr(processor.image_processor, "do_image_splitting", False):
            # Tiles of each of eight small frames would be a hundred pictures.
            processor.image_processor.do_image_splitting = False

    def say(self, clips: Sequence[Sequence[Image.Image]], words: Sequence[str], max_tokens: int) -> list[Spoken]:
        conversations = [
            [{"role": "user", "content": [*map(_picture, frames), {"type": "text", "text": self._harmless(text)}]}]
            for frames, text in zip(clips, words, strict=True)
        ]
        inputs = self._processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
            enable_thinking=False,  # a variable of some templates: thoughts would use up the tokens of the answer
        )
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        return _spoken(self._processor.tokenizer, self._generated(inputs, max_tokens), asked)

    def _harmless(self, text: str) -> str:
        """The text without the model's own marks, so that no hint can end the message or announce a picture."""
        for mark in self._marks:
            text = text.replace(mark, " ")
        return text


class PlainModel(Speaker):
    """A captioning model: the middle frame in, its caption out; what is asked for is not heard."""

    follows = False

    def __init__(self, folder: Path, model: Any, image_processor: Any, tokenizer: Any) -> None:
        super().__init__(folder, model)
        self._image_processor = image_processor
        self._tokenizer = tokenizer

    def say(self, clips: Sequence[Sequence[Image.Image]], words: Sequence[str], max_tokens: int) -> list[Spoken]:
        middles = [frames[len(frames) // 2] for frames in clips]
        inputs = self._image_processor(images=middles, return_tensors="pt")
        return _spoken(self._tokenizer, self._generated(inputs, max_tokens), [0] * len(clips))


def find(model: str) -> Path:
    """The folder of a model, downloaded where need be.

    Args:
        model: a folder, a name below $RAYDIST_MODELS, or a hub repository `owner/name`.

    Raises:
        ModelError: there is none, it is not here and cannot be fetched, or it holds no safetensors.
    """
    if not model.strip():
        raise ModelError("no local model named: expected a folder or a hub repository with --model")
    path, kept = Path(model).expanduser(), registry.models_home() / model
    if path.is_dir():
        folder = path.absolute()
    elif kept.is_dir() and ".." not in Path(model).parts:
        folder = kept
    elif hub.is_repository(model) and not path.exists():
        folder = hub.fetch(model, registry.models_home() / model.rpartition("/")[2])
    else:
        raise ModelError(
            f"no local model {model!r}: expected a folder, the name of one below {str(registry.models_home())!r}, or a "
            "hub repository `owner/name`"
        )
    registry.weights_types(folder)
    return folder


def check(folder: Path) -> None:
    """Look whether a folder holds a model that can say something of pictures, without loading its weights.

    Raises:
        ModelError: it does not, or its processor cannot be loaded here.
    """
    _model_type(folder)
    _quiet()
    _processor(folder)


def has_template(folder: Path) -> bool:
    """Whether a folder has a chat template, by its files."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return any(
        _fields(folder / name).get("chat_template") for name in ("tokenizer_config.json", "processor_config.json")
    )


def load(folder: Path, device: str) -> Speaker:
    """Load a model: in bfloat16 on a GPU that has it, else in float32.

    Raises:
        ModelError: another kind of model, weights that are incomplete, or a library that it needs is missing.
        ResourceError: no such device.
    """
    target = pick_device(device)
    _model_type(folder)
    model = _loaded(folder, pick_dtype(target)).eval().to(target)
    processor = _processor(folder)
    if _has_template(processor):
        return ChatModel(folder, model, processor)
    image_processor = getattr(processor, "image_processor", None) or _part(folder, "AutoImageProcessor")
    tokenizer = getattr(processor, "tokenizer", None) or _part(folder, "AutoTokenizer")
    return PlainModel(folder, model, image_processor, tokenizer)


def picture(data: bytes) -> Image.Image:
    """A frame's pixels.

    Raises:
        OSError: it is damaged, or no picture.
    """
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    if image.width * image.height > _LARGEST_PIXELS:
        raise OSError(f"a picture of {image.width} x {image.height} pixels")
    return image.convert("RGB")


def _model_type(folder: Path) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CAPTIONING

    fields = _fields(folder / "config.json")
    model_type = str(fields.get("model_type", ""))
    if model_type not in CAPTIONING:
        own = " It brings code of its own, which raydist never runs." if "auto_map" in fields else ""
        raise ModelError(
            f"{str(folder)!r} holds a model of type {model_type!r}; expected one that says a text about pictures, such "
            f"as {', '.join(kind for kind in ('blip', 'git', 'llava', 'qwen2_5_vl') if kind in CAPTIONING)}.{own}"
        )
    return model_type


def _fields(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(file)!r} cannot be read ({error}); download it again") from error
    return fields if isinstance(fields, dict) else {}


def _loaded(folder: Path, dtype: torch.dtype) -> Any:
    transformers = _transformers()
    _quiet()
    try:
        model, loading = transformers.AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except ImportError as error:
        raise _missing_library(folder, error) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"the model in {str(folder)!r} cannot be loaded ({_first_line(error)})") from error
    # transformers draws missing weights at random and only warns.
    names = {*loading["missing_keys"], *(str(key) for key in loading["mismatched_keys"])}
    missing = sorted(name for name in names if _NOT_NEEDED not in name)
    if missing:
        raise ModelError(
            f"{len(missing)} tensors of {str(folder)!r} are missing or of another shape than config.json says "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}); download it again"
        )
    return model


def _processor(folder: Path) -> Any:
    """What makes a model's inputs: of pictures and words, or of words alone where the folder has nothing more."""
    try:
        return _transformers().AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        processor = _for_pictures_only(folder)
        if processor is None:
            raise _missing_library(folder, error) from error
        return processor
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the processor of {str(folder)!r} cannot be loaded ({_first_line(error)}); it needs the *.json files "
            "and the chat template of the repository beside the weights"
        ) from error


def _for_pictures_only(folder: Path) -> Any:
    """A processor without its part for videos; None where that is not what keeps it from loading."""
    transformers = _transformers()
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind: Any = transformers.models.auto.processing_auto.PROCESSOR_MAPPING.get(type(config), None)
    if kind is None or "video_processor" not in kind.get_attributes():
        return None

    class PicturesOnly(kind):  # type: ignore[misc]  # a class that is known at run time
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor" and argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    parts = {
        "image_processor": _part(folder, "AutoImageProcessor"),
        "tokenizer": _part(folder, "AutoTokenizer"),
        "video_processor": None,
    }
    fields, _ = kind.get_processor_dict(folder, local_files_only=True)
    try:
        return PicturesOnly.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], fields)
    except ImportError as error:
        raise _missing_library(folder, error) from error


def _part(folder: Path, kind: str) -> Any:
    try:
        return getattr(_transformers(), kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise _missing_library(folder, error) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = "image processor" if kind == "AutoImageProcessor" else "tokenizer"
        raise ModelError(
            f"the {what} of {str(folder)!r} cannot be loaded ({_first_line(error)}); its files belong beside the "
            "weights"
        ) from error


def _quiet() -> None:
    """Progress bars, tables of keys and advice, from each worker, would bury what raydist says."""
    logging = _transformers().utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _transformers() -> Any:
    import transformers  # takes seconds; what its lazy modules hold is untyped
    import transformers.models.auto.processing_auto

    return transformers


def _has_template(processor: Any) -> bool:
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        return False
    return bool(getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None))


def _picture(image: Image.Image) -> dict[str, Any]:
    return {"type": "image", "image": image}


def _spoken(tokenizer: Any, ids_BL: torch.Tensor, asked: Sequence[int]) -> list[Spoken]:
    texts = tokenizer.batch_decode(ids_BL, skip_special_tokens=True)
    ends = {tokenizer.pad_token_id, tokenizer.eos_token_id}
    return [
        Spoken(text=text, tokens_in=count, tokens_out=sum(token not in ends for token in ids))
        for text, ids, count in zip(texts, ids_BL.tolist(), asked, strict=True)
    ]


def _missing_library(folder: Path, error: ImportError) -> ModelError:
    return ModelError(f"the model in {str(folder)!r} needs a library that is not installed: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
