"""Searching a real archive: by words, a picture, a clip, vectors and files; exact, never stale, never short."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from archives import configure, embeddings, fails_with, made, rows, scanned, videos, write_viclip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from raydist import cli, load_encoder, search
from raydist.clips.decode import decode_clip
from raydist.clips.naming import clip_key
from raydist.errors import ArchiveError, ClipError, SourceError, StoreError, UsageError
from raydist.search import Query
from raydist.store import commit, schema

KEYS = ["rank", "score", "clip_id", "video_id", "path", "start_s", "end_s", "caption"]
DIM = 32


@dataclass(frozen=True)
class Made:
    """An archive that was embedded with one model."""

    folder: Path
    archive: Path
    model: Path

    def search(self, *queries: Query, where: str | None = None, top: int = 10, model: str = "") -> list[dict[str, Any]]:
        return run(self.archive, *queries, where=where, top=top, model=model)


def run(
    archive: Path, *queries: Query, where: str | None = None, top: int = 10, model: str = ""
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = search.run(
        configure(archive, model, f"search.top={top}", "search.moment_s=0"), queries, where=where
    ).to_pylist()
    return found


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("search")
    model = write_viclip(top / "small")
    folder = videos(top / "v", 6)
    scanned(top / "archive", folder)
    made(top / "archive", model)
    clip = rows(top / "archive", "clips")[0]
    caption = {column: clip.get(column) for column in schema.CAPTIONS.names} | {"number": 0, "caption": "a drawing"}
    later = caption | {"number": 1, "caption": "a second caption"}
    stale = caption | {"clip_key": rows(top / "archive", "clips")[1]["clip_key"], "caption": "of an earlier content"}
    table = pa.Table.from_pylist([later, caption, stale | {"fingerprint": "0" * 32}], schema=schema.CAPTIONS)
    commit.append(str(top / "archive"), "captions", table, schema.CAPTIONS)
    return Made(folder, top / "archive", model)


def ranking(archive: Path, query: NDArray[np.float32]) -> list[tuple[str, float]]:
    """Clips by score, the plain way; equal scores in the order of their keys."""
    found = embeddings(archive).values()
    scores = [
        (row["clip_id"], float(np.dot(np.array(row["vector"], np.float32), query)), row["clip_key"]) for row in found
    ]
    return [(name, score) for name, score, _ in sorted(scores, key=lambda item: (-item[1], item[2]))]


def test_words_rank_all_clips_as_brute_force_does(once: Made) -> None:
    query = load_encoder(str(once.model)).encode_text(["a red square"])[0]
    hits = once.search(Query(words="a red square"), top=100)
    expected = ranking(once.archive, query)
    assert [hit["rank"] for hit in hits] == list(range(1, 19))
    np.testing.assert_allclose([hit["score"] for hit in hits], [score for _, score in expected], atol=1e-5)
    assert hits[0]["clip_id"] == expected[0][0]


def test_hits_say_where_the_moment_is(once: Made) -> None:
    for hit in once.search(Query(words="anything"), top=18):
        name, _, times = hit["clip_id"].rpartition("#t=")
        assert hit["video_id"] == name
        assert (hit["start_s"], hit["end_s"]) == tuple(map(float, times.split(",")))
        assert Path(hit["path"]) == once.folder.resolve() / name.removeprefix("v/")


def test_the_first_caption_of_the_present_content_is_shown(once: Made) -> None:
    first = rows(once.archive, "clips")[0]["clip_id"]
    captions = {hit["clip_id"]: hit["caption"] for hit in once.search(Query(words="anything"), top=18)}
    assert captions.pop(first) == "a drawing"
    assert set(captions.values()) == {None}


def test_top_limits_the_hits(once: Made) -> None:
    assert len(once.search(Query(words="anything"), top=4)) == 4
    assert len(once.search(Query(words="anything"), top=400)) == 18


def test_a_clip_finds_itself_nowhere_and_its_neighbours_first(once: Made) -> None:
    name = "v/v002.mp4#t=1,2"
    hits = once.search(Query(clip_id=name), top=18)
    assert len(hits) == 17
    assert name not in {hit["clip_id"] for hit in hits}
    vector = np.array(embeddings(once.archive)[name]["vector"], np.float32)
    assert hits[0]["clip_id"] == next(other for other, _ in ranking(once.archive, vector) if other != name)


def test_a_picture_is_a_clip_that_stands_still(once: Made, tmp_path: Path) -> None:
    picture = decode_clip(once.folder / "v003.mp4", 0, 1, size=None)[0]
    Image.fromarray(picture).save(tmp_path / "still.png")
    hits = once.search(Query(image=str(tmp_path / "still.png")), top=18)
    still = decode_clip(once.folder / "v003.mp4", 0, 1, size=32)[0]
    vector = load_encoder(str(once.model)).encode_frames(np.repeat(still[None], 8, axis=0)[None])[0]
    expected = ranking(once.archive, vector)
    np.testing.assert_allclose([hit["score"] for hit in hits], [score for _, score in expected], atol=1e-4)


def test_a_picture_that_is_none_is_told(once: Made, tmp_path: Path) -> None:
    with fails_with(SourceError, "nowhere.png", "does not exist"):
        once.search(Query(image=str(tmp_path / "nowhere.png")))
    (tmp_path / "text.png").write_text("no picture")
    with fails_with(SourceError, "text.png", "no picture"):
        once.search(Query(image=str(tmp_path / "text.png")))


def test_a_clip_that_is_none_is_told(once: Made) -> None:
    with fails_with(ClipError, "v/v009.mp4#t=0,1", "raydist search"):
        once.search(Query(clip_id="v/v009.mp4#t=0,1"))
    with pytest.raises(ClipError, match="nonsense"):
        once.search(Query(clip_id="nonsense"))


def test_where_keeps_only_what_it_allows(once: Made) -> None:
    hits = once.search(Query(words="anything"), where="video_id = 'v/v001.mp4' and start_s >= 1")
    assert sorted(hit["clip_id"] for hit in hits) == ["v/v001.mp4#t=1,2", "v/v001.mp4#t=2,3"]
    name = "v/v001.mp4#t=1,2"
    hits = once.search(Query(clip_id=name), where="video_id = 'v/v001.mp4' or video_id = 'v/v002.mp4'")
    assert len(hits) == 5
    assert name not in {hit["clip_id"] for hit in hits}
    assert once.search(Query(words="anything"), where="start_s > 100") == []


@pytest.mark.parametrize("where", ["speed > 3", "split = ", "1; drop table", "'a' > start_s and"])
def test_a_bad_condition_lists_the_columns(once: Made, where: str) -> None:
    with fails_with(StoreError, "columns", "video_id", "start_s", "split"):
        once.search(Query(words="anything"), where=where)


def test_empty_words_are_refused(once: Made) -> None:
    with pytest.raises(UsageError, match="empty query"):
        once.search(Query(words="  "))


def test_vectors_of_another_width_are_refused(once: Made) -> None:
    with fails_with(StoreError, "32-d", "7"):
        once.search(Query(vector=np.ones(7, np.float32)))
    for queries in ([Query(vector=np.ones(7))], [Query(vector=np.ones(DIM)), Query(vector=np.ones(7))]):
        with fails_with(StoreError, "32-d", "7"):  # with moments, too, and among others
            search.run(configure(once.archive, ""), queries)
    for bad in (np.zeros(DIM), np.full(DIM, np.nan), np.ones((2, DIM))):
        with pytest.raises(UsageError, match="query vector"):
            once.search(Query(vector=bad))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), top=st.integers(1, 25), scale=st.floats(1e-3, 1e3))
def test_any_vector_ranks_as_brute_force_does(once: Made, seed: int, top: int, scale: float) -> None:
    query = np.random.default_rng(seed).normal(size=DIM)
    hits = once.search(Query(vector=query * scale), top=top)
    expected = ranking(once.archive, (query / np.linalg.norm(query)).astype(np.float32))[:top]
    np.testing.assert_allclose([hit["score"] for hit in hits], [score for _, score in expected], atol=1e-5)
    assert [hit["clip_id"] for hit in hits] == [name for name, _ in expected]


def test_many_queries_are_answered_one_after_the_other(once: Made) -> None:
    alone = [once.search(Query(words=words), top=3) for words in ("one thing", "another")]
    name = "v/v002.mp4#t=1,2"
    together = once.search(Query(words="one thing"), Query(clip_id=name), Query(words="another"), top=3)
    assert [hit["query"] for hit in together] == ["one thing"] * 3 + [name] * 3 + ["another"] * 3
    for found, expected in ((together[:3], alone[0]), (together[6:], alone[1])):
        # Some processors round a text's vector otherwise in a batch of another size.
        assert found == [{**hit, "score": pytest.approx(hit["score"], abs=1e-6)} for hit in expected]


def test_json_has_exactly_the_keys_that_tools_rely_on(
    once: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["search", "a", "thing", "--archive", str(once.archive), "--json", "--top", "3"])
    out, talk = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [list(line) for line in lines] == [KEYS] * 3
    assert talk == ""
    (tmp_path / "queries.txt").write_text("\ufeffone thing\n\n  another \n", encoding="utf-8")
    cli.main(
        ["search", "--queries", str(tmp_path / "queries.txt"), "--archive", str(once.archive), "--json", "--top", "2"]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("query") for line in lines] == ["one thing"] * 2 + ["another"] * 2
    assert [list(line) for line in lines] == [KEYS] * 4


def test_a_person_gets_a_line_a_hit(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["search", "thing", "--archive", str(once.archive), "--top", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.split()[2].startswith("v/v00") for line in lines)
    cli.main(["search", "thing", "--archive", str(once.archive), "--where", "start_s > 50"])
    assert capsys.readouterr().out == "no clip matches\n"


@pytest.mark.parametrize("content", [None, "", "\n \n", b"\xff\xfe\x00"])
def test_a_file_without_queries_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "queries.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with fails_with(UsageError, "queries.txt", "a line|a query a line"):
        search.read_queries(str(file))


def test_stale_vectors_are_never_shown_and_the_hits_stay_complete(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    query = np.random.default_rng(3).normal(size=DIM)
    best = [hit["clip_id"] for hit in run(archive, Query(vector=query), top=18)]
    gone, changed = best[:4], best[4:6]
    columns = schema.CLIPS
    clips = {row["clip_id"]: row for row in rows(archive, "clips")}
    new = pa.Table.from_pylist([clips[name] | {"fingerprint": "f" * 32} for name in changed], schema=columns)
    for name in gone + changed:
        commit.delete(str(archive), "clips", f"clip_key = {clip_key(name)}")
    commit.append(str(archive), "clips", new, columns)
    hits = run(archive, Query(vector=query), top=3)
    assert [hit["clip_id"] for hit in hits] == best[6:9]
    assert [hit["clip_id"] for hit in run(archive, Query(vector=query), top=18)] == best[6:]
    with fails_with(ClipError, "changed", "raydist embed"):
        run(archive, Query(clip_id=changed[0]))


def test_an_archive_without_vectors_says_what_to_do(once: Made, tmp_path: Path) -> None:
    with fails_with(ArchiveError, "no archive"):
        run(tmp_path / "none", Query(words="anything"))
    scanned(tmp_path / "bare", once.folder)
    with fails_with(ArchiveError, "raydist embed"):
        run(tmp_path / "bare", Query(words="anything"))


def test_a_model_that_the_archive_lacks_is_told_with_those_it_has(once: Made, tmp_path: Path) -> None:
    other = write_viclip(tmp_path / "other", seed=4)
    with fails_with(StoreError, "no vectors of .*other", "small \\(small_", "raydist embed --model"):
        once.search(Query(words="anything"), model=str(other))
    with fails_with(StoreError, "tinny", "it has: small \\(small_"):
        once.search(Query(words="anything"), model="tinny")


def test_a_model_that_is_not_on_this_machine_is_told_with_those_the_archive_has(once: Made) -> None:
    with fails_with(StoreError, "no vectors of 'viclip-l14'", "it has: small \\(small_"):
        once.search(Query(words="anything"), model="viclip-l14")


def test_of_several_models_one_must_be_named(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    other = write_viclip(tmp_path / "other", seed=4)
    key = made(archive, other).details["model_key"]
    with fails_with(StoreError, "other", key, "small", "--model"):
        run(archive, Query(words="anything"))
    by_name = run(archive, Query(words="anything"), model="other")
    assert by_name == run(archive, Query(words="anything"), model=key)
    assert by_name == run(archive, Query(words="anything"), model=str(other))
    assert by_name != run(archive, Query(words="anything"), model="small")


def test_weights_that_are_not_the_ones_used_are_refused(tmp_path: Path, once: Made) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    model = write_viclip(tmp_path / "passing", seed=5)
    made(archive, model)
    write_viclip(model, seed=6)
    with fails_with(StoreError, "passing", "same weights"):
        run(archive, Query(words="anything"), model="passing")
    name = "v/v002.mp4#t=1,2"
    assert run(archive, Query(clip_id=name), model="passing"), "a clip needs no weights"
