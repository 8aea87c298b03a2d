"""Data in a job's log."""

from __future__ import annotations

import json

import click
import pytest

from raydist.progress import Doing
from raydist.submit.marks import Told, marked


def test_data_comes_out_of_a_log_as_it_went_in(capsys: pytest.CaptureFixture[str]) -> None:
    said = [json.dumps({"words": "é\u2028 raydist| x", "number": 1}, ensure_ascii=False), "", "  a table", "x" * 50_000]
    with marked():
        for line in said:
            click.echo(line)
            click.echo("talk", err=True)
        click.echo("no end", nl=False)
    out, log = capsys.readouterr()
    assert out == ""
    told, lines = Told(), []
    for at in range(0, len(log), 777):  # a log comes in pieces of any size
        lines += told.feed(log[at : at + 777])
    lines += told.rest()
    assert [line for is_data, line in lines if is_data] == [*said, "no end"]
    assert [line for is_data, line in lines if not is_data] == ["talk"] * 4


def test_progress_is_a_line_in_a_log() -> None:
    doing = Doing(doing="embedding with tiny", done=1_200, total=60_000, rate=20.0)
    assert doing.line() == "embedding with tiny: 1,200 of 60,000 (2%), 20.0/s, 49 min left"
    assert Doing(doing="looking for files", done=0, total=0, rate=0.0).line() == "looking for files: 0, 0.0/s"
