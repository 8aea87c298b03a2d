"""forget: removes a video from everything in an archive, for good.

Reads     all tables, the files under `runs/`
Writes    salted hashes to `forgotten`, by which `scan` refuses the video from then on; deletes its rows in every table,
          its frames, what runs kept of it (pages, pictures, lists, TensorBoard's strips), and the old versions and
          indices that held any of it
Again     safe to run again after any crash, with the same words: it goes on where it stopped
Keeps     the video file itself: raydist deletes no file of yours. It cannot reach what left the archive, and names it
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydist import index as index_verb
from raydist.caption import answers
from raydist.clips import naming
from raydist.config import Config, changed
from raydist.errors import RaydistError, StoreError, UsageError
from raydist.forget import runs
from raydist.forget.runs import Traces
from raydist.meant import candidates, find_videos
from raydist.records import Report
from raydist.store import erase, models, read, roots, settings
from raydist.store.erase import Target
from raydist.store.forgotten import Forgotten, remember
from raydist.store.lease import Lease
from raydist.store.location import is_uri
from raydist.store.runs import new_run, save
from raydist.store.schema import model_key_of
from raydist.store.sql import is_in

_SHOWN = 8
_COLUMNS = {
    "videos": ["video_id", "root", "path", "file_fingerprint", "alias_of"],
    "clips": ["video_id", "clip_id", "source_id"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will go, looked up before anybody is asked."""

    asked: tuple[str, ...]
    """Video ids that were named."""
    beside: tuple[str, ...]
    """Other files of the same bytes, or cut from a named video: they show the same and go too."""
    clips: int
    adapters: tuple[str, ...]
    """Runs that were trained on clips of it."""
    exports: tuple[str, ...]
    """What was written elsewhere and may hold it."""
    strangers: tuple[str, ...]
    """Adapters from elsewhere that vectors were made with; what they were trained on is not known here."""

    @property
    def videos(self) -> tuple[str, ...]:
        """All that go."""
        return (*self.asked, *self.beside)


def plan(config: Config, names: Sequence[str]) -> Plan:
    """Look up what forgetting some videos means.

    Args:
        names: ids, paths on this machine, or ends of ids; ids of videos that were forgotten already are fine.

    Raises:
        ArchiveError: no archive.
        UsageError: a name that means no video, or several.
    """
    location = config.require_archive()
    settings.open_existing(location)
    if not names:
        raise UsageError("nothing to forget: expected the ids or paths of videos")
    forgotten = Forgotten(location)
    # After a crash, also under a name by which the archive does not know it any more.
    again = [
        name
        for name in names
        if forgotten.has_video(name) or (forgotten.means(_as_id(name)) and not candidates(config, [name])[0])
    ]
    others = [name for name in names if name not in again]
    asked = tuple(dict.fromkeys([*again, *(find_videos(config, others, "forget") if others else [])]))
    beside = tuple(sorted(_beside(location, asked)))
    target = _target(location, (*asked, *beside))
    trained = runs.trained_on(location, target)
    return Plan(
        asked=asked,
        beside=beside,
        clips=read.count_rows(location, "clips", is_in("video_id", [*asked, *beside])),
        adapters=tuple(trained),
        exports=tuple(dict.fromkeys(runs.exports(location, trained))),
        strangers=tuple(
            model.adapter
            for model in models.stored(location)
            if model.adapter and not models.is_own(model.adapter, location)
        ),
    )


def render(plan: Plan) -> str:
    """The plan in lines for a person."""
    videos, clips = (_counted(len(plan.videos), "video"), _counted(plan.clips, "clip"))
    lines = [f"forget: {videos} with {clips}"]
    lines += _listed("", plan.asked)
    lines += _listed("of the same bytes, or cut from one of these: ", plan.beside)
    lines += _left(plan)
    return "\n".join(lines)


def run(config: Config, plan: Plan) -> Report:
    """Do it.

    Raises:
        StoreError: others are at work on the archive, or began to write meanwhile.
    """
    began = time.monotonic()
    location = config.require_archive()
    with Lease(location, "forget", exclusive=True) as held:
        _refuse_others(held)
        _remember(location, plan.videos)
        target = _target(location, plan.videos)
        # Files before rows: the rows say how the videos are called in files, should this be cut short.
        files = runs.redact(location, _traces(config, plan, target))
        _drop_answers(location, plan, target)
        rows = erase.erase(location, target)
        _refuse_others(held)
        dropped = {table: erase.scour(location, table) for table in read.table_names(location)}
    indexed = [model_key_of(table) for table, names in dropped.items() if names]
    built = [note for model_key in indexed if model_key for note in _index_anew(config, model_key)]
    report = Report(
        stage="forget",
        run=new_run("forget"),
        seconds=time.monotonic() - began,
        counts={"videos": len(plan.videos), "clips": plan.clips, "rows": sum(rows.values()), "files": len(files)},
        notes=tuple(line.strip() for line in [*_left(plan), *_files(files), *built, _KEPT]),
        details=_details(rows, plan),
    )
    save(report, location)
    return report


def _index_anew(config: Config, model_key: str) -> list[str]:
    """Build the index of a model's vectors again, without those that are gone; a note where that fails."""
    try:
        index_verb.run(changed(config, {"embed.model": model_key, "embed.adapter": ""}), rebuild=True)
    except RaydistError as error:
        return [f"the index of {model_key} is gone and was not built again ({error}): run `raydist index`"]
    return []


