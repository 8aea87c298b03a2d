"""The stage `train` on small archives."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import configure, fails_with, rows, scanned, videos
from runs import captioned, losses, reported, steps, trained, trained_here
from safetensors.torch import load_file, save_file
from small_models import write_viclip
from torch import Tensor

from raydist import scan
from raydist.errors import ConfigError, ResourceError, TrainError, UsageError
from raydist.models import adapters
from raydist.models.registry import load_encoder
from raydist.sections import Train
from raydist.store import read
from raydist.train import journal
from raydist.train.share import Share
from raydist.train.state import State
from raydist.train.step import Step
from raydist.train.task import STOP

pytestmark = pytest.mark.ray

MATRICES = 2 * 2 * 4 * 2
"""Of the small model's adapter: two towers of two layers, four projections, A and B."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viclip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def archive(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    return captioned(folder / "archive", folder / "videos")


class TestThroughRayTrain:
    def test_two_workers_leave_an_adapter_with_a_card_and_the_losses_of_one(self, archive: Path, model: Path) -> None:
        report = trained(archive, model, "first", "train.workers=2", "train.micro_batch=2")
        trained_here(archive, model, "alone")
        assert losses(archive, "first") == pytest.approx(losses(archive, "alone"), abs=1e-4)
        folder = archive / "runs" / "first" / "adapter"
        card = adapters.read_card(folder)
        assert card is not None
        assert card.before["text_to_video"].keys() == card.after["text_to_video"].keys()
        assert card.data["train_clips"] == report.counts["clips"]
        assert report.counts["steps"] == len(losses(archive, "first"))
        assert report.details["trained_parameters"] == MATRICES * 4 * 64
        frames = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), dtype=np.uint8)
        base, adapted = load_encoder(str(model), device="cpu"), load_encoder(str(model), str(folder), "cpu")
        assert np.abs(base.encode_frames(frames) - adapted.encode_frames(frames)).max() > 1e-4
        assert (archive / "runs" / "first" / "report.json").exists()
        with fails_with(UsageError, "'first' is finished", "another name"):
            trained(archive, model, "first")

    def test_what_cannot_be_is_refused_before_anything_is_decoded(
        self, cluster: None, model: Path, tmp_path: Path
    ) -> None:
        archive = captioned(tmp_path / "archive", tmp_path / "videos", count=1, seconds=14)
        with fails_with(ResourceError, "train.workers=50", "CPUs"):
            trained(archive, model, "many", "train.workers=50")
        with fails_with(UsageError, "'../x'", "letter"):
            trained(archive, model, "../x")
        assert not rows(archive, "signatures")
        left = {path.name for path in (archive / "runs" / "many").iterdir()}
        assert left == {"run.json"}, "how it ended is kept, and nothing else"

    def test_another_recipe_is_refused_before_decoding(self, archive: Path, model: Path) -> None:
        trained_here(archive, model, "begun")
        shutil.rmtree(archive / "runs" / "begun" / "adapter")
        before = read.table_names(str(archive))
        with fails_with(ConfigError, "cache was 'raw or none' and is 'jpeg'", "another --run"):
            trained(archive, model, "begun", "train.cache=jpeg")
        assert read.table_names(str(archive)) == before


def test_a_run_that_never_began_keeps_nothing_of_the_data(archive: Path, model: Path) -> None:
    with fails_with(ResourceError, "9 workers", "smallest batch"):
        trained_here(archive, model, "late", workers=9)
    assert not (archive / "runs" / "late").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_clips(archive: Path, model: Path) -> None:
    hot = ("train.learning_rate=1e30", "train.clip_norm=1e30", "train.eval_steps=1000")
    state = trained_here(archive, model, "hot", *hot)
    assert state.stopped == "not_finite"
    assert not (archive / "runs" / "hot" / "adapter").exists()
    with fails_with(TrainError, "NaN or infinite", rf"step {state.step}\b", "learning_rate", "#t="):
        reported(archive, model, "hot", *hot)
    with fails_with(ConfigError, r"learning_rate was 1e\+30 and is 0.001", "another --run"):
        trained_here(archive, model, "hot")


