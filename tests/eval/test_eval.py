"""Evaluating real archives with real Ray: figures that can be computed by hand, nothing hidden, no false certainty."""

from __future__ import annotations

import csv
import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from archives import configure, fails_with, rows, scanned, videos, write_viclip

import raydist
from raydist import caption, cli, metrics, scan
from raydist import eval as stage
from raydist.config import load
from raydist.errors import ArchiveError, ModelError
from raydist.models import adapters, lora
from raydist.models.registry import load_encoder
from raydist.records import Report
from raydist.store import commit, schema
from raydist.store.pairs import captioned_clips

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
WORDS = ("ball", "dog", "house", "car", "tree", "boat", "bird", "man", "cup", "road")


def text_of(clip: int) -> str:
    return f"a {WORDS[clip % 10]} and a {WORDS[clip // 10 % 10]}, take {clip}"


def captions_of(count: int) -> dict[int, list[str]]:
    """One or two a clip; clips 2 and 3 share one, clip 4 has another's in capitals, clip 5 a hostile one."""
    found = {clip: [text_of(clip)] + ([f"again {text_of(clip)}"] if clip % 3 == 0 else []) for clip in range(count)}
    found[3].append(text_of(2))
    found[4].append(text_of(1).upper())
    found[5] = [HOSTILE]
    return found


def captioned(archive: Path, texts: Mapping[int, list[str]], splits: Mapping[int, str] | None = None) -> None:
    """Caption the first clip of each video and give the videos their splits."""
    lines = ["path,start,caption"]
    for clip, own in texts.items():
        lines.extend(f'v{clip:03}.mp4,0,"{text.replace(chr(34), 2 * chr(34))}"' for text in own)
    file = archive.parent / "captions.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    caption.run(configure(archive), caption.Request(file=str(file)))
    told = archive.parent / "splits.csv"
    lines = [f"v{clip:03}.mp4,{(splits or {}).get(clip, 'test')}" for clip in texts]
    told.write_text("\n".join(["path,split", *lines]), encoding="utf-8")
    scan.run(configure(archive), scan.Request(inputs=(), splits=str(told)))


def adapter(model: Path, folder: Path, *, spread: float = 0.3, seed: int = 1) -> Path:
    """A LoRA adapter with random B: another model, on which some queries do better and others worse."""
    encoder = load_encoder(str(model), device="cpu")
    made = lora.attach(encoder, rank=4, alpha=8, seed=seed)
    generator, state = torch.Generator().manual_seed(seed), made.state()
    for name, value in state.items():
        if "lora_B" in name:
            value.normal_(std=spread, generator=generator)
    made.load(state)
    folder.parent.mkdir(parents=True, exist_ok=True)
    adapters.write(made, folder, adapters.card_of(encoder.info, recipe={}, data={}, before={}, after={}))
    return folder


def seen(adapter: Path, name: str, keys: list[int]) -> None:
    pq.write_table(pa.table({"clip_key": pa.array(keys, pa.int64())}), adapter.parent / name)


@dataclass(frozen=True)
class Made:
    """An archive of captioned videos of a second, all in test, with a model and an adapter."""

    archive: Path
    model: Path

    def measured(self, *changes: str, adapter: str = "") -> Report:
        return stage.run(configure(self.archive, self.model, "eval.strips=2", f"embed.adapter={adapter}", *changes))


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("eval")
    model = write_viclip(top / "small")
    scanned(top / "archive", videos(top / "v", 24, seconds=0.8))
    captioned(top / "archive", captions_of(24))
    adapter(model, top / "archive" / "runs" / "wild" / "adapter")
    return Made(top / "archive", model)


@pytest.fixture(scope="module")
def base(once: Made) -> Report:
    return once.measured()


@pytest.fixture(scope="module")
def both(once: Made) -> Report:
    return once.measured(adapter="wild")


def by_hand(once: Made, folder: str | None) -> metrics.Ranks:
    """Decoded, embedded and ranked by the public calls, each different text once."""
    encoder = load_encoder(str(once.model), adapter=folder, device="cpu")
    clips = captioned_clips(str(once.archive), "test").to_pylist()
    frames = [
        raydist.decode_clip(str(once.archive.parent / "v" / Path(clip["path"]).name), 0, clip["end_s"], size=32)
        for clip in clips
    ]
    number: dict[str, int] = {}
    pairs = [
        (row, number.setdefault(text.lower(), len(number)))
        for row, clip in enumerate(clips)
        for text in clip["captions"]
    ]
    return metrics.ranks(encoder.encode_frames(np.stack(frames)), encoder.encode_text(list(number)), np.array(pairs))