_KEPT = (
    "the video files stay where they are, and scan leaves them alone from now on; pages and results that were saved "
    "outside of the archive, and copies of the archive, are yours to delete"
)


def _details(rows: dict[str, int], plan: Plan) -> dict[str, Any]:
    """For the report; it must not bear the names of what was forgotten."""
    return {"tables": rows, "adapters": list(plan.adapters), "exports": list(plan.exports)}


def _left(plan: Plan) -> list[str]:
    lines = []
    if plan.adapters:
        lines.append(
            f"  trained on it, and not mended by forgetting: the adapters {', '.join(plan.adapters)} (and vectors made "
            "with them). Train anew, or delete them"
        )
    if plan.strangers:
        lines.append(f"  trained elsewhere, perhaps on it: the adapters in {', '.join(plan.strangers)}")
    if plan.exports:
        lines.append(f"  out of reach, and may hold it: {', '.join(plan.exports)}")
    return lines


def _files(files: Sequence[str]) -> list[str]:
    if not files:
        return []
    shown = ", ".join(files[:_SHOWN]) + (" …" if len(files) > _SHOWN else "")
    return [f"deleted, or freed of what showed it: {shown}"]


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _listed(words: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"  {words}{', '.join(names[:_SHOWN])}{more}"]


def _refuse_others(held: Lease) -> None:
    held.check()
    others = held.others()
    if others:
        raise StoreError(
            f"{others[0]} is at work on this archive, and what it writes could hold the video: wait for it, or stop "
            "it, and run `raydist forget` again"
        )


def _beside(location: str, asked: Sequence[str]) -> set[str]:
    """Files that show what the videos show: the same bytes, copies that scan passed over, pieces cut from them."""
    prints = {row["file_fingerprint"] for row in _rows(location, "videos", "video_id", asked)}
    same = _rows(location, "videos", "file_fingerprint", prints - {None, ""})
    videos = {row["video_id"] for row in same} | set(asked)
    clips = {row["clip_id"] for row in _rows(location, "clips", "video_id", videos)}
    copies = {row["video_id"] for row in _rows(location, "videos", "alias_of", clips)}
    sources = {naming.source_id(video) for video in videos}
    pieces = {
        row["video_id"]
        for row in _rows(location, "clips", "source_id", sources)
        if naming.source_id(row["video_id"]) != row["source_id"]
    }
    return (videos | copies | pieces) - set(asked)


def _rows(location: str, table: str, key: str, values: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of `videos` or `clips` by one of their columns; none where there is no such table yet."""
    if read.open_table(location, table) is None:
        return []
    found: list[dict[str, Any]] = read.rows_by_key(
        location, table, sorted(values), _COLUMNS[table], key=key
    ).to_pylist()
    return found


def _target(location: str, videos: Sequence[str]) -> Target:
    clips = erase.clips_of(location, frozenset(videos))
    return Target(video_ids=videos, clip_ids=sorted(clips), keys=sorted(naming.clip_key(clip) for clip in clips))


def _remember(location: str, videos: Sequence[str]) -> None:
    """First of all: from here on no scan brings it back, whatever else happens."""
    known = _rows(location, "videos", "video_id", videos)
    if not known:  # done before a crash
        return
    contents = [row["file_fingerprint"] for row in known]
    clips = _rows(location, "clips", "video_id", videos)
    whole = {row["video_id"] for row in clips if naming.source_id(row["video_id"]) == row["source_id"]}
    sources = [naming.source_id(video) for video in whole]
    ids = [row["video_id"] for row in known]
    names = [*ids, *map(naming.source_id, ids)]
    remember(location, videos=ids, names=names, contents=filter(None, contents), sources=sources)


def _drop_answers(location: str, plan: Plan, target: Target) -> None:
    """Captions that wait for a commit, of clips too that no table has any more; and what killed writers left over."""
    own = {row["clip_key"] for row in answers.all_kept(location) if row["video_id"] in plan.videos}
    answers.drop(location, own | {*target.keys})
    if not is_uri(location):  # a bucket never shows half of an object
        for left in Path(location, answers.FOLDER).glob(".*"):
            left.unlink(missing_ok=True)


def _as_id(written: str) -> str:
    """A path as ids have it."""
    return unicodedata.normalize("NFC", naming.encode_path(os.fsencode(written.strip()))).removeprefix("./")


def _traces(config: Config, plan: Plan, target: Target) -> Traces:
    """How the videos are called in files that are no tables."""
    location = config.require_archive()
    places = roots.places(location, config.roots)
    paths = [
        naming.locate(places[row["root"]], row["path"]).encode(errors="surrogateescape").decode(errors="replace")
        for row in _rows(location, "videos", "video_id", plan.videos)
        if row["root"] in places
    ]
    captions: set[str] = set()
    if read.open_table(location, "captions") is not None:
        texts = read.rows_by_key(location, "captions", list(target.keys), ["caption"])["caption"].to_pylist()
        captions.update(text for text in texts if text.strip())
    return Traces(target=target, paths=tuple(paths), captions=tuple(sorted(captions)))
