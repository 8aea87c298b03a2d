"""Which video of an archive a path means, as a person wrote it: on this machine, on another, or only by its name.

Promises  the most exact reading that names any video decides; what it names several of matches none of them
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from functools import cached_property
from urllib.parse import unquote

from raydist import address
from raydist.clips import naming


class Videos:
    """The videos of an archive, to be found by what people write."""

    def __init__(
        self, video_ids: Iterable[str], places: Mapping[str, str], beside: str = "", *, strict: bool = False
    ) -> None:
        """
        Args:
            video_ids: all of the archive.
            places: root name -> folder on this machine, or address.
            beside: folder of the list that the paths stand in; they may begin there.
            strict: a stem in a folder of videos means the file that is there, and no other of its name.
        """
        self.ids = frozenset(video_ids)
        self._places = places
        self._beside = beside
        self._strict = strict
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for video_id in self.ids:
            self._by_name[video_id.rpartition("/")[2]].append(video_id)
            self._by_stem[naming.source_id(video_id).rpartition("/")[2]].append(video_id)

    def find(self, written: str) -> set[str]:
        """The videos that a path may mean: one if it is known, none if it is not, several if it is ambiguous."""
        written = written.strip()
        if not written:
            return set()
        readings = [*_readings(written, self._places)]
        if self._beside and not address.is_address(written) and not os.path.isabs(written):
            beside = os.path.join(self._beside, written)
            readings[1:1] = _readings(beside, self._places)
        for ids in readings:
            found = ids & self.ids
            if found:
                return found
        # As it stands, as Windows writes it, and as a URL does.
        for tail in dict.fromkeys((written, written.replace("\\", "/"), unquote(written))):
            found = self._by_tail(tail)
            if found:
                return found
        return self._as_windows(written) if "\\" in written else set()

    def find_stem(self, stem: str) -> set[str]:
        """The videos that a file beside them means, by its path without the suffix (below the folder `beside`, as ids
        have it): one if it is known, none if it is not, several if it is ambiguous."""
        is_in_root = False
        for root, folder in self._places.items():
            if address.is_address(folder) or not self._beside:
                continue
            below = os.path.relpath(os.path.realpath(self._beside), os.path.realpath(folder))
            if below == ".." or below.startswith("../"):
                continue
            is_in_root = True
            path = "" if below == "." else naming.encode_path(os.fsencode(below)) + "/"
            found = self._of_stem(naming.video_id(root, path + stem))
            if found:
                return found
        for readings in ([unicodedata.normalize("NFC", stem)], [naming.video_id(root, stem) for root in self._places]):
            found = set().union(*map(self._of_stem, readings))
            if found:
                return found
        return set() if is_in_root and self._strict else self._by_tail(stem)

    def _of_stem(self, path: str) -> set[str]:
        """Videos of an id without its suffix, or with it."""
        stems = self._by_stem.get(path.rpartition("/")[2], ())
        return {path} & self.ids or {video_id for video_id in stems if naming.source_id(video_id) == path}

    def _by_tail(self, written: str) -> set[str]:
        """Videos whose id ends as the path does, with folders as far as both have them; then without the suffix."""
        written = written.removeprefix("./")
        for tail in dict.fromkeys((naming.encode_path(os.fsencode(written)), written)):
            path = unicodedata.normalize("NFC", tail)
            name = path.rpartition("/")[2]
            # A path of another machine ends with the root's name and what follows; other folders are other files.
            named = {
                video_id
                for video_id in self._by_name.get(name, ())
                if ("/" + video_id).endswith("/" + path) or path.endswith("/" + video_id)
            }
            stems = {
                video_id
                for video_id in self._by_stem.get(name, ())
                if ("/" + naming.source_id(video_id)).endswith("/" + path)
            }
            if named or stems:
                return named or stems
            others = {
                video_id
                for video_id in self._by_stem.get(naming.source_id(name), ())
                if ("/" + _small_suffix(video_id)).endswith("/" + _small_suffix(path))
                or _small_suffix(path).endswith("/" + _small_suffix(video_id))
            }
            if others:
                return others
        return set()

    def _as_windows(self, written: str) -> set[str]:
        """Videos whose id ends as a path of Windows does, where large and small letters are the same."""
        path = unicodedata.normalize("NFC", written.replace("\\", "/").removeprefix("./")).casefold()
        return {
            video_id
            for video_id in self._folded.get(path.rpartition("/")[2], ())
            if ("/" + video_id.casefold()).endswith("/" + path) or path.endswith("/" + video_id.casefold())
        }

    @cached_property
    def _folded(self) -> Mapping[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        for video_id in self.ids:
            names[video_id.rpartition("/")[2].casefold()].append(video_id)
        return names


def _small_suffix(path: str) -> str:
    """`a/B.MP4` -> `a/B.mp4`."""
    stem = naming.source_id(path)
    return stem + path[len(stem) :].lower()


def named(path: str, places: Mapping[str, str], known: Set[str]) -> set[str]:
    """Those of the known video ids that the most exact reading of a path gives: an id, a place, a path below a root."""
    return next((found for ids in _readings(path, places) if (found := ids & known)), set())


def _readings(path: str, places: Mapping[str, str]) -> Iterator[set[str]]:
    """Video ids that a path may mean, reading by reading, the most exact first."""
    yield {unicodedata.normalize("NFC", path)}
    if address.is_address(path):
        for root, folder in places.items():
            with suppress(ValueError):
                yield {naming.video_id(root, naming.encode_path(address.below(address.plain(path), folder)))}
        return
    if os.path.isabs(path):
        for place in dict.fromkeys((os.path.normpath(path), os.path.realpath(path))):
            for root, folder in places.items():
                if place.startswith(folder.rstrip("/") + "/"):
                    yield {naming.video_id(root, naming.encode_path(os.fsencode(os.path.relpath(place, folder))))}
        return
    for below in (naming.encode_path(os.fsencode(path)), path):  # as the file system has it, or as `videos` lists it
        yield {naming.video_id(root, below) for root in places}
