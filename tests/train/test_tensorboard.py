"""TensorBoard: what is written is what TensorBoard reads, once a step, also after a kill."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServedAccumulator
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util import tensor_util

from raydist.metrics import Retrieval
from raydist.sheets import letters
from raydist.train import pictures
from raydist.train.tensorboard import Board, Retrieved

STEP_TAGS = (
    "loss/train",
    "optimiser/learning_rate",
    "optimiser/temperature",
    "optimiser/gradient_norm",
    "speed/samples_per_s",
    "speed/data_wait",
)
EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), EVERYTHING)
    events.Reload()
    return events


def served(folder: Path) -> ServedAccumulator:
    """As TensorBoard's own server reads, which knows only tensors."""
    events = ServedAccumulator(str(folder), EVERYTHING)
    events.Reload()
    return events


def steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in read(folder).Scalars(tag)]


def served_steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in served(folder).Tensors(tag)]


def a_step(board: Board, step: int, loss: float = 1.0) -> None:
    board.step(
        step, loss=loss, learning_rate=1e-4, temperature=0.01, samples_per_s=40.0, data_wait=0.02, gradient_norm=0.5
    )


def found(r1: float) -> Retrieval:
    return Retrieval(r1=r1, r5=r1 + 10, r10=r1 + 20, median_rank=4.5, queries=200)


def an_evaluation(board: Board, step: int, loss: float = 2.0) -> None:
    board.evaluation(step, loss=loss, text_to_video=found(30), video_to_text=found(40))


def strip(grey: int, frames: int = 8, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((frames, height, width, 3), grey, np.uint8)


def row(caption: str = "a red ball rolls left", right: tuple[bool, ...] = (False, True, False)) -> Retrieved:
    scores = [0.3 - 0.1 * place for place in range(len(right))]
    return Retrieved(caption=caption, strips=[strip(128)] * len(right), right=right, scores=scores, rank=2)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path)
    yield board
    board.close()


def test_every_curve_has_its_values_at_its_steps(tmp_path: Path, board: Board) -> None:
    for step in (1, 2, 3):
        a_step(board, step, loss=1 / step)
    an_evaluation(board, 3)
    events = read(tmp_path)
    for tag in STEP_TAGS:
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3], tag
    assert [event.value for event in events.Scalars("loss/train")] == pytest.approx([1, 1 / 2, 1 / 3])
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    last = {tag: values[-1][1] for tag, values in shown.items() if tag not in STEP_TAGS}
    assert last == {
        "loss/val": 2.0,
        "text_to_video/top1": 30,
        "text_to_video/top5": 40,
        "text_to_video/top10": 50,
        "text_to_video/median_rank": 4.5,
        "video_to_text/top1": 40,
        "video_to_text/top5": 50,
        "video_to_text/top10": 60,
        "video_to_text/median_rank": 4.5,
    }


@pytest.mark.parametrize("reader", [steps, served_steps])
def test_a_resumed_run_shows_each_step_once(tmp_path: Path, reader: Callable[[Path, str], list[int]]) -> None:
    board = Board(tmp_path)
    board.hyper_parameters({"batch": 64})
    for step in range(1, 131):
        a_step(board, step)
        if step % 50 == 0:
            an_evaluation(board, step)
    board.close()
    for first in (101, 121):  # the second one resumes a run that was resumed
        board = Board(tmp_path, purge_step=first)
        for step in range(first, 141):
            a_step(board, step, loss=9.0)
        an_evaluation(board, 140)
        board.close()
    assert reader(tmp_path, "loss/train") == list(range(1, 141))
    assert reader(tmp_path, "loss/val") == [50, 100, 140]


def test_a_resumed_run_keeps_the_values_before_and_shows_the_new_ones_after(tmp_path: Path) -> None:
    for first, loss in ((None, 1.0), (3, 9.0)):
        board = Board(tmp_path, purge_step=first)
        for step in range(first or 1, 6):
            a_step(board, step, loss)
        board.close()
    assert [event.value for event in read(tmp_path).Scalars("loss/train")] == [1, 1, 9, 9, 9]


def test_a_new_run_hides_what_the_folder_held(tmp_path: Path) -> None:
    for last in (9, 4):
        board = Board(tmp_path)
        for step in range(1, last + 1):
            a_step(board, step)
        board.close()
    assert served_steps(tmp_path, "loss/train") == [1, 2, 3, 4]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_tensorboard import Board, a_step, an_evaluation, row
board = Board(Path(sys.argv[1]))
for step in range(1, 51):
    a_step(board, step)
