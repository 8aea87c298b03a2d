"""Find the model again that made the vectors of an archive: by its key, at the names and places it was known by."""

from __future__ import annotations

from raydist.errors import ModelError
from raydist.models.encoder import ModelInfo
from raydist.models.registry import FAST, describe, is_fast, plain_name


def recall(model_key: str, *names: str) -> ModelInfo | None:
    """The first of the names or folders that is the model of that key today; None if none is.

    A folder called `tiny` and the bundled `tiny` have one name and two keys, so a name alone does not tell.

    Raises:
        ModelError: none of the names stands for a model on this machine; the message is that of the first.
    """
    problems: list[ModelError] = []
    given = [name for name in names if name]
    # The folder of a model says nothing of how it was used; its name does.
    marked = FAST if given and is_fast(given[0]) else ""
    for name in given:
        try:
            info = describe(plain_name(name) + marked)
        except ModelError as error:
            problems.append(error)
        else:
            if info.model_key == model_key:
                return info
    if problems and len(problems) == len(given):
        raise problems[0]
    return None
