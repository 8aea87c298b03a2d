"""A cluster that wants a token, as all that cluster/ ships do."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import embeddings, videos
from here import cluster, run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
TOKEN, OTHER = "7f3a" * 16, "0b1c" * 16


def test_jobs_run_with_the_token_and_only_with_it(tmp_path: Path) -> None:
    drawn, archive = videos(tmp_path / "videos", 2, 3), tmp_path / "archive"
    with cluster("2", "1", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as there:
        right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        listed = ("jobs", "list", "--address", there.jobs)
        none = run(*listed, RAY_AUTH_MODE="disabled")
        wrong = run(*listed, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=OTHER)
        for refused in (none, wrong):
            assert refused.code == 1
            assert f"the cluster at {there.jobs} wants another token: set RAY_AUTH_MODE=token" in refused.err
            assert TOKEN not in refused.err
            assert OTHER not in refused.err
        place = ("--archive", str(archive), "--address", there.jobs)
        scanned = run("submit", "scan", str(drawn), "--clip-seconds", "1", *place, **right)
        assert scanned.code == 0, scanned.err
        made = run("submit", "embed", "--model", "tiny", "--set=embed.device=cpu", *place, "--json", **right)
        assert made.code == 0, made.err
        assert made.err.startswith("job embed-")  # without the chatter of Ray's own client
        assert made.json()[0]["counts"] == {"clips": 6, "rows": 6, "failed": 0}
        told = run(*listed, "--json", **right)
        assert len(told.json()) == 2
        assert TOKEN not in scanned.err + made.err + made.out + told.out
    assert len(embeddings(archive)) == 6
