"""The Ray actor that captions with a model of the transformers library: no server, no key.

Reads     `tables.PREPARED`, clips as frames
Gives     `tables.ANSWERED`: every clip in is one row out, a caption or a reason
Promises  a clip that the model stumbles over costs that clip; one batch that is too large for the memory is halved

A model with a chat template is asked as a hosted one is: all frames in one message, once more for fewer words where a
caption is too long for the encoder, and cut after that. A plain captioning model (BLIP, GIT, …) hears no instruction:
it captions the middle frame, once; hints and details mean nothing to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raydist.caption.asking import AskError
from raydist.caption.judge import Judged, cut, judged
from raydist.caption.prompt import Prompt
from raydist.caption.said import captions_in
from raydist.caption.tables import ANSWERED
from raydist.errors import ModelError
from raydist.models.lengths import TextLimit

if TYPE_CHECKING:
    from raydist.caption.local_models import Speaker

_PASSED_ON = ("clip_key", "clip_id", "video_id", "fingerprint", "prepare_s", "prepare_cpu_s")
_PLAIN_TOKENS = 40
"""Of the caption of a model that hears no instruction: it ends by itself, or never."""
_STUMBLES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError, AssertionError)
"""What libraries raise about one input. What is not in here, such as a full disk, ends the run."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Clip:
    """A clip on its way."""

    row: Row
    pictures: list[Any] = field(default_factory=list)
    words: str = ""
    found: Judged | None = None
    reason: str = ""
    detail: str = ""
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class LocalAsker:
    """A Ray actor: prepared clips in, captioned clips out. An actor, so that the weights are loaded once a process."""

    def __init__(self, model: str, device: str, batch: int, prompt: Prompt, limit: TextLimit, origin: str) -> None:
        """
        Args:
            model: a folder, a name below $RAYDIST_MODELS, or a hub repository.
            device: `auto`, `cpu`, `cuda`.
            batch: clips at a time.
            origin: what the rows name as the origin of their captions.
        """
        import torch

        from raydist.caption import local_models

        self._speaker: Speaker = local_models.load(local_models.find(model), device)
        if self._speaker.model.device.type == "cpu":
            torch.set_num_threads(_threads())  # Ray allows a worker one, but the model bounds the run
        self._batch = max(1, batch)
        self._prompt = prompt
        self._limit = limit
        self._origin = origin

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Caption the clips that have frames; the others keep their reason."""
        for start in range(0, table.num_rows, self._batch):
            began = time.perf_counter()
            clips = [
                _Clip(row=row, reason=row["reason"], detail=row["detail"])
                for row in table.slice(start, self._batch).to_pylist()
            ]
            self._caption(clips)
            spent = (time.perf_counter() - began) / len(clips)
            yield pa.Table.from_pylist([self._row(clip, spent) for clip in clips], ANSWERED)

    def _caption(self, clips: Sequence[_Clip]) -> None:
        for clip in clips:
            if not clip.reason:
                _open(clip)
            clip.words = self._prompt.words()
        self._ask([clip for clip in clips if not clip.reason])
        if not self._speaker.follows:
            return
        again: list[_Clip] = []
        for clip in clips:
            if clip.found is not None and clip.found.too_long and not clip.reason:
                clip.words = self._prompt.shorter(clip.found.captions)
                again.append(clip)
        first = {id(clip): clip.found for clip in again}
        self._ask(again)
        for clip in again:  # what came first is good enough where the second try brings nothing
            if clip.reason:
                clip.found, clip.reason, clip.detail = first[id(clip)], "", ""

    def _ask(self, clips: Sequence[_Clip]) -> None:
        """Fill in what the model says of each clip, or why there is nothing."""
        if not clips:
            return
        tokens = self._prompt.max_tokens if self._speaker.follows else _PLAIN_TOKENS
        try:
            spoken = self._speaker.say([clip.pictures for clip in clips], [clip.words for clip in clips], tokens)
        except _STUMBLES as error:
            if "CUDA error" in str(error):  # every computation of this process would fail from now on
                raise
            self._stumbled(clips, error)
            return
        for clip, said in zip(clips, spoken, strict=True):
            clip.requests += 1
            clip.tokens_in += said.tokens_in
            clip.tokens_out += said.tokens_out
            self._judge(clip, said.text)

    def _stumbled(self, clips: Sequence[_Clip], error: Exception) -> None:
        """Ask in two halves, so that one clip's trouble, or too large a batch, does not take the others along."""
        is_memory = any(words in str(error) for words in _OUT_OF_MEMORY)
        if is_memory:
            _free()
        if len(clips) > 1:
            half = len(clips) // 2
            self._ask(clips[:half])
            self._ask(clips[half:])
            return
        (clip,) = clips
        clip.requests += 1
        line = next(iter(str(error).strip().splitlines()), "")[:200]
        clip.reason = "too_large" if is_memory else "bad_answer"
        clip.detail = f"the model stopped at this clip: {type(error).__name__}: {line}"

    def _judge(self, clip: _Clip, text: str) -> None:
        wanted = len(self._prompt.details)
        try:
            captions: Sequence[str] = captions_in(text, wanted, plain=True) if self._speaker.follows else (text,)
        except AskError as error:
            captions = _lines(text) if error.kind == "bad_answer" else ()
            if len(captions) < wanted or not wanted > 1:
                clip.reason, clip.detail = _nothing_said(text) or (error.kind, error.detail)
                return
        if len(captions) < wanted and not self._speaker.follows:
            clip.reason = "bad_answer"
            clip.detail = f"a model without a chat template gives one caption; caption.details asks for {wanted}"
            return
        clip.found = judged(captions, wanted, self._limit)
        clip.reason, clip.detail = clip.found.reason, clip.found.detail

    def _row(self, clip: _Clip, seconds: float) -> Row:
        """A row of `ANSWERED`."""
        texts, was_cut = ((), ()) if clip.reason or clip.found is None else cut(clip.found.captions, self._limit)
        return {
            **{name: clip.row[name] for name in _PASSED_ON},
            "reason": clip.reason,
            "detail": clip.detail,
            "captions": list(texts),
            "cut": list(was_cut),
            "origin": self._origin,
            "prompt_hash": self._prompt.hash,
            "left": False,
            "requests": clip.requests,
            "tokens_in": clip.tokens_in,
            "tokens_out": clip.tokens_out,
            "cost": 0.0,
            "ask_s": seconds if clip.requests else 0.0,
        }