def test_a_gradient_that_is_no_number_stops_the_run_before_it_gets_into_the_weights(
    archive: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Step.gradients, []

    def overflowing(step: Step, share: Share) -> Tensor:
        loss = whole(step, share)
        calls.append(loss)
        if len(calls) == 3:
            next(p.grad for p in step._towers.parameters() if p.grad is not None)[0, 0] = math.inf
        return loss

    monkeypatch.setattr(Step, "gradients", overflowing)
    kept: list[State] = []
    state = trained_here(archive, model, "overflow", "train.checkpoint_steps=1", keep=kept.append)
    assert (state.stopped, state.step, len(calls)) == ("not_finite", 3, 3)
    assert state.culprits
    assert all(matrix.isfinite().all() for matrix in kept[-1].adapter.values())


def test_a_temperature_that_is_not_learnt_stays_the_models_own(archive: Path, tmp_path: Path) -> None:
    model = write_viclip(tmp_path / "sharp")
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, "temp": torch.tensor(0.004)}, model / "model.safetensors")
    state = trained_here(archive, model, "sharp")
    temperatures = {line["temperature"] for line in steps(archive, "sharp").values()}
    assert sorted(temperatures) == pytest.approx([0.004])
    assert state.best_temperature == pytest.approx(0.004)


def test_the_same_settings_give_the_same_losses_and_another_seed_gives_others(archive: Path, model: Path) -> None:
    trained_here(archive, model, "once")
    trained_here(archive, model, "twice")
    trained_here(archive, model, "other", "train.seed=5")
    assert losses(archive, "once") == losses(archive, "twice")
    assert losses(archive, "once") != losses(archive, "other")


