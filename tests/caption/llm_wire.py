"""What the two wire formats of `llm_server` share: what came in, what goes out, and how tokens are counted.

The server's rules of counting, near those of the providers and easy to do in one's head:

- text: one token for each 4 characters, rounded up, of all text parts together
- a picture, Gemini: 258 where both edges are ≤ 384 px, else 258 for each tile of min(edge) / 1.5 px; 64 with
  `MEDIA_RESOLUTION_LOW`; from gemini-3 on 1120, and 280 with it
- a picture, OpenAI: 85 with `detail: low`, else 85 + 170 for each tile of 512 px
- a video, Gemini: 66 a second begun with `MEDIA_RESOLUTION_LOW`, else 258; no sound is counted
- an answer: one token for each 4 characters, rounded up, and the thoughts that the server was told to have
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

_COLOURS = "red blue green grey brown white black golden pale dark orange purple silver pink beige teal"
_THINGS = "dog kite tram boat child horse drone crane mower cyclist bus goat plane robot tractor swan"
_DOINGS = "crosses circles leaves enters follows passes turns climbs waits rolls jumps stops drifts runs falls rises"
_PLACES = "field street harbour bridge yard forest beach hall track park roof tunnel lake garden square quay"
_WORDS = tuple(tuple(words.split()) for words in (_COLOURS, _THINGS, _DOINGS, _PLACES))


@dataclass(slots=True, kw_only=True)
class Received:
    """One request for captions."""

    at: float
    """When its head had arrived, monotonic."""
    api: str
    """`gemini` or `openai`."""
    model: str
    key: str
    """As its header says; empty: none."""
    words: str
    images: list[bytes]
    video: bytes | None
    expected: int
    """Captions that it asks for."""
    max_tokens: int
    body: dict[str, Any] = field(repr=False)
    connection: tuple[str, int]
    """The client's end."""
    status: int = 0
    """0: never answered."""
    tokens_in: int = 0
    tokens_out: int = 0
    fault: str = ""
    attempt: int = 1
    """Which time this content is asked for."""

    @property
    def media(self) -> str:
        """A hash of the pictures or the video."""
        return media_hash(self.images, self.video)

    @property
    def content(self) -> str:
        """A hash of all that is asked."""
        return hashlib.sha256(f"{self.media}\0{self.words}".encode()).hexdigest()


@dataclass(slots=True, kw_only=True)
class Reply:
    """What goes out."""

    status: int
    body: Mapping[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    manner: str = ""
    """How: empty, at once; `slow`, `hang`, `reset`, `cut` (half of it, then the end)."""


class BadRequestError(Exception):
    """A request that the real server would refuse."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def media_hash(images: Sequence[bytes], video: bytes | None = None) -> str:
    """A hash of what is shown."""
    digest = hashlib.sha256()
    for data in [*images, *([video] if video is not None else [])]:
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def caption_of(images: Sequence[bytes], video: bytes | None = None, number: int = 0) -> str:
    """The caption that the server gives for these media unless it is told to speak otherwise."""
    digest = hashlib.sha256(f"{media_hash(images, video)}/{number}".encode()).digest()
    colour, thing, doing, place = (words[byte % 16] for words, byte in zip(_WORDS, digest[:4], strict=True))
    return f"A {colour} {thing} {doing} near the {place} by post {digest[4:7].hex()}."


def long_caption(images: Sequence[bytes], video: bytes | None = None, number: int = 0) -> str:
    """One of 60 words and more."""
    head = caption_of(images, video, number).rstrip(".")
    return head + ", while someone stands and looks at it from the side" * 5 + "."


def text_tokens(text: str) -> int:
    """Tokens of a text."""
    return math.ceil(len(text) / 4)


def gemini_image_tokens(data: bytes, model: str, low: bool) -> int:
    """Tokens of a picture, Gemini."""
    width, height = _size(data)
    if model.startswith("gemini-3"):
        return 280 if low else 1120
    if low:
        return 64
    if max(width, height) <= 384:
        return 258
    tile = max(1, math.floor(min(width, height) / 1.5))
    return 258 * math.ceil(width / tile) * math.ceil(height / tile)


def openai_image_tokens(data: bytes, detail: str) -> int:
    """Tokens of a picture, OpenAI."""
    if detail == "low":
        return 85
    width, height = _size(data)
    return 85 + 170 * math.ceil(width / 512) * math.ceil(height / 512)


def video_tokens(data: bytes, low: bool) -> int:
    """Tokens of a video, Gemini."""
    import av

    with av.open(io.BytesIO(data)) as container:
        seconds = (container.duration or 0) / av.time_base
    return max(1, math.ceil(seconds - 0.02)) * (66 if low else 258)


def _size(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.size
    except OSError as error:
        raise BadRequestError("Unable to process input image. Please retry or report.") from error
