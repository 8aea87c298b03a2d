"""Files for people: where those of a run are, and that the ones a person names are on this machine."""

from __future__ import annotations

from raydist import address
from raydist.errors import UsageError
from raydist.store.location import is_uri, join
from raydist.store.runs import FOLDER, run_folder


def shown(location: str, run: str, file: str) -> str:
    """The path of a run's file; in a bucket its address, and where this machine has a copy to open."""
    here = run_folder(location, run) / file
    return f"{join(location, FOLDER, run, file)} (here: {here})" if is_uri(location) else str(here)


def refuse_address(option: str, given: str) -> None:
    """
    Raises:
        UsageError: an address was given where a file or folder of this machine is written.
    """
    if is_uri(given):
        raise UsageError(
            f"{option} {address.public(given)!r}: expected a path on this machine, nothing is written to an address "
            "but the archive; write to a disk, then copy it (`aws s3 cp`, `gsutil cp`, `rclone copy`)"
        )