def test_a_run_goes_on_from_any_checkpoint_as_if_nothing_had_been(archive: Path, model: Path) -> None:
    kept: list[State] = []
    whole = trained_here(
        archive, model, "unbroken", "train.checkpoint_steps=1", keep=lambda state: kept.append(copy.deepcopy(state))
    )
    expected = losses(archive, "unbroken")
    for step in (1, len(expected) // 2 + 1):  # the second is in the middle of an epoch
        state = next(state for state in kept if state.step == step)
        again = trained_here(archive, model, "unbroken", "train.checkpoint_steps=1", state=copy.deepcopy(state))
        assert losses(archive, "unbroken") == expected
        assert again.best == whole.best
        for name, matrix in whole.best_adapter.items():
            assert np.array_equal(matrix.numpy(), again.best_adapter[name].numpy())


def test_a_request_to_stop_saves_first_and_leaves_no_adapter(archive: Path, model: Path) -> None:
    kept: list[State] = []

    def keep(state: State) -> None:
        kept.append(copy.deepcopy(state))
        if state.step == 2:
            (archive / "runs" / "stopped" / STOP).touch()

    trained_here(archive, model, "stopped", "train.checkpoint_steps=2", keep=keep)
    assert [state.step for state in kept] == [2, 2]
    assert kept[-1].stopped == "interrupted"
    assert not (archive / "runs" / "stopped" / "adapter").exists()
    (archive / "runs" / "stopped" / STOP).unlink()
    trained_here(archive, model, "stopped", "train.checkpoint_steps=2", state=kept[-1])
    trained_here(archive, model, "not stopped", "train.checkpoint_steps=2")
    assert losses(archive, "stopped") == losses(archive, "not stopped")
    assert (archive / "runs" / "stopped" / "adapter").is_dir()


def test_training_ends_when_whole_epochs_bring_no_better_evaluation(archive: Path, model: Path) -> None:
    # A rate so small that the loss of held-out clips stays the same to the last bit, or gets worse.
    state = trained_here(archive, model, "patient", "train.epochs=30", "train.patience=2", "train.learning_rate=1e-30")
    assert state.stopped == "patience"
    epoch = sum(line["epoch"] == 0 for line in steps(archive, "patient").values())
    assert state.step == (state.best["epoch"] + 1 + 2) * epoch
    assert state.best["step"] <= state.step - 2 * epoch


def test_evaluations_come_every_so_many_steps_and_at_the_end_of_each_epoch(archive: Path, model: Path) -> None:
    state = trained_here(archive, model, "watched", "train.eval_steps=2")
    seen = [line["step"] for line in journal.entries(archive / "runs" / "watched") if "evaluation" in line]
    epoch = state.step // 2
    due = {0} | {step for step in range(1, state.step + 1) if step % 2 == 0 or step % epoch == 0}
    assert sorted(seen) == sorted(due)


def test_the_learning_rate_follows_the_schedule_and_every_step_is_recorded(archive: Path, model: Path) -> None:
    trained_here(archive, model, "curve", "train.epochs=3")
    lines = steps(archive, "curve")
    rates = [lines[step]["learning_rate"] for step in sorted(lines)]
    assert rates[-1] < max(rates) <= 1e-3
    for line in lines.values():
        assert line["gradient_norm"] > 0
        assert 0 <= line["data_wait"] <= 1
        assert math.isfinite(line["samples_per_s"])


def test_jitter_flip_and_a_learnt_temperature_train_too(archive: Path, model: Path) -> None:
    state = trained_here(
        archive, model, "augmented", "train.jitter=true", "train.flip=true", "train.learn_temperature=true"
    )
    lines = steps(archive, "augmented")
    assert lines[1]["temperature"] != lines[state.step]["temperature"]
    card = adapters.read_card(archive / "runs" / "augmented" / "adapter")
    assert card is not None
    assert card.temperature is not None


def test_frames_may_be_decoded_anew_each_epoch_or_kept_as_jpeg(archive: Path, model: Path) -> None:
    trained_here(archive, model, "kept")
    trained_here(archive, model, "anew", "train.cache=none")
    trained_here(archive, model, "small", "train.cache=jpeg")
    assert losses(archive, "anew") == losses(archive, "kept")
    assert losses(archive, "small") == pytest.approx(losses(archive, "kept"), abs=0.2)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    State(step=7, temperature=0.5, best={"loss": 1.0}, stopped="done").save(tmp_path)
    assert State.load(tmp_path) == State(step=7, temperature=0.5, best={"loss": 1.0}, stopped="done")


class TestSmallArchives:
    def test_without_captions_it_says_how_to_get_some(self, cluster: None, model: Path, tmp_path: Path) -> None:
        scanned(tmp_path / "archive", videos(tmp_path / "videos", 2))
        with fails_with(TrainError, "no clip", "raydist caption --from"):
            trained_here(tmp_path / "archive", model, "none")

    def test_one_caption_for_all_clips_tells_nothing_apart(self, cluster: None, model: Path, tmp_path: Path) -> None:
        archive = captioned(tmp_path / "archive", tmp_path / "videos", count=1, seconds=12, text="Snow")
        with fails_with(TrainError, "one caption, 'snow'", "different ones"):
            trained_here(archive, model, "same")

    def test_an_empty_split_is_an_error_before_training(self, cluster: None, model: Path, tmp_path: Path) -> None:
        archive = captioned(tmp_path / "archive", tmp_path / "videos", count=3, seconds=2)
        (tmp_path / "splits.csv").write_text("path,split\nv000.mp4,train\nv001.mp4,train\nv002.mp4,test\n")
        scan.run(configure(archive), scan.Request(splits=str(tmp_path / "splits.csv")))
        with fails_with(TrainError, "no captioned clips in val", "4 in train", "raydist scan --splits"):
            trained_here(archive, model, "empty")
        assert not (archive / "runs" / "empty" / "trained.parquet").exists()

    def test_one_long_video_is_trained_in_parts(self, cluster: None, model: Path, tmp_path: Path) -> None:
        archive = captioned(tmp_path / "archive", tmp_path / "videos", count=1, seconds=30)
        trained_here(archive, model, "long")
        assert len(losses(archive, "long")) > 2

    def test_five_videos_are_trained_in_parts(self, cluster: None, model: Path, tmp_path: Path) -> None:
        archive = captioned(tmp_path / "archive", tmp_path / "videos", count=5, seconds=14)
        assert trained_here(archive, model, "five").stopped == "done"


def test_settings_are_those_of_the_recipe() -> None:
    section = Train()
    assert (section.rank, section.alpha, section.batch, section.learning_rate) == (32, 64, 64, 1e-4)
    assert (section.epochs, section.warm_up, section.eval_steps, section.patience) == (50, 0.05, 100, 10)
