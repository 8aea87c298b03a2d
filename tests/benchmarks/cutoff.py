"""bench cutoff: what `--min-score auto` lets through, and what it holds back. Answers: does it tell what is there?

    python tests/benchmarks/cutoff.py --archive demo-archive --model tiny --captions demo-archive/demo/captions.csv

Asks 60 queries about nothing that a camera can show (none is among those that the cut-off is measured with), and every
caption of the list in three ways: as it is, its first half, and its colour and object alone where the list has them. Of
the former nothing should pass; of the latter each one's own clip, or for the short ones any clip. The bundled everyday
queries are asked too: some of their words, such as colours, are in a drawn archive. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from raydist import search  # noqa: E402
from raydist.config import load  # noqa: E402
from raydist.search import Query, cutoff  # noqa: E402

NOTHING = """
the outcome of a negotiation
an increase in the base rate
a footnote to the appendix
the history of an idea
a polite refusal
the definition of done
an unread message
the ethics of belief
a change in policy
the sound of the letter k
a forgotten password hint
seventeen divided by four
the plural of a noun
a reasonable doubt
the advantage of age
unpaid overtime
a warranty that ran out
the middle of next week
an opinion on opinions
the need for closure
a proof by contradiction
the name of a feeling
a budget shortfall
freedom of contract
the irony of it
a matter of taste
the risk of inaction
an honest mistake
a subsidy for exports
the length of a pause
double taxation
the rules of procedure
a half-remembered tune
the causes of the recession
an ambiguous pronoun
a waiver of liability
the gist of an essay
last year's resolutions
an offer that expired
the smell of rain in a memory
a tie-break rule
the concept of ownership
mutual recognition
a shortage of qualified staff
the end of the fiscal year
an excuse for the delay
a lack of evidence
the letter of the law
an imaginary number
a hidden assumption
pension entitlement
the order of adjectives
a slip of the tongue
the art of saying no
a version conflict
qwertz uiop asdf
zzz xq 42 vb
blorp fnord quux
the the the of and
undefined reference
""".strip().splitlines()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", required=True)
    parser.add_argument("--captions", required=True, type=Path, help="CSV with a caption a line")
    parser.add_argument("--model", default="")
    parser.add_argument("--adapter", default="")
    parser.add_argument("--where", help="the clips that the captions are of")
    given = parser.parse_args()
    assert not set(NOTHING) & set(cutoff.queries("nothing"))
    with given.captions.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    options = {"archive": given.archive, "embed.model": given.model or None, "embed.adapter": given.adapter or None}
    whole = [line["caption"] for line in lines]
    kinds = {
        "nothing": NOTHING,
        "everyday": list(cutoff.queries("everyday")),
        "captions": whole,
        "half captions": [" ".join(text.split()[: len(text.split()) // 2]) for text in whole],
        "colour and object": sorted({f"a {line['colour']} {line['object']}" for line in lines if line.get("object")}),
    }
    found = {kind: _asked(options, texts, given.where) for kind, texts in kinds.items() if texts}
    own = {(line["caption"], line["path"].rpartition("/")[2]) for line in lines}
    kept = {
        hit["query"] for hit in found["captions"]["hits"] if (hit["query"], hit["video_id"].rpartition("/")[2]) in own
    }
    figures = {
        kind: {"queries": len(set(kinds[kind])), "with a hit %": round(100 * one["share"], 1)}
        for kind, one in found.items()
    }
    figures["captions"]["own clip passes %"] = round(100 * len(kept) / len(set(whole)), 1)
    print(json.dumps({"bench": "cutoff", "model": f"{given.model}+{given.adapter}".strip("+"), **figures}))


def _asked(options: dict[str, Any], texts: list[str], where: str | None) -> dict[str, Any]:
    config = load(options={**options, "search.min_score": "auto", "search.top": 300, "search.moment_s": 0}).config
    asked = sorted(set(texts))
    hits = search.run(config, [Query(words=text) for text in asked], where=where).to_pylist()
    return {"hits": hits, "share": len({hit["query"] for hit in hits}) / len(asked)}


if __name__ == "__main__":
    main()
