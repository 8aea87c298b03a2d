"""tensorboard: what a run shows while it learns, for `tensorboard --logdir`.

Takes    figures, metrics and frames from the loop, on rank 0 alone
Writes   event files in the run's folder: curves, hyper-parameters, strips that held-out captions retrieve, a heat map
Promise  flushed at each evaluation and every ten seconds, so that a kill loses little; a resumed run shows a step once

An evaluation's pictures take 0.3 to 0.5 MB: 6 captions with 3 strips each, a map of 256 x 256 clips. 500 take 0.2 GB.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from torch.utils.tensorboard import SummaryWriter

from raydist import metrics
from raydist.sheets.letters import cleaned
from raydist.train import pictures
from raydist.train.pictures import Retrieved

__all__ = ["Board", "Retrieved"]

_FLUSH_S = 10
_DIRECTIONS = ("text_to_video", "video_to_text")
# Charts with several curves, on the page "Custom Scalars".
_LAYOUT = {
    "learning": {"loss": ["Multiline", ["loss/train", "loss/val"]]},
    "retrieval": {
        f"{direction}: right within 1, 5, 10 (%)": ["Multiline", [f"{direction}/top{count}" for count in (1, 5, 10)]]
        for direction in _DIRECTIONS
    }
    | {"median rank": ["Multiline", [f"{direction}/median_rank" for direction in _DIRECTIONS]]},
}
_HINT = (
    "TensorBoard keeps 10 pictures of a kind unless told otherwise. To step through all evaluations: "
    "`tensorboard --logdir FOLDER --samples_per_plugin images=1000`"
)


class Board:
    """One run's event files.

    Args:
        folder: the run's own; its parent as `--logdir` shows several runs side by side.
        purge_step: for a run that goes on: the first step that will come (again); what the folder holds from it on is
            no longer shown. None: a new run, which hides whatever the folder holds.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        _wait_for_a_later_name(folder)
        # A new run also begins with a purge: TensorBoard takes a folder's first one as its beginning and drops nothing,
        # so that without it the first resume would show its steps twice.
        self._writer = SummaryWriter(str(folder), purge_step=purge_step or 0, flush_secs=_FLUSH_S)
        self._step = purge_step or 0
        if not purge_step:
            self._writer.add_custom_scalars(_LAYOUT)

    def hyper_parameters(self, values: Mapping[str, object]) -> None:
        """The run's recipe: for the page that compares runs, and as a table of its own. Groups become `group.name`."""
        flat = dict(_flat(values))
        table = _table(("setting", "value"), [(name, str(value)) for name, value in flat.items()])
        self._writer.add_text("recipe", f"{table}\n\n{_HINT}", self._step)
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for name, value in flat.items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(start.hparams[name], kind, value)
        self._session(hparams.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))
        self._writer.flush()

    def step(
        self,
        step: int,
        *,
        loss: float,
        learning_rate: float,
        temperature: float,
        samples_per_s: float,
        data_wait: float,
        gradient_norm: float,
    ) -> None:
        """A training step. `data_wait` is the share of its time, 0 to 1, in which it waited for frames."""
        self._scalars(
            step,
            {
                "loss/train": loss,
                "optimiser/learning_rate": learning_rate,
                "optimiser/temperature": temperature,
                "optimiser/gradient_norm": gradient_norm,
                "speed/samples_per_s": samples_per_s,
                "speed/data_wait": data_wait,
            },
        )

    def evaluation(
        self, step: int, *, loss: float, text_to_video: metrics.Retrieval, video_to_text: metrics.Retrieval
    ) -> None:
        """What the held-out clips gave after so many steps."""
        figures = {"loss/val": loss}
        for direction, found in zip(_DIRECTIONS, (text_to_video, video_to_text), strict=True):
            figures |= {
                f"{direction}/top1": found.r1,
                f"{direction}/top5": found.r5,
                f"{direction}/top10": found.r10,
                f"{direction}/median_rank": found.median_rank,
            }
        self._scalars(step, figures)
        self._writer.flush()

    def confirmation(self, step: int, rows: Sequence[Retrieved]) -> None:
        """The strips that held-out captions retrieve, as a picture, and the captions with their ranks as text."""
        self._picture("confirmation/retrieved", pictures.retrieved(rows), step)
        ranks = [(str(number), cleaned(row.caption), f"{row.rank:g}") for number, row in enumerate(rows, 1)]
        # In full and in any script, which a picture has no room and no letters for.
        self._writer.add_text("confirmation/captions", _table(("", "caption", "rank of its clip"), ranks), step)
        self._writer.flush()

    def similarity(self, step: int, similarity_VT: NDArray[np.floating]) -> None:
        """A heat map of clips (down) and captions (across); right pairs are the diagonal."""
        self._picture("confirmation/similarity", pictures.heat_map(similarity_VT), step)
        self._writer.flush()

    def final(self, figures: Mapping[str, float]) -> None:
        """The run is done: its last figures as `result/NAME`, also for the page that compares runs."""
        self._scalars(self._step, {f"result/{name}": value for name, value in figures.items()})
        end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
        self._session(hparams.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))
        self._writer.flush()

    def flush(self) -> None:
        """See that what was given so far is in the file."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and end; more calls do nothing."""
        self._writer.close()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._step = max(self._step, step)
        for tag, value in values.items():
            self._writer.add_scalar(tag, float(value), step)

    def _picture(self, tag: str, encoded: bytes, step: int) -> None:
        # As it is: the writer's own way makes every picture a PNG.
        width, height = Image.open(io.BytesIO(encoded)).size
        image = Summary.Image(encoded_image_string=encoded, width=width, height=height, colorspace=3)
        self._value(Summary.Value(tag=tag, image=image), step)

    def _session(self, tag: str, data: plugin_data_pb2.HParamsPluginData) -> None:
        # Not with `hparams.summary`, which wants TensorFlow, nor with the writer's `add_hparams`, which wants the last
        # figures with the first and makes a run of its own of them.
        described = hparams.create_summary_metadata(data)
        self._value(Summary.Value(tag=tag, metadata=described, tensor=hparams.NULL_TENSOR), self._step)

    def _value(self, value: Summary.Value, step: int) -> None:
        assert self._writer.file_writer is not None  # until it is closed
        self._writer.file_writer.add_summary(Summary(value=[value]), step)


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait, a second at most, so that the new file's name sorts behind the others': it is read in the order of names,
    which begin with the second in which each was made."""
    name = "events.out.tfevents."
    taken = {int(file.name.removeprefix(name).partition(".")[0]) for file in folder.glob(f"{name}[0-9]*")}
    now = time.time()
    if int(now) in taken:
        time.sleep(int(now) + 1 - now)


def _flat(values: Mapping[str, object], group: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value if isinstance(value, bool | int | float | str) else str(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown; a cell's own marks stay what they are."""
    lines = [heads, ["---"] * len(heads), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(cell: str) -> str:
    plain = cleaned(cell).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\|*_`[]#~" else letter for letter in plain)
