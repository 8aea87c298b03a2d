"""A cluster that grows by Ray's own autoscaler is asked for nodes, and uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import growing
import pytest
from ray.autoscaler._private.util import validate_config

pytestmark = pytest.mark.timeout(900)


def test_what_the_autoscaler_reads_is_a_configuration_that_it_takes() -> None:
    given = growing.configuration("127.0.0.1:6000", 0, 2, 3)
    validate_config(json.loads(json.dumps(given)))


def test_a_session_is_ended_with_all_that_it_began_and_nothing_else() -> None:
    began = "import subprocess, sys; subprocess.Popen(['sleep', '300']); print('there', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", began]
    one = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    other = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        assert one.stdout is not None
        one.stdout.readline()
        assert len(growing.of_session(one.pid)) == 2
        growing.end(growing.of_session(one.pid))
        assert not growing.of_session(one.pid)
        assert len(growing.of_session(other.pid)) == 1
    finally:
        for process in (one, other):
            process.kill()
            process.wait()


@pytest.mark.ray
@pytest.mark.slow
def test_clips_are_decoded_on_nodes_that_come_because_they_wait() -> None:
    words = [sys.executable, str(Path(growing.__file__))]
    shown = subprocess.run(words, capture_output=True, text=True, check=False, timeout=800)
    assert shown.returncode == 0, shown.stderr[-3000:]
    seen = json.loads(shown.stdout.splitlines()[-1])
    clips = growing.FILES * growing.SECONDS
    assert seen["counts"] == {"clips": clips, "rows": clips, "failed": 0}, seen
    assert seen["every_clip_once"], seen
    # The head has no cores, and a node has room for one decoder beside the encoder.
    assert seen["nodes"] >= 2, seen
    assert seen["decoders"] >= 2, seen
