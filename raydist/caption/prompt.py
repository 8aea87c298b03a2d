"""What a multimodal model is asked of a clip.

Promise   the instruction's last words are the form of the answer, and what a person says of the videos stands before
          them as one quoted line, so that no hint can change the form
Again     `hash` covers all that changes what is asked: another hash is new work, the same one is not asked again

Words and tokens. The 60 captions of the clips under `realvideo` take 1.12 tokens of CLIP's vocabulary a word on
average, and 19 of 20 take at most 1.55. A caption is asked for in 5 words for 8 tokens (1.6 a word): 18 words for the
30 tokens of ViCLIP, 46 for the 75 of CLIP.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

VERSION = 1
"""Goes up with any change of the words below."""

_WORDS, _TOKENS = 5, 8
_PLAIN_WORDS = 25
_BRIEF_WORDS = 6
_FEWEST_WORDS = 2
_SHOWN_CHARACTERS = 400

_RULES = """\
You write captions for a video search engine. {shown}

Write what can be seen, in the present tense: who or what, doing what, and where. Name things by their plain words.
- Begin with the subject itself. Do not begin with "This video shows", "In this clip", "The image" or the like, and do \
not mention the frames or the clip as such.
- Say only what is visible. Do not guess names, feelings, intentions, sounds, or what happens before or after.
- Describe the clip as a whole, not one frame after another.
- No quotation marks around it, no list, no remarks."""

_HINTS = """\
The owner of the videos says of them (about the content and the choice of words; it does not change the form of the \
answer): {hints}"""

_FORM = """\
Answer with JSON and nothing else: {{"captions": [{places}]}}
"captions" has exactly {count}, in this order:
{details}"""

_SHORTER = """\
This was your answer before, and it is too long: {captions}
Write shorter captions of the same content. {form}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked of every clip of a run."""

    hints: str
    """What the owner says of the videos, in any words."""
    details: tuple[str, ...]
    """What captions a clip gets: `plain`: a sentence; `brief`: a few words; `full`: as much as fits."""
    room: int
    """Tokens that a caption may have in the text encoder."""
    send: str
    """`frames` or `clip`."""
    frames: int
    """Pictures of a clip that are shown."""

    def __post_init__(self) -> None:
        unknown = set(self.details) - {"plain", "brief", "full"}
        if unknown or not self.details:
            raise ValueError(f"details {self.details!r}: expected one or more of plain, brief, full")

    def words(self) -> str:
        """The instruction."""
        return "\n\n".join([*self._setting(), self._form(self._limits())])

    def shorter(self, captions: Sequence[str]) -> str:
        """The instruction for the one more try after captions that were too long.

        Args:
            captions: as they came.
        """
        before = json.dumps([_encodable(caption)[:_SHOWN_CHARACTERS] for caption in captions], ensure_ascii=False)
        fewer = [max(_FEWEST_WORDS, limit * 2 // 3) for limit in self._limits()]
        return "\n\n".join([*self._setting(), _SHORTER.format(captions=before, form=self._form(fewer))])

    @property
    def hash(self) -> str:
        """16 hex digits over everything that changes what is asked."""
        told = {"version": VERSION, "words": self.words(), "again": self.shorter([]), **asdict(self)}
        text = json.dumps(told, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(_encodable(text).encode(), digest_size=8).hexdigest()

    @property
    def max_tokens(self) -> int:
        """Of an answer: enough for captions that are several times too long, which can still be cut."""
        return 128 + 6 * sum(self._limits())

    def _setting(self) -> list[str]:
        if self.send == "clip":
            shown = "The video is one short clip."
        elif self.frames == 1:
            shown = "The picture is the middle of one short clip."
        else:
            shown = f"The {self.frames} pictures are frames of one short clip, in the order of time."
        hints = " ".join(_encodable(self.hints).split())
        # As a JSON string: it is one line, and whatever quotes and brackets it holds, it ends where it ends.
        quoted = [_HINTS.format(hints=json.dumps(hints, ensure_ascii=False))] if hints else []
        return [_RULES.format(shown=shown), *quoted]

    def _form(self, limits: Sequence[int]) -> str:
        count = len(self.details)
        told = [
            f"{number}. {_told(detail, limit)}"
            for number, (detail, limit) in enumerate(zip(self.details, limits, strict=True), start=1)
        ]
        return _FORM.format(
            places=", ".join(['"..."'] * count),
            count="one string" if count == 1 else f"{count} strings",
            details="\n".join(told),
        )

    def _limits(self) -> list[int]:
        """Words of each caption, at most."""
        fitting = max(_FEWEST_WORDS, self.room * _WORDS // _TOKENS)
        most = {"plain": _PLAIN_WORDS, "brief": _BRIEF_WORDS, "full": fitting}
        return [min(fitting, most[detail]) for detail in self.details]


def _told(detail: str, limit: int) -> str:
    if detail == "brief":
        return f"the subject and what it does, in at most {limit} words, without a full stop"
    if detail == "full":
        return f"as many visible details as fit in at most {limit} words: things, colours, place, light, movement"
    return f"one plain sentence of at most {limit} words"


def _encodable(text: str) -> str:
    """The text without halves of UTF-16 pairs, which no client can send."""
    return text.encode("utf-8", "replace").decode()
