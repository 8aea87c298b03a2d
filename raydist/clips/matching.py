"""Which video of an archive a path means, as a person wrote it: on this machine, on another, or only by its name.

Promises  the most exact reading that names any video decides; what it names several of matches none of them
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress

from raydist import address
from raydist.clips import naming


class Videos:
    """The videos of an archive, to be found by what people write."""

    def __init__(self, video_ids: Iterable[str], places: Mapping[str, str], beside: str = "") -> None:
        """
        Args:
            video_ids: all of the archive.
            places: root name -> folder on this machine, or address.
            beside: folder of the list that the paths stand in; they may begin there.
        """
        self.ids = frozenset(video_ids)
        self._places = places
        self._beside = beside
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
        for tail in dict.fromkeys((written, written.replace("\\", "/"))):  # as Windows writes it
            found = self._by_tail(tail)
            if found:
                return found
        return set()

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
        return set()


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
