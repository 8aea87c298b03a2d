"""The demo as a person runs it, on a few clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raydist import demo
from raydist.config import Config, load
from raydist.demo import hits
from raydist.demo.films import Counts, Film
from raydist.demo.words import Combination
from raydist.errors import UsageError
from raydist.store import models, read, schema, tables

CLIPS = 16


def config_of(archive: Path) -> Config:
    return load(options={"archive": str(archive)}, environment={}).config


@dataclass(frozen=True)
class Ran:
    archive: Path
    outcome: dict[str, Any]
    said: list[str]


@pytest.fixture(scope="module")
def ran(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    archive = tmp_path_factory.mktemp("demo") / "demo-archive"
    said: list[str] = []
    return Ran(archive, demo.run(config_of(archive), clips=CLIPS, say=said.append), said)


@pytest.mark.ray
def test_the_demo_leaves_videos_truth_sheet_and_archive_behind(ran: Ran) -> None:
    assert len(list(Path(ran.outcome["videos"]).glob("*.mp4"))) == CLIPS
    assert (ran.archive / "demo" / "captions.csv").read_text(encoding="utf-8").count("\n") == CLIPS + 1
    page = Path(ran.outcome["sheet"]).read_text(encoding="utf-8")
    assert page.count("<li") >= CLIPS
    assert "no picture" not in page


@pytest.mark.ray
def test_the_demo_beats_chance_and_says_by_how_much(ran: Ran) -> None:
    assert ran.outcome["top1"] > 3 * ran.outcome["chance1"]
    assert ran.outcome["top5"] > ran.outcome["top1"]
    (line,) = [line for line in ran.said if line.startswith("accuracy")]
    assert f"top-1 {ran.outcome['top1']:.1%}" in line
    assert "chance" in line


@pytest.mark.ray
def test_the_demo_trains_an_adapter_and_says_what_it_is_worth(ran: Ran) -> None:
    assert (Path(ran.outcome["adapter"]) / "adapter_model.safetensors").is_file()
    assert Path(ran.outcome["report"]).is_file()
    assert ran.outcome["films"] == Counts.for_clips(CLIPS).test
    (line,) = [line for line in ran.said if line.startswith("eval: R@1")]
    assert f"{ran.outcome['r1_before']:.1f} % -> {ran.outcome['r1_after']:.1f} %" in line
    assert any(line.startswith("kept: the clips from before") for line in ran.said)


@pytest.mark.ray
def test_the_demo_embeds_all_its_clips_with_the_adapter(ran: Ran) -> None:
    adapted = [model for model in models.stored(str(ran.archive)) if model.name == "tiny+reels"]
    (table,) = [schema.embeddings_table(model.model_key) for model in adapted]
    assert read.count_rows(str(ran.archive), table) == CLIPS + Counts.for_clips(CLIPS).every


@pytest.mark.ray
def test_the_demo_says_what_to_try_next(ran: Ran) -> None:
    assert any("raydist search" in line for line in ran.said)
    assert any("raydist scan" in line for line in ran.said)


@pytest.mark.ray
def test_the_demo_runs_again_on_what_it_left(ran: Ran) -> None:
    said: list[str] = []
    again = demo.run(config_of(ran.archive), clips=CLIPS, say=said.append)
    assert (again["top1"], again["top5"]) == (ran.outcome["top1"], ran.outcome["top5"])
    assert said[0].startswith("draw: 0 new videos")
    assert (again["r1_before"], again["r1_after"]) == (ran.outcome["r1_before"], ran.outcome["r1_after"])
    assert "train: the adapter 'reels' is there" in said


def test_the_demo_stays_out_of_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and no demo's"):
        demo.run(config_of(tmp_path), clips=4, say=lambda line: None)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_demo_refuses_what_another_version_of_it_left(tmp_path: Path) -> None:
    """Its `tiny` had other weights: the two would not compare, and the name would stand for both."""
    (tmp_path / "demo").mkdir()
    columns = models.marked(schema.embeddings(2), "tiny", "elsewhere")
    tables.create_table(str(tmp_path), schema.embeddings_table("tiny_00000000"), columns)
    with pytest.raises(UsageError, match=r"another version of the demo.*delete that folder"):
        demo.run(config_of(tmp_path), clips=4, say=lambda line: None)


def test_a_clip_shows_what_was_asked_for_only_if_everything_fits() -> None:
    shown = Combination(object="star", colour="red", motion="rise", scene="hills")
    assert hits.shows(shown, {"object": "star", "colour": "red"})
    assert not hits.shows(shown, {"object": "star", "colour": "blue"})


def test_accuracy_counts_a_film_that_is_not_found_as_wrong() -> None:
    films = [
        Film(
            file=Path(f"{number}.mp4"),
            seed=1,
            shown=Combination(object=thing, colour="red", motion="rise", scene="hills"),
        )
        for number, thing in enumerate(("star", "ball", "heart"))
    ]
    found = [hits.Found(film=film, clip_id="", score=1.0, start_s=0, end_s=2) for film in films]
    accuracy = hits.measure(
        films,
        {films[0].caption: [found[0]], films[1].caption: [found[0], found[1]], films[2].caption: [found[0]]},
    )
    assert (accuracy.top1, accuracy.top5) == (1 / 3, 2 / 3)
