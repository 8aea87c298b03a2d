"""The command line: parse, resolve the settings, call the stage, print. Data on stdout, talk on stderr."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import click

from raydist.cli import about, cluster, dedup, finding, stages
from raydist.cli.common import cli
from raydist.errors import INTERRUPTED, RaydistError, disk_remedy
from raydist.progress import talk

__all__ = ["about", "cli", "cluster", "dedup", "finding", "main", "stages", "told"]


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run the command and turn errors into one message and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if sys.platform == "win32":
        talk.print("raydist does not run on Windows itself: use it in WSL2")
        raise SystemExit(2)
    _take_stops()
    told(lambda: cli.main(args=arguments, prog_name="raydist", standalone_mode=False))


def told(work: Callable[[], object]) -> None:
    """Do it; what it raises becomes one message and an exit code."""
    try:
        work()
    except (click.exceptions.Abort, KeyboardInterrupt):  # click makes the first of the second
        talk.print("interrupted; the same command goes on from here")
        sys.stdout.flush()
        sys.stderr.flush()
        # Not `sys.exit`: threads of Ray's and Lance's native code that were in the middle of something crash some of
        # the interpreter's orderly ends, and the exit code would be that of the crash.
        os._exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except RaydistError as error:
        # What a worker raised comes with its traceback; `--debug` shows that.
        _explain(error, str(getattr(error, "cause", None) or error))
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # `raydist search … | head`: the reader has enough; Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:  # noqa: BLE001  # the one edge where anything becomes a message
        remedy = disk_remedy(error)
        if remedy:
            _explain(error, f"{getattr(error, 'cause', None) or error}: {remedy}")
            raise SystemExit(1) from None
        _explain(error, f"{type(error).__name__}: {error}\nThis is not expected; --debug shows where it comes from.")
        raise SystemExit(1) from None


def _take_stops() -> None:
    """What a cluster or a service manager stops ends as with Ctrl-C: stages commit what is done."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _explain(error: BaseException, message: str) -> None:
    from raydist.store.credentials import scrubbed

    if os.environ.get("RAYDIST_DEBUG"):
        talk.print(scrubbed("".join(traceback.format_exception(error))), markup=False)
    talk.print(f"error: {scrubbed(message)}", markup=False, style="red")
