"""On the cluster, before a verb begins: does every node see what the verb will need?

Reads     the archive's document; places of videos, models and adapters; on each node that is there (of a large cluster
          on so many as `_NODES`), by a task without a core. Nodes that come later are not asked
Writes    a hidden file in the archive (or where it will be), at once deleted: what one node writes the others must see.
          Each node writes and deletes one of its own
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
    """A file that the driver wrote beside or in the archive, or what is in it; empty: there is none."""
    writes: bool = False
    """Whether the verb writes to the archive."""
    archives: tuple[str, ...] = ()
    """Addresses of other archives."""
    places: tuple[tuple[str, str], ...] = ()
    """What it is, and its path."""
    addresses: tuple[str, ...] = ()
    remote: Remote = field(default_factory=Remote)


def check(job: Mapping[str, Any], places: Mapping[str, str], *, unseen: bool = False) -> None:
    """Refuse what cannot work, once Ray is connected.

    Args:
        job: what was submitted, as `Order.document` gives it.
        places: root name -> folder or address, of the archive as the cluster sees it.
        unseen: the head is alone and other nodes come later, so that nobody can be asked.

    Raises:
        UsageError: something is on the submitting machine alone.
        ResourceError: nodes lack credentials, or do not share the archive.
    """
    location = job["archive"]
    _check_archive(job, location)
    if unseen and not is_uri(location):
        talk.print(
            f"the cluster is its head alone and may grow: make sure that the nodes that come mount {location!r} too; "
            "none that is there could be asked. An address such as s3://bucket/archive needs no mount"
        )
    probe = _probe(location, bool(job["writes"]))
    source = {key: value for key, value in job["source"].items() if key != "whole_mb"}
    servers = [*job["addresses"], *(places.values() if job["reads"] else ())]
    needed = Needed(
        archive=location,
        probe=probe or _document(location),
        writes=bool(job["writes"]),
        archives=tuple(job["archives"]),
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
    here = made(location) if job["archive_made"] else ""
    if here == job["archive_made"]:
        return
    try:
        there = objects.read(location, settings.FILE) is not None
    except (RaydistError, OSError):
        return  # it cannot be read from here: the nodes say why, each for itself
    if there and not here:
        return  # of another format, or damaged: the verb says so
    found = "another archive" if there else "no archive"
    if is_uri(location):
        raise UsageError(
            f"the machine that submitted this has another archive at {location!r} than the cluster, which has {found} "
            "there: expected one object store for both; is AWS_ENDPOINT_URL, or the account, another one there?"
        )
    raise UsageError(
        f"the archive {location!r} is on the machine that submitted this, and the cluster has {found} there: "
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


def _document(location: str) -> str:
    """What every node sees that sees the archive, where none may be written beside it."""
    document = Path(location, settings.FILE)
    return str(document) if not is_uri(location) and document.is_file() else ""


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
    problems = [problem for place in needed.archives for problem in _ask_store(place, writes=False)]
    if is_uri(needed.archive):
        problems += _ask_store(needed.archive, writes=needed.writes)
    elif needed.probe and not os.path.exists(needed.probe):
        problems.append(
            f"it does not see what the head has at {os.path.dirname(needed.probe)!r}, so the archive "
            f"{needed.archive!r} is not shared: expected a folder that all nodes mount, or s3://bucket/archive"
        )
    elif needed.probe and needed.writes:
        problems += _write_beside(needed.probe, needed.archive)
    for what, path in needed.places:
        if not os.path.exists(path):
            problems.append(
                f"it has no {path!r} ({what}), which the machine has that submitted this: expected a path that all "
                "nodes have, or an address such as s3://bucket/videos"
            )
    for place in needed.addresses:
        problems += _look_at(place, needed.remote)
    return problems


def _write_beside(probe: str, archive: str) -> Sequence[str]:
    """Whether this node may write where the head did."""
    path = Path(probe).with_name(f".raydist-{uuid.uuid4().hex}")
    try:
        path.touch(exist_ok=False)
        path.unlink()
    except OSError as error:
        return [
            f"it cannot write to {str(path.parent)!r} ({error.strerror}), where the archive {archive!r} is or will be: "
            "expected a folder that all nodes mount for writing, or s3://bucket/archive"
        ]
    return []


def _ask_store(place: str, *, writes: bool) -> Sequence[str]:
    """Whether an archive in a bucket can be read here, and written where it must be."""
    doing = "read"
    try:
        objects.read(place, settings.FILE)
        if writes:
            doing = "write to"
            name = f"probes/{uuid.uuid4().hex}"  # beside those of `objects`
            objects.replace(place, name, b"")
            objects.delete(place, name)
    except (RaydistError, OSError) as error:
        return [
            f"it cannot {doing} the archive {place!r} ({error}). Credentials of an object store come from each node's "
            "environment or role (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a Kubernetes secret, an instance's "
            "role); none travel with a job"
        ]
    return []


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