def require_local(model: str, device: str, captions: int = 1) -> str:
    """Look, on the driver, whether there is such a model; it is not loaded.

    Args:
        model: as for `LocalAsker`.
        device: `auto`, `cpu`, `cuda`: looked for where the model runs.
        captions: how many of a clip are asked for.

    Returns:
        The model as its workers should be told it: a folder by its absolute path, anything else as it is.

    Raises:
        ModelError: there is none, or it says nothing about pictures, or not so many captions.
    """
    from raydist.caption import local_models

    folder = local_models.find(model)
    local_models.check(folder)
    if captions > 1 and not local_models.has_template(folder):
        raise ModelError(
            f"{model!r} has no chat template: it gives one caption of a clip, and caption.details asks for {captions}; "
            "set caption.details to one, or use a chat model"
        )
    return str(folder) if Path(model).expanduser().is_dir() else model


def _open(clip: _Clip) -> None:
    """Fill in the pictures of a clip, or why there are none."""
    from raydist.caption import local_models

    if not clip.row["frames"]:
        clip.reason, clip.detail = "no_frames", "no frame of it was made ready (a local model is shown frames)"
        return
    try:
        clip.pictures = [local_models.picture(data) for data in clip.row["frames"]]
    except OSError as error:
        clip.reason, clip.detail = "no_frames", f"a frame of it is no picture: {error}"


def _lines(text: str) -> list[str]:
    """The lines of an answer that should have been JSON."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _nothing_said(text: str) -> tuple[str, str] | None:
    return None if text.strip() else ("no_caption", "the model said nothing")


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _threads() -> int:
    """All cores but one, which reads and decodes meanwhile."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)