@pytest.mark.parametrize("role", ["base", "adapter"])
def test_the_figures_are_those_computed_by_hand(once: Made, both: Report, role: str) -> None:
    folder = str(once.archive / "runs" / "wild" / "adapter") if role == "adapter" else None
    found = by_hand(once, folder)
    for direction in ("text_to_video", "video_to_text"):
        expected = metrics.summarise(getattr(found, direction))
        shown = both.details[role][direction]
        assert [shown[figure] for figure in metrics.FIGURES] == pytest.approx(
            [getattr(expected, figure) for figure in metrics.FIGURES], abs=1e-4
        )
        assert shown["queries"] == expected.queries


def test_captions_that_the_model_reads_alike_are_one_query(both: Report) -> None:
    texts = {text.lower() for own in captions_of(24).values() for text in own}
    assert both.counts["captions"] == both.details["captions"] == len(texts)
    assert both.details["clips"] == both.details["videos"] == 24
    assert both.details["groups"] == 22  # clips 2 and 3 share a text, and 1 and 4


def test_without_an_adapter_the_base_alone_is_measured(base: Report, both: Report) -> None:
    assert base.details["base"] == both.details["base"]
    assert not {"adapter", "difference"} & set(base.details)
    assert base.details["text_to_video"] == base.details["base"]["text_to_video"]
    assert both.details["text_to_video"] == both.details["adapter"]["text_to_video"]


def test_the_same_evaluation_gives_the_same_figures(once: Made, both: Report) -> None:
    again = once.measured(adapter="wild")
    assert again.details == both.details
    assert again.run != both.run
    other = once.measured("eval.seed=1", adapter="wild").details
    assert other["base"]["text_to_video"]["r10"] == both.details["base"]["text_to_video"]["r10"]
    assert other["base"]["text_to_video"]["interval"] != both.details["base"]["text_to_video"]["interval"]


