"""On the cluster, before a verb begins: does every node see what the verb will need?

Reads     the archive's document; places of videos, models and adapters; on each node, by a task without a core
Writes    a hidden file in the archive (or where it will be), at once deleted: what one node writes the others must see
Promises  a path of the submitting machine, storage that is not shared, or missing credentials end the job here, with
          the node's name, before anything is done
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydist import address
from raydist.clips.buckets import look
from raydist.errors import RaydistError, ResourceError, SourceError, UsageError
from raydist.progress import talk
from raydist.records import Remote
from raydist.store import objects, roots, settings
from raydist.store.location import is_uri
from raydist.submit.order import made

_ANSWER_S = 60.0
_NODES = 64
"""Nodes that are asked, at most: those of a group are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What a node must see."""

    archive: str
    probe: str = ""
    """A file that the driver wrote beside or in the archive; empty: there is none."""
    places: tuple[tuple[str, str], ...] = ()
    """What it is, and its path."""
    addresses: tuple[str, ...] = ()
    remote: Remote = field(default_factory=Remote)


def check(job: Mapping[str, Any], places: Mapping[str, str]) -> None:
    """Refuse what cannot work, once Ray is connected.

    Args:
        job: what was submitted, as `Order.document` gives it.
        places: root name -> folder or address, of the archive as the cluster sees it.

    Raises:
        UsageError: something is on the submitting machine alone.
        ResourceError: nodes lack credentials, or do not share the archive.
    """
    location = job["archive"]
    _check_archive(job, location)
    probe = _probe(location, bool(job["writes"]))
    source = {key: value for key, value in job["source"].items() if key != "whole_mb"}
    servers = [*job["addresses"], *(place for place in places.values() if _is_bucket(place))]
    needed = Needed(
        archive=location,
        probe=probe,
        places=tuple((place["what"], place["path"]) for place in job["places"] if place["there"]),
        addresses=tuple(dict.fromkeys(filter(_is_bucket, servers))),
        remote=Remote(**source, whole_bytes=job["source"]["whole_mb"] << 20),
    )
    try:
        _ask_all(needed)
    finally:
        if probe:
            with suppress(OSError):
                os.unlink(probe)


def places_of(location: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Where the archive's videos lie; {} where there is no archive yet."""
    try:
        settings.open_existing(location)
        return roots.places(location, overrides)
    except RaydistError:
        return {}


def _is_bucket(place: str) -> bool:
    return address.is_address(place) and address.scheme_of(place) in address.BUCKETS


def _check_archive(job: Mapping[str, Any], location: str) -> None:
    if is_uri(location) or not job["archive_made"]:
        return
    if made(location) != job["archive_made"]:
        what = "another archive" if Path(location, settings.FILE).is_file() else "no archive"
        raise UsageError(
            f"the archive {location!r} is on the machine that submitted this, and the cluster has {what} there: "
            "expected one place for both, such as s3://bucket/archive or a folder that all nodes mount"
        )


def _probe(location: str, writes: bool) -> str:
    """Write a file that the other nodes must see; its path, or nothing where that tells nothing."""
    if is_uri(location):
        return ""
    folder = Path(location)
    while not folder.is_dir():
        folder = folder.parent
    probe = folder / f".raydist-{uuid.uuid4().hex}"
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        if not writes:
            return ""
        raise UsageError(
            f"the cluster cannot write to {str(folder)!r} ({error.strerror}), where the archive {location!r} is to be: "
            "expected a folder that all nodes mount and may write to, or an address such as s3://bucket/archive"
        ) from error
    return str(probe)


def _ask_all(needed: Needed) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]][:_NODES]  # type: ignore[no-untyped-call]  # Ray's own gap
    ask = ray.remote(answer)
    asked = {}
    for node in alive:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[ask.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(needed)] = node
    waiting = list(asked)
    done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_ANSWER_S)
    for reference in done:
        try:
            problems = ray.get(reference)
        except ray.exceptions.RayError as error:
            lost = isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.TaskUnschedulableError)
            if lost:
                continue  # a node that goes away is what clusters do
            raise ResourceError(_cannot_run(asked[reference], error)) from error
        if problems:
            raise ResourceError(f"node {_name(asked[reference])}: {'; '.join(problems)}")
    for reference in waiting:
        ray.cancel(reference, force=True)
        talk.print(f"node {_name(asked[reference])} has not answered in {_ANSWER_S:.0f} s and was not checked")


def answer(needed: Needed) -> list[str]:
    """What is wrong on the node that this runs on."""
    problems = []
    if is_uri(needed.archive):
        try:
            objects.read(needed.archive, settings.FILE)
        except (RaydistError, OSError) as error:
            problems.append(
                f"it cannot read the archive {needed.archive!r} ({error}). Credentials of an object store come from "
                "each node's environment or role (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a Kubernetes secret, an "
                "instance's role); none travel with a job"
            )
    elif needed.probe and not os.path.exists(needed.probe):
        problems.append(
            f"it does not see what the head wrote to {os.path.dirname(needed.probe)!r}, so the archive "
            f"{needed.archive!r} is not shared: expected a folder that all nodes mount, or s3://bucket/archive"
        )
    for what, path in needed.places:
        if not os.path.exists(path):
            problems.append(
                f"it has no {path!r} ({what}), which the machine has that submitted this: expected a path that all "
                "nodes have, or an address such as s3://bucket/videos"
            )
    for place in needed.addresses:
        problems += _look_at(place, needed.remote)
    return problems


def _look_at(place: str, remote: Remote) -> Sequence[str]:
    try:
        found = look(address.plain(place), remote)
    except (SourceError, UsageError, ValueError) as error:
        return [f"it cannot read the videos at {address.public(place)!r}: {error}"]
    return [] if found is not None else [f"{address.public(place)!r} does not exist: expected a bucket, prefix or file"]


def _name(node: Mapping[str, Any]) -> str:
    return f"{node.get('NodeManagerHostname') or ''} ({node.get('NodeManagerAddress')})"


def _cannot_run(node: Mapping[str, Any], error: BaseException) -> str:
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return (
        f"node {_name(node)} cannot run raydist ({last}): expected the same packages on all nodes, as in the images of "
        "cluster/"
    )
