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


def hooked(reached: list[str]) -> None:
    with runtime.interrupts_kept():
        Hook()
        reached.append("end")


def stopped(reached: list[str]) -> None:
    with runtime.interrupts_kept():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        reached.append("end")


def pressed_twice(reached: list[str]) -> None:
    with runtime.interrupts_kept():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        reached.append("end")


def test_a_ctrl_c_amid_a_hook_is_held_until_the_end_and_not_lost() -> None:
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        hooked(reached)
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stop_of_a_job_is_held_like_a_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    runtime.take_stops()
    reached: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            stopped(reached)
        assert reached == ["end"]
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_ctrl_c_counts_at_once() -> None:
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        pressed_twice(reached)
    assert reached == []


def test_without_a_ctrl_c_nothing_changes() -> None:
    with runtime.interrupts_kept():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
