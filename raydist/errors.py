"""Every error that a person can mend, in one tree.

RaydistError                    exit code 1
├── UsageError                  exit code 2: wrong words on the command line or in a call
│   └── ConfigError             unknown key, value out of bounds, unreadable file
├── ArchiveError                no archive there, one of another format, or settings that would change clips' meaning
├── StoreError                  a table that is missing, of another width, or busy
│   └── AwayError               a bucket's server that does not answer, or cannot at the moment
├── SourceError                 a file or folder that cannot be read; carries the one-word `reason`
├── ClipError                   a span or a clip id that is none
├── ModelError                  a model that is unknown, incomplete or not on this machine
├── TrainError                  a training run that cannot begin or go on
├── ProviderError               a provider of captions that cannot be used: no key, wrong key, quota used up, no answer
└── ResourceError               the cluster cannot run the plan

A message states the value, what was expected, and what to do. `ValueError` is for a caller's mistake inside the
package, `assert` for what cannot happen.
"""

INTERRUPTED = 130
"""Exit code of what was stopped, by Ctrl-C or otherwise."""


class RaydistError(Exception):
    """What a person can mend; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(RaydistError):
    """Wrong usage."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting that is unknown, out of bounds, or in a file that cannot be read."""


class ArchiveError(RaydistError):
    """The archive is missing, of another format, or was made with other settings."""


class StoreError(RaydistError):
    """A table is missing, has another width, or cannot be committed to."""


class AwayError(StoreError):
    """A bucket's server does not answer, or cannot at the moment: the same again, later, may work."""


class SourceError(RaydistError):
    """A file that cannot be read as a video.

    `reason` is one of `raydist.records.REASONS`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["SourceError"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


class ClipError(RaydistError):
    """A span that is empty or reversed, or a clip id that does not parse."""


class ModelError(RaydistError):
    """A model that is unknown, incomplete, or not on this machine."""


class TrainError(RaydistError):
    """A training run that cannot begin, or stopped before its end."""


class ProviderError(RaydistError):
    """A provider of captions that cannot be used, or stopped answering."""


class ResourceError(RaydistError):
    """The cluster cannot run the plan."""


_DISKS = {
    ("No space left", "os error 28", "Errno 28", "Disk quota exceeded"): (
        "the disk is full: make room there and run the same command again; what was committed is kept, and nothing is "
        "written twice"
    ),
    ("Read-only file system", "os error 30"): (
        "that place may only be read: search, status and report work so; for the rest make it writable, or "
        "work on a copy, and run the same command again"
    ),
    ("Permission denied", "os error 13"): (
        "this user may not write or read there: change the owner or the permissions, or search, which only reads, "
        "and run the same command again"
    ),
}


def disk_remedy(error: BaseException | str) -> str:
    """What to do about a disk that is full or must not be written, whoever said so; empty for other errors."""
    text = str(error)
    return next((what for signs, what in _DISKS.items() if any(sign in text for sign in signs)), "")
