"""TensorBoard's event files without the pictures and words that show clips; curves stay."""

from __future__ import annotations

import uuid
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

SHOWING = ("confirmation/retrieved", "confirmation/captions")
"""Tags of summaries that show held-out clips and their captions."""


def without_pictures(file: Path) -> bool:
    """Take those summaries out of an event file; whether there were any. What a crash left half-written is dropped."""
    kept: list[bytes] = []
    dropped = 0
    for record in RawEventFileLoader(str(file)).Load():
        event = Event.FromString(record)
        values = [value for value in event.summary.value if not value.tag.startswith(SHOWING)]
        if len(values) == len(event.summary.value):
            kept.append(record)
            continue
        dropped += len(event.summary.value) - len(values)
        del event.summary.value[:]
        event.summary.value.extend(values)
        if values:
            kept.append(event.SerializeToString())
    if not dropped:
        return False
    part = file.with_name(f".{uuid.uuid4().hex}.part")
    with part.open("wb") as stream:
        writer = RecordWriter(stream)
        for record in kept:
            writer.write(record)
        writer.flush()
    part.replace(file)
    return True
