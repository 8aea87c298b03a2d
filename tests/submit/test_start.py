"""The first step of a job: what a cluster's Python must be, and what it says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from raydist.submit import start

HERE: dict[str, Any] = {
    "python": [3, 12],
    "least_python": [3, 11],
    "ray": "2.60.0",
    "raydist": "0.1.0",
    "packaged": True,
    "any_version": False,
    "requires": ["av>=18.1,<19", "click>=8.1", 'colorama; sys_platform == "win32"'],
}
THERE = {"ray": "2.60.0", "av": "18.1.0", "click": "8.5.1"}


def told(there: dict[str, str] = THERE, python: tuple[int, int] = (3, 12), **changed: Any) -> str:
    return start.problem({**HERE, **changed}, python, there.get)


def test_the_same_versions_are_no_problem() -> None:
    assert told() == ""


@pytest.mark.parametrize(
    ("there", "python", "changed", "words"),
    [
        (THERE, (3, 10), {}, "runs Python 3.10; raydist needs 3.11 or newer"),
        (THERE, (3, 10), {"any_version": True}, "raydist needs 3.11 or newer"),
        (THERE, (3, 11), {}, "runs Python 3.11, this machine 3.12"),
        (THERE | {"ray": "2.50.0"}, (3, 12), {}, "runs Ray 2.50.0, this machine 2.60.0"),
        ({"ray": "2.60.0", "click": "8.5.1"}, (3, 12), {}, "lacks av>=18.1,<19"),
        (THERE | {"av": "12.0"}, (3, 12), {}, "lacks av>=18.1,<19"),
        (THERE, (3, 12), {"packaged": False}, "has no raydist"),
        (THERE | {"raydist": "0.0.9"}, (3, 12), {"packaged": False}, "has raydist 0.0.9, this machine 0.1.0"),
    ],
)
def test_what_is_wrong_is_told(there: dict[str, str], python: tuple[int, int], changed: Any, words: str) -> None:
    assert words in told(there, python, **changed)


def test_other_versions_run_where_they_are_wanted() -> None:
    assert told(THERE | {"ray": "2.50.0"}, (3, 11), any_version=True) == ""
    assert told(THERE | {"raydist": "0.0.9"}, packaged=False, any_version=True) == ""
