"""What Ray's start must not swallow."""

from __future__ import annotations

import os
import signal
import time

import pytest

from raydist import runtime


class Hook:
    """What Python runs in between and whose exceptions it ignores, as those of forks and imports."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)


def test_a_ctrl_c_amid_a_hook_is_held_until_the_end_and_not_lost() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), runtime._interrupts_kept():
        Hook()
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_counts_at_once() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), runtime._interrupts_kept():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        reached = True
    assert not reached


def test_without_a_ctrl_c_nothing_changes() -> None:
    with runtime._interrupts_kept():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