def test_where_the_process_that_embeds_goes_another_goes_on(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    whole = once.measured("embed.batch=1")
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if not killed and process.cmdline()[:1] == ["ray::encode"]:
                        process.kill()
                        killed.append(process.pid)
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    assert once.measured("embed.batch=1").details == whole.details
    killer.join()
    assert killed
    told = " ".join(capsys.readouterr().err.split())
    assert "another goes on at clip" in told
    assert "plan: 1 encoder x 0.5 CPU, 3 threads, batches of 1, on 1 node (4 CPUs)" in told


def test_the_difference_has_an_interval_and_a_paired_test(both: Report) -> None:
    for direction in ("text_to_video", "video_to_text"):
        base, adapter, change = (both.details[role][direction] for role in ("base", "adapter", "difference"))
        for figure in metrics.FIGURES:
            assert change[figure] == pytest.approx(adapter[figure] - base[figure], abs=1e-3)
            low, high = change["interval"][figure]
            assert low <= change[figure] <= high
            assert 0 < change["p"][figure] <= 1
        assert change["better"] + change["same"] + change["worse"] == base["queries"]


def test_every_query_is_in_the_file_the_ones_that_got_worse_first(once: Made, both: Report) -> None:
    with (once.archive / "runs" / both.run / "queries.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    texts = [line for line in lines if line["direction"] == "text_to_video"]
    assert len(texts) == both.details["captions"]
    assert HOSTILE in {line["query"] for line in texts}
    (shared,) = [line for line in texts if line["query"] == text_of(2)]
    assert {name.split("#")[0] for name in shared["right"].split(" | ")} == {"v/v002.mp4", "v/v003.mp4"}
    worse = [float(line["adapter_rank"]) > float(line["base_rank"]) for line in texts]
    lost = both.details["difference"]["text_to_video"]["worse"]
    assert worse == [True] * lost + [False] * (len(texts) - lost)
    listed = both.details["got_worse"]["text_to_video"]
    assert [query["query"] for query in listed] == [line["query"] for line in texts[:lost]]
    assert lost > 0


def test_clips_that_the_adapter_was_trained_on_are_left_out_and_counted(once: Made, tmp_path: Path) -> None:
    folder = adapter(once.model, tmp_path / "run" / "adapter")
    clips = captioned_clips(str(once.archive), "test")["clip_key"].to_pylist()
    seen(folder, "trained.parquet", [*clips[:5], 123])
    seen(folder, "leaked.parquet", clips[4:7])
    found = once.measured(adapter=str(folder))
    assert (found.details["left_out"], found.details["leaked"], found.details["clips"]) == (5, 2, 17)
    assert any("5 clips" in note and "trained" in note for note in found.notes)
    seen(folder, "trained.parquet", clips)
    with fails_with(ArchiveError, "trained on all 24", "Add videos"):
        once.measured(adapter=str(folder))


def test_an_adapter_that_does_not_say_what_it_saw_is_told_of(both: Report) -> None:
    assert any("does not say which clips" in note for note in both.notes)


def test_a_model_that_gives_no_number_is_refused(once: Made, tmp_path: Path) -> None:
    folder = adapter(once.model, tmp_path / "broken", spread=float("inf"))
    with fails_with(ModelError, "small\\+broken gave NaN", "of 24 clips, such as 'v/v0"):
        once.measured(adapter=str(folder))


def test_the_page_shows_what_moved_and_runs_nothing(once: Made, both: Report) -> None:
    page = (once.archive / "runs" / both.run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "Largest losses" in page
    assert "Largest gains" in page
    assert re.search(r"rank \d+ with the base, \d+ with the adapter, of 24 clips", page)
    assert page.count('<li class="right"') >= 4
    assert "right clip: " in page
    assert "no picture" not in page
    assert all(place.startswith("data:") for place in re.findall(r"url\(([^)]*)\)", page))


def test_a_page_of_a_base_alone_shows_what_it_finds_last(once: Made, base: Report) -> None:
    page = (once.archive / "runs" / base.run / "report.html").read_text(encoding="utf-8")
    assert "Captions that find their clip last" in page
    assert "Largest" not in page


def test_few_clips_are_said_first_and_the_table_shows_all_figures(
    once: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["eval", "--archive", str(once.archive), "--model", str(once.model), "--adapter", "wild"])
    lines = capsys.readouterr().out.splitlines()
    assert re.match(
        r"Only 24 clips in the split test: with 95 % confidence R@1 .* is in \[.*\] %, and it differs", lines[0]
    )
    table = "\n".join(lines)
    assert table.count("R@1 ") >= 3
    assert re.search(r"MedR +[\d.]+ \[[\d.]+, [\d.]+\] +[\d.]+ \[.*\] +[+-][\d.]+ \[[+-].*\] +[\d.<]+ +12\.\d\n", table)
    assert re.search(r"text → video: \d+ queries rank lower than with the base", table)
    assert len(re.findall(r"^    \d[\d.]* → \d", table, re.MULTILINE)) == 10
    assert "report.html" in table


def test_json_has_the_keys_that_tools_rely_on(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["eval", "--archive", str(once.archive), "--model", str(once.model), "--adapter", "wild", "--json"])
    out = capsys.readouterr().out
    (line,) = out.splitlines()
    found = json.loads(line)
    assert list(found)[:2] == ["split", "clips"]
    assert found["split"] == "test"
    for scores in (found, found["base"], found["adapter"]):
        for direction in ("text_to_video", "video_to_text"):
            assert {"r1", "r5", "r10", "median_rank"} <= set(scores[direction])
    kept = json.loads((once.archive / "runs" / found["run"] / "report.json").read_text())
    assert kept["details"]["adapter"] == found["adapter"]


def test_python_measures_as_the_command_line_does(once: Made, base: Report) -> None:
    archive = raydist.open(str(once.archive), ["scan.clip_seconds=1", "eval.strips=0"])
    assert archive.eval(model=str(once.model)).details["base"] == base.details["base"]


def small(tmp_path: Path, texts: Mapping[int, list[str]], splits: Mapping[int, str] | None = None) -> Made:
    scanned(tmp_path / "archive", videos(tmp_path / "v", 4, seconds=0.8))
    captioned(tmp_path / "archive", texts, splits)
    return Made(tmp_path / "archive", write_viclip(tmp_path / "small"))


def test_an_archive_without_captions_says_what_to_do(tmp_path: Path) -> None:
    scanned(tmp_path / "archive", videos(tmp_path / "v", 1, seconds=0.8))
    with fails_with(ArchiveError, "no clip of the archive has a caption", "raydist caption --from"):
        Made(tmp_path / "archive", write_viclip(tmp_path / "small")).measured()


def test_a_split_that_tells_nothing_is_refused_with_the_remedy(tmp_path: Path) -> None:
    made = small(tmp_path, {0: ["one"], 1: ["One "], 2: ["two"]}, {2: "val"})
    with fails_with(ArchiveError, "all 2 clips .* 'test' have one caption, 'one'", "captions that tell them apart"):
        made.measured()
    with fails_with(ArchiveError, "'val' has 1 captioned clip", "at least 2", "--split"):
        made.measured("eval.split=val")
    with fails_with(ArchiveError, "'train' has no captioned clip", "test 2", "val 1", "raydist scan --splits"):
        made.measured("eval.split=train")
    clips = rows(made.archive, "captions")
    stale = pa.Table.from_pylist([clip | {"fingerprint": "0" * 32} for clip in clips], schema=schema.CAPTIONS)
    commit.delete(str(made.archive), "captions", "true")
    commit.append(str(made.archive), "captions", stale, schema.CAPTIONS)
    with fails_with(ArchiveError, "all 2 captions", "changed", "caption --keep"):
        made.measured()


def test_what_is_not_held_out_or_of_one_group_says_so(tmp_path: Path) -> None:
    made = small(
        tmp_path, {0: ["one", "all"], 1: ["two", "all"], 2: ["three", "all"]}, dict.fromkeys(range(3), "train")
    )
    found = made.measured("eval.split=train")
    assert any("not held out" in note for note in found.notes)
    assert any("no interval and no test" in note for note in found.notes)
    assert found.details["base"]["text_to_video"]["interval"] == dict.fromkeys(metrics.FIGURES)
    assert "nothing says how sure" in stage.render(found)
    folder = adapter(made.model, tmp_path / "run" / "adapter")
    seen(folder, "trained.parquet", captioned_clips(str(made.archive), "train")["clip_key"].to_pylist())
    assert made.measured("eval.split=train", adapter=str(folder)).details["clips"] == 3


def test_val_flatters_the_adapter_that_it_chose(tmp_path: Path) -> None:
    made = small(tmp_path, {clip: [text_of(clip)] for clip in range(3)}, dict.fromkeys(range(3), "val"))
    folder = adapter(made.model, tmp_path / "run" / "adapter")
    seen(folder, "watched.parquet", [1])
    seen(folder, "trained.parquet", [2])
    assert any("chose the adapter" in note for note in made.measured("eval.split=val", adapter=str(folder)).notes)


@pytest.mark.parametrize("cache", ["raw", "none"])
def test_a_clip_that_cannot_be_decoded_is_left_out_and_counted(tmp_path: Path, cache: str) -> None:
    made = small(tmp_path, {clip: [text_of(clip), "all"] for clip in range(4)})
    (tmp_path / "v" / "v001.mp4").unlink()
    found = made.measured(f"train.cache={cache}")
    assert found.counts == {"clips": 3, "captions": 4, "failed": 1}
    assert sum(found.failures.values()) == 1
    assert found.details["attempted"] == 4
    assert text_of(1) not in (made.archive / "runs" / found.run / "queries.csv").read_text()


def test_settings_out_of_bounds_are_refused() -> None:
    for change in ("eval.split=dev", "eval.resamples=1", "eval.strips=-1"):
        with pytest.raises(raydist.errors.ConfigError, match=change.split("=")[0]):
            load(changes=(change,), environment={})


def headline_of(**change: Any) -> str:
    found: dict[str, Any] = {
        "clips": 9,
        "split": "test",
        "base": {"model": "m", "text_to_video": {"interval": {"r1": [1.0, 2.0]}}},
    }
    return stage.shown.headline({**found, **change})


def test_the_first_line_says_whether_there_may_be_no_difference() -> None:
    adapter = {"model": "m+a", "text_to_video": {"interval": {"r1": [3.0, 9.0]}}}
    for ends, unsure in (([1.0, 2.0], False), ([-2.0, -1.0], False), ([-1.0, 2.0], True)):
        difference = {"text_to_video": {"interval": {"r1": ends}}}
        assert ("may be no difference" in headline_of(adapter=adapter, difference=difference)) == unsure
    assert headline_of().endswith("R@1 text → video of m is in [1.0, 2.0] %")
