"""The vectors of a model's clips as a file: Parquet, or NumPy with the clips' names in a CSV beside it.

Promises  current clips only, a row each, in the table's order; memory is that of a batch and of the keys
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from raydist import choice
from raydist.config import Config
from raydist.errors import ArchiveError, ResourceError, UsageError
from raydist.progress import Bar, bar
from raydist.records import Report
from raydist.store import read, settings, vectors
from raydist.store.runs import new_run, save
from raydist.store.schema import embeddings_table
from raydist.store.shown import refuse_address

PARQUET, NUMPY = ".parquet", ".npy"


def embeddings(config: Config, out: str, *, where: str | None = None) -> Report:
    """Write the vectors of all clips with their names and times.

    Parquet: columns clip_id, video_id, start_s, end_s, split, clip_key, fingerprint, vector (float16, unit length).
    NumPy: float16 [N, D], and row by row the other columns in a CSV of the same name.

    Args:
        config: `archive`, `embed.model` and `embed.adapter` matter.
        out: a file that is not there yet, which ends in `.parquet` or `.npy`.
        where: SQL condition over the columns of the clips' table and of `videos`.

    Raises:
        ArchiveError: no archive, or nothing embedded in it.
        StoreError: no vectors of the model, or of several and none was named; a bad condition.
        ResourceError: the file cannot be written; nothing is left of it.
        UsageError: another suffix, or something is there already.
    """
    began = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    table = embeddings_table(model.model_key)
    files = _files(out)
    if not read.count_rows(location, table):
        raise ArchiveError(f"the archive {location!r} has no vectors of {model.name!r} yet: run `raydist embed` first")
    found = vectors.Export(location, table, where)
    parts = [file.with_name(f".{file.name}.{uuid.uuid4().hex}") for file in files]
    try:
        with bar("writing vectors", found.rows) as progress:
            batches = _counted(found.batches(), progress)
            if files[0].suffix == PARQUET:
                _as_parquet(batches, vectors.columns(found.width), parts[0])
            else:
                _as_numpy(batches, (found.rows, found.width), *parts)
        for part, file in zip(parts, files, strict=True):
            part.replace(file)
    except OSError as error:
        raise ResourceError(
            f"--out {out!r} cannot be written ({error}); nothing is left of it. Make room there, or name another file"
        ) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    report = Report(
        stage="export",
        run=new_run("export"),
        seconds=time.monotonic() - began,
        counts={"vectors": found.rows, "bytes": sum(file.stat().st_size for file in files)},
        notes=tuple(f"{model.name}: {file}" for file in files),
        details={
            "file": str(files[0]),
            "names": str(files[-1]),
            "model": model.name,
            "model_key": model.model_key,
        },
    )
    save(report, location)
    return report


def _files(out: str) -> list[Path]:
    """The files that will be, none of which is there."""
    refuse_address("--out", out)
    file = Path(out).expanduser().absolute()
    if file.suffix not in (PARQUET, NUMPY):
        raise UsageError(f"--out {out!r}: expected a file that ends in {PARQUET} or {NUMPY}")
    files = [file] if file.suffix == PARQUET else [file, file.with_suffix(".csv")]
    for each in files:
        if each.exists():
            raise UsageError(f"--out {out!r}: {str(each)!r} is there already; name another file")
    if not file.parent.is_dir():
        raise UsageError(f"--out {out!r}: the folder {str(file.parent)!r} does not exist")
    return files


def _counted(batches: Iterator[pa.RecordBatch], progress: Bar) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        progress.advance(batch.num_rows)


def _as_parquet(batches: Iterable[pa.RecordBatch], columns: pa.Schema, file: Path) -> None:
    with pq.ParquetWriter(file, columns) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _as_numpy(batches: Iterable[pa.RecordBatch], shape: tuple[int, int], file: Path, names: Path) -> None:
    """Vectors into one file as they come, the other columns into the one beside it."""
    vectors_ND = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    start = 0
    columns = pa.schema([field for field in vectors.columns(shape[1]) if field.name != "vector"])
    with pyarrow.csv.CSVWriter(names, columns) as writer:
        for batch in batches:
            stop = start + batch.num_rows
            numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            vectors_ND[start:stop] = numbers.reshape(batch.num_rows, shape[1])
            writer.write_batch(batch.select(columns.names))
            start = stop
    vectors_ND.flush()
