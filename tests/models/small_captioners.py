"""Small models that say something of pictures: folders as a user has them, with random or with made weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

SIZE_PX = 32
_SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")
_PLAIN = (
    "a dog cat man woman ball tree car runs jumps sleeps stands on under near the grass street house red blue green old"
)
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TOWER, "image_size": SIZE_PX, "patch_size": 8}
_IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}


def write_blip(folder: Path, seed: int = 0) -> Path:
    """A BLIP for captions."""
    tokenizer = _tokenizer(_PLAIN.split())
    text = {**_TOWER, **_IDS, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "sep_token_id": 3}
    config = BlipConfig(text_config={**text, "initializer_range": 1.0}, vision_config=_VISION, projection_dim=16)
    torch.manual_seed(seed)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=_square()), tokenizer).save_pretrained(folder)
    return folder


def write_git(folder: Path, seed: int = 0) -> Path:
    """A GIT, whose captions follow the picture."""
    tokenizer = _tokenizer(_PLAIN.split())
    config = GitConfig(
        vision_config=_VISION,
        vocab_size=len(tokenizer),
        initializer_range=1.0,
        max_position_embeddings=64,
        **_TOWER,
        **_IDS,
    )
    torch.manual_seed(seed)
    GitForCausalLM(config).save_pretrained(folder)
    GitProcessor(CLIPImageProcessor(size={"shortest_edge": SIZE_PX}, crop_size=_square()), tokenizer).save_pretrained(
        folder
    )
    return folder


def write_pair(folder: Path, seed: int = 0) -> Path:
    """A vision encoder with a text decoder: no processor of its own, and no weights of its pooler."""
    tokenizer = _tokenizer(_PLAIN.split())
    decoder = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=1.0, **_IDS
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**_VISION), decoder)
    config.decoder_start_token_id, config.pad_token_id = 2, 1
    torch.manual_seed(seed)
    model = VisionEncoderDecoderModel(config=config)
    kept = {name: tensor for name, tensor in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(folder, state_dict=kept)
    ViTImageProcessor(size=_square()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_llava(folder: Path, says: str, says_shorter: str = "") -> Path:
    """A LLaVA that says one text, and another one where it is asked for a shorter one.

    Each word it says is the one that follows the word before, so no word may come twice in what it says.
    """
    ways = [("<long>", says), ("<short>", says_shorter or says)]
    words = [*_PLAIN.split(), *says.split(), *says_shorter.split(), *(start for start, _ in ways)]
    tokenizer = _tokenizer(words, ["<image>"], _template("<image>"))
    size = -(-len(tokenizer) // 4) * 4
    text = {
        **_TOWER,
        **_IDS,
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": size,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    }
    config = LlavaConfig(
        vision_config={**_VISION, "model_type": "clip_vision_model", "projection_dim": 16},
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    _teach(model, tokenizer, ways)
    model.save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIZE_PX}, crop_size=_square()),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    return folder


def write_qwen(folder: Path, seed: int = 0) -> Path:
    """A Qwen2-VL: its processor has a part for videos, which asks for torchvision."""
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(_PLAIN.split(), marks, _template("<|vision_start|><|image_pad|><|vision_end|>"))
    start, end, image, video = tokenizer.convert_tokens_to_ids(marks)
    text = {
        **_TOWER,
        **_IDS,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    vision = {"embed_dim": 32, "hidden_size": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    torch.manual_seed(seed)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    fields = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "patch_size": 8,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 256,
        "max_pixels": 1024,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return folder


def _teach(model: Any, tokenizer: Any, ways: Sequence[tuple[str, str]]) -> None:
    """Make a model say what it should: a layer that passes words on as they are, and a table of what follows each."""
    inner, head = model.model.language_model, model.lm_head
    with torch.no_grad():
        for layer in inner.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        inner.embed_tokens.weight.copy_(torch.eye(*inner.embed_tokens.weight.shape))
        head.weight.zero_()
        for start, text in ways:
            chain = [start, *text.split(), "</s>"]
            if len(set(chain)) < len(chain):
                raise ValueError(f"a word comes twice in {text!r}")
            ids = tokenizer.convert_tokens_to_ids(chain)
            for word, follower in pairwise(ids):
                head.weight[follower, word] = 10.0


def _template(image: str) -> str:
    """A chat template that tells, by its last word, whether something shorter is asked for."""
    return (
        "{% for message in messages %}<s>{% for part in message.content %}{% if part.type == 'image' %}"
        + image
        + "{% else %} {{ part.text }}{% endif %}{% endfor %}"
        "{% if 'shorter' in message.content[-1].text %} <short>{% else %} <long>{% endif %}{% endfor %}"
    )


def _tokenizer(words: Sequence[str], marks: Sequence[str] = (), template: str | None = None) -> Any:
    """Whole words; what it does not know is `<unk>`."""
    every = list(dict.fromkeys([*_SPECIAL, *marks, *words]))
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(every)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(marks),
        chat_template=template,
    )


def _square() -> dict[str, int]:
    return {"height": SIZE_PX, "width": SIZE_PX}
