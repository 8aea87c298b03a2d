"""Captions that a person brings into the archive: what is read, its columns and lines, and what is to know of them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pyarrow as pa

from raydist import tabular
from raydist.caption import beside
from raydist.caption.match import WHY, Clips, Columns, Matched, is_known, match
from raydist.caption.words import ENDS, MOMENTS, STARTS, TEXTS
from raydist.caption.write import Written, write
from raydist.clips.matching import Videos
from raydist.config import Config
from raydist.errors import UsageError
from raydist.models.tokenizer import Tokenizer
from raydist.progress import talk
from raydist.sections import Caption
from raydist.store import read as store_read
from raydist.store import roots, sql

READ_BY = {"ViCLIP": 32, "CLIP": 77}
"""Model -> tokens of a text that it reads, start and end included."""

_OF_FILES = Columns(
    place="clip_id", texts=("caption",), start="start_ms", end="end_ms", stem="stem", others="others", cue="cue"
)
"""What lines that are files hold, see `beside`."""

_SHOWN = 80
"""Letters of a caption in a message."""


def read(file: str, option: str, section: Caption) -> tabular.Listing:
    """Read what holds captions: a list, a folder of files beside clips, a shard, subtitles; as the path shows.

    Raises:
        UsageError: it cannot be read, or holds nothing of the kind.
    """
    if beside.is_beside(os.path.expanduser(file)):
        return beside.read(file, option, section.text_column)
    return tabular.read(file, option)


def bring(config: Config, location: str, listing: tabular.Listing) -> tuple[dict[str, int], list[str]]:
    """Write the captions of a list and return counts and notes.

    Raises:
        UsageError: columns that are not there, or no line that names a clip.
    """
    clips = Clips(_clips(location), _aliases(location))
    videos = _videos(config, location, listing)
    columns, notes = _columns(config.caption, listing, clips, videos)
    matched = match(listing.lines, columns, clips, videos)
    if not matched.texts:
        raise UsageError(_nothing(listing, columns, matched, videos))
    _show(listing, notes, matched, clips)
    written = write(location, matched.texts, clips.table)
    unmatched = sum(map(len, matched.unmatched.values()))
    counts = {
        "lines": matched.lines,
        "clips": len(matched.texts),
        "added": written.added,
        "replaced": written.replaced,
        "unchanged": written.unchanged,
        "unmatched": unmatched,
        "without_caption": matched.empty,
    }
    counts = {name: count for name, count in counts.items() if count or name in ("lines", "clips", "added")}
    notes = [*listing.notes, *notes, *_unmatched(matched), *_told(matched, written)]
    return counts, notes + _lengths({text for texts in matched.texts.values() for text in texts})


def _show(listing: tabular.Listing, notes: list[str], matched: Matched, clips: Clips) -> None:
    """Say how the list is understood, before anything is written."""
    assert matched.example is not None
    row, text, where = matched.example
    clip_id = clips.table["clip_id"][row].as_py()
    talk.print(f"{listing.option} {listing.file}: {'; '.join([*listing.notes, *notes])}")
    talk.print(f"  for example {clip_id} gets {_short(text)!r} ({where})")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]} …"


def _columns(section: Caption, listing: tabular.Listing, clips: Clips, videos: Videos) -> tuple[Columns, list[str]]:
    """The columns that were named or can be guessed, and what to say about them."""
    if listing.beside:
        return _OF_FILES, []
    numbered = [name for name in listing.columns if tabular.plain(name).rstrip("0123456789").rstrip("_") in TEXTS]
    texts = tabular.columns_of(listing, TEXTS, section.text_column)[:1] or numbered
    places = [name for name in tabular.columns_of(listing, tabular.PLACES, section.path_column) if name not in texts]
    if not texts or not places:
        lacking = "the captions (such as `caption`)" if not texts else "the files or clips (such as `path`)"
        setting = "text_column" if not texts else "path_column"
        raise UsageError(
            f"{listing.option} {listing.file!r} has the columns {list(listing.columns)}, and none is known to hold "
            f"{lacking}: expected a first line of names; name the column with `--set caption.{setting}=NAME`"
            + (f". Not read: {', '.join(listing.unread)}" if listing.unread else "")
        )
    place = tabular.best_column(listing, places, lambda written: is_known(written, clips, videos))
    chosen = [tabular.columns_of(listing, *wanted)[:1] or [""] for wanted in (
        (STARTS, section.start_column), (ENDS, section.end_column), (MOMENTS, section.time_column)
    )]  # fmt: skip
    columns = Columns(place=place, texts=tuple(texts), start=chosen[0][0], end=chosen[1][0], moment=chosen[2][0])
    used = [place, *texts, *(name for name in (columns.start, columns.end, columns.moment) if name)]
    others = [name for name in [*places, *numbered] if name not in used]
    note = f"columns: {', '.join(used)}"
    if others:
        note += f" (not {', '.join(dict.fromkeys(others))}; `--set caption.path_column=` and `text_column=` choose)"
    return columns, [note]


def _clips(location: str) -> pa.Table:
    names = ["clip_id", "clip_key", "video_id", "start_ms", "end_ms", "fingerprint"]
    return pa.Table.from_batches(list(store_read.scan_batches(location, "clips", names)))


def _aliases(location: str) -> dict[str, str]:
    where = sql.equals("state", "alias")
    batches = store_read.scan_batches(location, "videos", ["video_id", "alias_of"], where=where)
    return {row["video_id"]: row["alias_of"] for batch in batches for row in batch.to_pylist()}


def _videos(config: Config, location: str, listing: tabular.Listing) -> Videos:
    ids: list[str] = []
    for batch in store_read.scan_batches(location, "videos", ["video_id"]):
        ids.extend(batch["video_id"].to_pylist())
    path = os.path.abspath(os.path.expanduser(listing.file))
    is_folder = os.path.isdir(path)
    return Videos(
        ids, roots.places(location, config.roots), path if is_folder else os.path.dirname(path), strict=is_folder
    )


def _nothing(listing: tabular.Listing, columns: Columns, matched: Matched, videos: Videos) -> str:
    what = f"{listing.option} {listing.file!r}"
    if matched.empty == matched.lines:
        if listing.beside:
            return f"{what}: none of its {matched.lines:,} files has a caption; {'; '.join(listing.notes)}"
        none = f"{what}: none of its {matched.lines:,} lines has a caption in {', '.join(columns.texts)!r}"
        return "; ".join([none, *listing.notes])
    reasons = "; ".join(_unmatched(matched))
    example = min(videos.ids, default="")
    if listing.beside:
        return f"{what}: nothing in it is named as a clip or a video of the archive: {reasons}. A video is {example!r}"
    return (
        f"{what}: no line names a clip of the archive, looked for in the column {columns.place!r}: {reasons}. "
        f"A video of the archive is {example!r}; `--set caption.path_column=NAME` names another column"
    )


def _unmatched(matched: Matched) -> list[str]:
    notes = []
    for reason, lines in sorted(matched.unmatched.items(), key=lambda item: -len(item[1])):
        # Of each name one: a whole file of subtitles may be of a video that is not there.
        distinct: dict[str, str] = {}
        for where, written in lines:
            distinct.setdefault(written, where)
        shown = ", ".join(f"{written!r} ({where})" for written, where in list(distinct.items())[:3])
        notes.append(f"{len(lines):,} captions {WHY[reason]}; such as {shown}")
    return notes


def _told(matched: Matched, written: Written) -> list[str]:
    notes = []
    if written.removed:
        notes.append(f"{written.removed:,} sidecar captions that the clips had before were replaced")
    if matched.repeated:
        notes.append(f"{matched.repeated:,} lines say what another line says of the same clip; each counts once")
    if matched.parts:
        notes.append(f"{matched.parts:,} captions are of another stretch than their clip and stand for all of it")
    several = sum(len(texts) > 1 for texts in matched.texts.values())
    if several:
        notes.append(f"{several:,} clips have several captions")
    distinct = len({text for texts in matched.texts.values() for text in texts})
    if distinct == 1 and len(matched.texts) > 1:
        notes.append("every clip has the same caption: nothing can be learnt from it, and nothing told apart by it")
    elif distinct < sum(map(len, matched.texts.values())):
        notes.append(f"{distinct:,} distinct captions: several clips share one")
    if not written.added and not written.replaced:
        notes.append("nothing new: the archive has these captions")
    else:
        notes.append("next: `raydist train`")
    return notes


def _lengths(texts: Iterable[str]) -> list[str]:
    """How many captions are longer than the models read; they are kept whole."""
    tokens = Tokenizer(max(READ_BY.values()), drop_markers=True)
    shortest = min(READ_BY.values()) - 2
    # A token is a byte or more, so short texts need not be looked at; mending a text makes it no longer than tripled.
    lengths = [len(tokens.body(text)) + 2 for text in texts if 3 * len(text.encode()) > shortest]
    over = {name: sum(length > limit for length in lengths) for name, limit in READ_BY.items()}
    told = [f"{count:,} are longer than the {READ_BY[name]} tokens that {name} reads" for name, count in over.items()]
    told = [text for text, count in zip(told, over.values(), strict=True) if count]
    return [f"of the captions, {' and '.join(told)}: the rest is kept, and not read by it"] if told else []
