"""Results that people use, on drawn films that the bundled model knows: cut-offs, captions, filters, files, sheets."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import configure, fails_with, rows
from PIL import Image

from raydist import caption, cli, embed, load_encoder, scan, search
from raydist.demo import films
from raydist.demo.films import Film
from raydist.errors import ArchiveError, ClipError, SourceError, StoreError, UsageError
from raydist.search import Query, cutoff, page
from raydist.search.narrow import condition
from raydist.store import commit, read

COUNT = 48
ABSURD = ["a tax form", "quantum physics lecture", "my grandmother's birthday", "stock market crash", "asdf qwer"]


@dataclass(frozen=True)
class Made:
    """An archive of films with captions, and columns of the user's own."""

    archive: Path
    folder: Path
    chosen: list[Film]

    def search(self, *queries: Query, where: str | None = None, changes: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = search.run(
            configure(self.archive, "", *changes), queries, where=where
        ).to_pylist()
        return found

    def film_of(self, hit: dict[str, Any]) -> Film:
        return next(film for film in self.chosen if film.file.name == hit["video_id"].rpartition("/")[2])


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("results")
    chosen = films.choose(top / "films", COUNT)
    films.draw(chosen, processes=1)
    films.write_captions(chosen, top / "captions.csv")
    with (top / "own.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "colour", "stars"])
        lines.writerows([f"films/{film.file.name}", film.shown.colour, place] for place, film in enumerate(chosen))
    config = configure(top / "archive", "tiny", "scan.clip_seconds=30")
    scan.run(config, scan.Request(inputs=(str(top / "films"),), metadata=str(top / "own.csv")))
    embed.run(config)
    caption.run(config, caption.Request(file=str(top / "captions.csv")))
    return Made(top / "archive", top / "films", chosen)


def test_a_query_about_nothing_in_the_archive_returns_nothing(once: Made) -> None:
    hits = once.search(*(Query(words=words) for words in ABSURD), changes=("search.min_score=auto",))
    assert {hit["query"] for hit in hits} <= {ABSURD[0]}  # one of them may slip through
    assert once.search(Query(words=ABSURD[1]), changes=("search.min_score=none",))


def test_a_query_about_what_is_there_keeps_its_first_hits(once: Made) -> None:
    asked = [Query(words=film.caption) for film in once.chosen]
    every, cut = (
        once.search(*asked, changes=(f"search.top={COUNT}", f"search.min_score={value}")) for value in ("none", "auto")
    )
    first = [(hit["query"], hit["clip_id"]) for hit in every if hit["rank"] == 1]
    assert [(hit["query"], hit["clip_id"]) for hit in cut if hit["rank"] == 1] == first
    assert len(cut) < len(every)


def test_what_was_measured_is_kept_until_the_archive_has_grown(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    (key,) = read.model_keys(str(archive))
    asked = []

    def encode(texts: Any) -> np.ndarray:
        asked.append(len(texts))
        return load_encoder("tiny").encode_text(texts)

    table = f"embeddings_{key}"
    shutil.rmtree(archive / cutoff.FOLDER, ignore_errors=True)
    first = cutoff.calibrated(str(archive), table, encode, texts=True)
    assert first.words is not None
    assert first.words.captions == COUNT
    assert first.words.kept is not None
    assert first.words.kept > 0.9
    before = len(asked)
    assert cutoff.calibrated(str(archive), table, encode, texts=True) == first
    assert len(asked) == before
    commit.delete(str(archive), table, "start_s >= 0 AND split = 'train'")
    assert cutoff.calibrated(str(archive), table, encode, texts=True).rows < COUNT
    assert len(asked) > before
    (archive / cutoff.FOLDER / f"{table}.json").write_text('{"version": 1, "half')
    assert cutoff.calibrated(str(archive), table, encode, texts=True).words is not None


def test_a_cut_off_for_a_picture_or_clip_needs_no_encoder(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    shutil.rmtree(archive / cutoff.FOLDER, ignore_errors=True)
    (key,) = read.model_keys(str(archive))

    def encode(texts: Any) -> np.ndarray:
        raise AssertionError("no text was asked for")

    found = cutoff.calibrated(str(archive), f"embeddings_{key}", encode, texts=False)
    assert found.words is None
    assert found.pairs is not None
    lifts = found.floors(np.eye(1, len(found.mean), dtype=np.float32), [False])
    assert lifts == [pytest.approx(found.mean[0] + found.pairs)]


def test_the_command_line_says_that_nothing_stands_out(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["search", *ABSURD[1].split(), "--archive", str(once.archive), "--min-score", "auto"])
    out, talk = capsys.readouterr()
    assert out == "no clip matches\n"
    assert "'quantum physics lecture': nothing in the archive reaches the cut-off, 0." in talk
    with pytest.raises(SystemExit) as stopped:
        cli.main(["search", "a", "--archive", str(once.archive), "--min-score", "some"])
    assert stopped.value.code == 2
    assert "search.min_score" in capsys.readouterr().err


def test_words_of_a_caption_bring_its_clip_up(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    last = search.run(configure(archive, "", f"search.top={COUNT}"), [Query(words="xylophone")]).to_pylist()[-1]
    name = once.film_of(last).file.name
    (tmp_path / "more.csv").write_text(f"path,caption\nfilms/{name},a xylophone solo\n")
    caption.run(configure(archive), caption.Request(file=str(tmp_path / "more.csv")))
    hits = search.run(configure(archive, "", "search.hybrid=true"), [Query(words="the xylophones")]).to_pylist()
    assert hits[0]["clip_id"] == last["clip_id"]
    assert len(hits) == 10
    plain = search.run(configure(archive, ""), [Query(words="the xylophones")]).to_pylist()
    assert plain[0]["clip_id"] != last["clip_id"]
    # A caption with all the words is reason enough to pass a cut-off that hardly anything passes.
    changes = ("search.hybrid=true", "search.min_score=0.99")
    hits = search.run(configure(archive, "", *changes), [Query(words="xylophone solo")]).to_pylist()
    assert [hit["clip_id"] for hit in hits] == [last["clip_id"]]


def test_hybrid_hits_have_cosines_and_keep_within_the_filter(once: Made) -> None:
    film = once.chosen[5]
    where = f"video_id = 'films/{film.file.name}' OR stars < 3"
    hits = once.search(Query(words=film.caption), where=where, changes=("search.hybrid=true",))
    assert once.film_of(hits[0]) == film
    assert len(hits) == 4
    plain = {hit["clip_id"]: hit["score"] for hit in once.search(Query(words=film.caption), where=where)}
    assert {hit["clip_id"]: pytest.approx(hit["score"], abs=1e-5) for hit in hits} == plain


def test_a_stale_caption_finds_nothing(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    row = rows(archive, "captions")[0]
    new = read.open_table(str(archive), "captions").to_table().slice(0, 1)  # type: ignore[union-attr]
    commit.delete(str(archive), "captions", f"clip_key = {row['clip_key']}")
    changed = new.set_column(new.schema.get_field_index("fingerprint"), "fingerprint", [["0" * 32]])
    changed = changed.set_column(new.schema.get_field_index("caption"), "caption", [["a xylophone solo"]])
    commit.append(str(archive), "captions", changed, new.schema)
    config = configure(archive, "", "search.hybrid=true", "search.min_score=0.99")
    assert search.run(config, [Query(words="xylophone solo")]).num_rows == 0


def test_hybrid_search_says_what_it_needs(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    shutil.rmtree(archive / "captions.lance")
    with fails_with(ArchiveError, "no captions", "raydist caption"):
        search.run(configure(archive, "", "search.hybrid=true"), [Query(words="a dog")])
    with pytest.raises(UsageError, match="query in words"):
        once.search(Query(clip_id="films/0001.mp4#t=0,2"), changes=("search.hybrid=true",))


def test_filters_as_options_are_those_of_sql(once: Made) -> None:
    config = configure(once.archive)
    whole = {hit["video_id"] for hit in once.search(Query(words="x"), changes=("search.top=100",))}
    assert len(whole) == COUNT

    def videos(**narrow: Any) -> set[str]:
        where = condition(config, **narrow)
        return {hit["video_id"] for hit in once.search(Query(words="x"), where=where, changes=("search.top=100",))}

    assert videos(videos=["films/0003.mp4"]) == {"films/0003.mp4"}
    assert videos(videos=["0003", str(once.folder / "0007.mp4")]) == {"films/0003.mp4", "films/0007.mp4"}
    assert videos(videos=["films/000?.mp4"]) == {f"films/{number:04}.mp4" for number in range(1, 10)}
    assert videos(videos=["*1.mp4", "0002"]) == {name for name in whole if name[-5] == "1"} | {"films/0002.mp4"}
    assert videos(videos=["000?.mp4"]) == videos(videos=["films/000?.mp4"])  # from some folder on, as names do
    lengths = {row["video_id"]: row["duration_s"] for row in rows(once.archive, "clips")}
    middle = sorted(lengths.values())[COUNT // 2]
    assert videos(duration=f"{middle}-") == {name for name in whole if lengths[name] >= middle}
    assert videos(duration=f"2.1-{middle}") == {name for name in whole if 2.1 <= lengths[name] <= middle}
    splits = {row["video_id"]: row["split"] for row in rows(once.archive, "clips")}
    assert videos(split="test") == {name for name in whole if splits[name] == "test"}
    red = {f"films/{film.file.name}" for film in once.chosen if film.shown.colour == "red"}
    assert videos(where="colour = 'red'", duration="0-") == red
    with fails_with(StoreError, "closing brackets"):
        videos(where="TRUE) OR (TRUE", duration="0-")
    assert videos(where="colour = 'red' OR stars = 1", videos=["films/0002.mp4"]) == {"films/0002.mp4"}


@pytest.mark.parametrize("written", ["5", "-", "a-b", "60-5", "1-2-3", "."])
def test_a_length_that_is_none_is_told(once: Made, written: str) -> None:
    with fails_with(UsageError, "--duration", "5-60"):
        condition(configure(once.archive), duration=written)


def test_a_video_or_split_that_is_none_is_told(once: Made) -> None:
    config = configure(once.archive)
    with fails_with(UsageError, "fimls/0001.mp4", "did you mean 'films/0001.mp4'"):
        condition(config, videos=["fimls/0001.mp4"])
    with fails_with(UsageError, "nothing/\\*", "fits no video"):
        condition(config, videos=["nothing/*"])
    with fails_with(UsageError, "'tset'", "train, val, test"):
        condition(config, split="tset")


def test_a_percent_sign_or_line_in_a_pattern_is_only_itself(once: Made) -> None:
    with pytest.raises(UsageError, match="fits no video"):
        condition(configure(once.archive), videos=["films/%_01*"])


def test_a_video_from_outside_is_embedded_like_one_of_the_archive(once: Made, tmp_path: Path) -> None:
    film = once.chosen[8]
    shutil.copy(film.file, tmp_path / "elsewhere #t=1.mp4")
    hits = once.search(Query(video=str(tmp_path / "elsewhere #t=1.mp4")), changes=("search.top=2",))
    assert once.film_of(hits[0]) == film
    assert hits[0]["score"] == pytest.approx(1, abs=2e-3)
    part = once.search(Query(video=f"{film.file}#t=0.5,1.5"), changes=("search.top=1",))
    assert once.film_of(part[0]) == film
    assert part[0]["score"] < hits[0]["score"]


def test_a_video_that_is_none_is_told(once: Made, tmp_path: Path) -> None:
    with fails_with(SourceError, "nowhere.mp4"):
        once.search(Query(video=str(tmp_path / "nowhere.mp4")))
    (tmp_path / "text.mp4").write_text("no video")
    with fails_with(SourceError, "text.mp4"):
        once.search(Query(video=str(tmp_path / "text.mp4")))
    with fails_with(SourceError, "90", "no frame|after"):
        once.search(Query(video=f"{once.chosen[0].file}#t=90,100"))
    with fails_with(ClipError, "empty span"):
        once.search(Query(video=f"{once.chosen[0].file}#t=2,1"))


def test_several_pictures_clips_or_videos_are_one_call(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(film.file) for film in once.chosen[:2]]
    options = [word for file in files for word in ("--video-file", file)]
    cli.main(["search", *options, "--top", "1", "--json", "--archive", str(once.archive)])
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [hit["query"] for hit in hits] == files
    assert [once.film_of(hit) for hit in hits] == once.chosen[:2]


def test_a_sheet_shows_and_plays_the_moments(once: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.html"
    (tmp_path / "queries.txt").write_text("a red star\nquantum physics lecture\na red star\n")
    options = ["--top", "2", "--min-score", "auto", "--sheet", str(out), "--json"]
    cli.main(["search", "--queries", str(tmp_path / "queries.txt"), "--archive", str(once.archive), *options])
    captured = capsys.readouterr()
    hits = [json.loads(line) for line in captured.out.splitlines()]
    assert f"look: {out}" in captured.err
    text = out.read_text()
    assert text.count("<video") == len(hits) == 4
    for hit in hits:
        assert f'src="{Path(hit["path"]).as_uri()}#t=' in text
        assert hit["caption"] in text
    assert "Nothing in the archive reaches the cut-off" in text
    assert text.count("data:image/jpeg") >= 2 * len(hits)
    assert not any(word in text for word in ("<script", "http://", "https://www"))
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_sheet_can_be_a_picture(once: Made, tmp_path: Path) -> None:
    config = configure(once.archive, "", "search.top=3")
    asked = [Query(words="a red star"), Query(words="снег")]
    found = search.run(config, asked)
    page.write(config, [query.label for query in asked], found, str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 1280
        assert picture.height > 6 * 144
        # Strips of films on white, not an empty page.
        assert np.asarray(picture.convert("L")).std() > 40


def test_a_sheet_of_a_file_that_is_gone_says_so(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    config = configure(archive, "", "search.top=2", f"roots.films={tmp_path}")
    found = search.run(config, [Query(words="a red star")])
    file = page.write(config, ["a red star"], found, str(tmp_path / "sheet.htm"))
    assert file.read_text().count("no picture") == 2
    assert "<video" not in file.read_text()


@pytest.mark.parametrize("out", ["sheet.pdf", "sheet", "no/such/folder/sheet.html"])
def test_a_sheet_that_cannot_be_is_told_before_anything_is_searched(
    once: Made, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["search", "x", "--archive", str(once.archive), "--sheet", str(tmp_path / out)])
    assert stopped.value.code == 2
    out_text, talk = capsys.readouterr()
    assert out_text == ""
    assert "--sheet" in talk
