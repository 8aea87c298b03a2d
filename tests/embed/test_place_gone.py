"""A run whose videos' place is not there: it ends, and does not note a night of clips as failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic
from archives import rows

from raydist import embed
from raydist.errors import SourceError
from raydist.store import outcomes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]
CLIPS = outcomes.LEAST * 2


def test_a_place_that_is_gone_ends_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    archive = synthetic.write(tmp_path / "archive", CLIPS)
    with pytest.raises(SourceError, match=r"could not be read \(missing [\d,]+\).*the same command goes on"):
        embed.run(synthetic.configure(archive, "embed.commit_rows=300"))
    noted = len(rows(archive, "failures"))
    assert noted < outcomes.LEAST
    told = embed.run(synthetic.configure(archive, "embed.commit_rows=300", "max_failed=1"))
    assert told.failures == {"missing": CLIPS - noted}
    assert len(rows(archive, "failures")) == CLIPS