an_evaluation(board, 50)
board.confirmation(50, [row()])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_after_an_evaluation_loses_nothing_up_to_it(tmp_path: Path) -> None:
    script = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(script, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == -signal.SIGKILL
    assert steps(tmp_path, "loss/train") == list(range(1, 51))
    assert steps(tmp_path, "loss/val") == [50]
    assert len(read(tmp_path).Images("confirmation/retrieved")) == 1


def test_a_record_that_a_kill_cut_short_does_not_spoil_the_resumed_run(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in range(1, 11):
        a_step(board, step)
    board.close()
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 7)
    board = Board(tmp_path, purge_step=6)
    for step in range(6, 13):
        a_step(board, step)
    board.close()
    assert served_steps(tmp_path, "loss/train") == list(range(1, 13))


def test_the_recipe_is_a_table_and_the_hyper_parameters_of_the_run(tmp_path: Path, board: Board) -> None:
    board.hyper_parameters({"model": "tiny", "train": {"batch": 64, "flip": False, "note": None}, "path": Path("a|b")})
    board.final({"top1_before": 10.0, "top1_after": 42.0})
    events = read(tmp_path)
    (text,) = events.Tensors("recipe/text_summary")
    page = tensor_util.make_ndarray(text.tensor_proto).item().decode()
    assert "| train.batch | 64 |" in page
    assert r"| path | a\|b |" in page
    content = events.SummaryMetadata(hparams.SESSION_START_INFO_TAG).plugin_data.content
    start = hparams.parse_session_start_info_plugin_data(content)
    assert start.hparams["train.batch"].number_value == 64
    assert start.hparams["train.flip"].WhichOneof("kind") == "bool_value"
    assert start.hparams["model"].string_value == "tiny"
    assert events.Scalars("result/top1_after")[0].value == 42
    assert hparams.SESSION_END_INFO_TAG in events.summary_metadata


def picture(encoded: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(np.int16)


def frames_down(page_HWC: NDArray[np.int16], colour: tuple[int, int, int]) -> list[int]:
    """Where most pixels across have about this colour: the first rows of frames' upper and lower edges."""
    near = (np.abs(page_HWC - np.array(colour)).max(axis=-1) < 40).mean(axis=1) > 0.6
    return [place for place in np.flatnonzero(near) if not near[place - 1]]


def test_the_right_strip_has_a_green_frame_and_the_wrong_ones_red(tmp_path: Path, board: Board) -> None:
    board.confirmation(7, [row(right=(False, True, False))])
    (image,) = read(tmp_path).Images("confirmation/retrieved")
    page = picture(image.encoded_image_string)
    assert (image.step, image.width, image.height) == (7, page.shape[1], page.shape[0])
    green, red = frames_down(page, pictures.RIGHT), frames_down(page, pictures.WRONG)
    assert (len(green), len(red)) == (2, 4)
    assert red[1] < green[0] < green[1] < red[2]


def test_the_strips_show_the_frames_that_were_given(board: Board) -> None:
    frames = np.stack([np.full((32, 32, 3), 30 * number, np.uint8) for number in range(8)])
    given_row = Retrieved(caption="steps of grey", strips=[frames], right=[True], scores=[0.5], rank=1)
    page = picture(pictures.retrieved([given_row]))
    upper, lower = frames_down(page, pictures.RIGHT)
    line = page[(upper + lower) // 2, :, 0]
    shown = [int(line[80 + pictures.FRAME_PX + 98 * number + 48]) for number in range(8)]
    assert shown == pytest.approx([30 * number for number in range(8)], abs=4)


@pytest.mark.parametrize("shape", [(1, 64, 64), (8, 36, 64), (16, 224, 224), (8, 64, 36), (0, 64, 64)])
def test_any_number_and_shape_of_frames_fits(shape: tuple[int, int, int]) -> None:
    count, height, width = shape
    one = Retrieved(caption="x", strips=[strip(90, count, height, width)], right=[True], scores=[0.1], rank=1)
    assert picture(pictures.retrieved([one])).shape[1] == pictures.WIDTH_PX


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_any_caption_can_be_drawn(caption: str) -> None:
    assert pictures.retrieved([row(caption)])


def test_captions_are_readable_in_full_as_text(tmp_path: Path, board: Board) -> None:
    caption = "кот | <b>猫</b> \ud800 " + "long " * 100
    board.confirmation(3, [row(caption)])
    (event,) = read(tmp_path).Tensors("confirmation/captions/text_summary")
    page = tensor_util.make_ndarray(event.tensor_proto).item().decode()
    assert r"кот \| &lt;b>猫&lt;/b> long" in page
    assert page.count("long") == 100
    assert page.endswith("| 2 |")


def test_letters_that_pillows_font_lacks_come_from_the_systems_where_it_has_them() -> None:
    has = [all(letters.has(font, letter) for letter in "кот") for font in letters.fonts(22)]
    if not any(has):
        pytest.skip("no font on this machine has Cyrillic letters")
    chosen = letters.font_for("кот", 22)
    assert all(letters.has(chosen, letter) for letter in "кот")


def test_the_heat_map_is_bright_where_pairs_are_right(tmp_path: Path, board: Board) -> None:
    similarity = np.full((40, 40), 0.1, np.float32) + 0.3 * np.eye(40, dtype=np.float32)
    board.similarity(5, similarity)
    (image,) = read(tmp_path).Images("confirmation/similarity")
    page = picture(image.encoded_image_string)
    yellow = (page[..., 0] > 200) & (page[..., 2] < 90)
    upper, left = (int(axis.min()) for axis in np.nonzero(yellow))
    side = 512 // 40
    cells = page[upper + side // 2 :: side, left + side // 2 :: side][:40, :40]
    bright = (cells[..., 0] > 200) & (cells[..., 2] < 90)
    assert (bright == np.eye(40, dtype=bool)).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 700), (700, 3), (1000, 1000)])
def test_a_heat_map_of_any_size_stays_small(shape: tuple[int, int]) -> None:
    encoded = pictures.heat_map(np.random.default_rng(0).normal(0.1, 0.1, shape))
    height, width, _ = picture(encoded).shape
    assert (height <= 620, width <= 700, len(encoded) < 100_000) == (True, True, True)


def test_a_heat_map_takes_flat_and_broken_matrices() -> None:
    flat = np.zeros((5, 5))
    broken = np.full((5, 5), np.nan)
    assert pictures.heat_map(flat)
    assert pictures.heat_map(broken)
    with pytest.raises(ValueError, match=r"\(0, 4\).*neither of them 0"):
        pictures.heat_map(np.zeros((0, 4)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_browser_shows_every_curve_and_picture(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "browser.py"
    done = subprocess.run([sys.executable, script, "--out", tmp_path], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert (seen["missing"], seen["failed"]) == ([], [])
    assert {"curves.png", "images.png"} <= {file.name for file in tmp_path.iterdir()}
