"""hits: what a search finds among the demo's films, and how often it is the right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raydist import search
from raydist.config import Config
from raydist.demo.films import Film
from raydist.demo.words import Combination
from raydist.search import Query

Say = Callable[[str], None]

TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A hit and the film it is of."""

    film: Film
    clip_id: str
    score: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How often the clip of a caption is first, or among the first five."""

    clips: int
    top1: float
    top5: float


def find(config: Config, texts: Sequence[str], roots: Mapping[str, Sequence[Film]]) -> dict[str, list[Found]]:
    """The first hits of each text, with `embed.model` and `embed.adapter`.

    Args:
        roots: name of a root -> its films; only these are searched.
    """
    films = {f"{root}/{film.file.name}": film for root, inside in roots.items() for film in inside}
    where = " OR ".join(f"video_id LIKE '{root}/%'" for root in roots)
    found: dict[str, list[Found]] = {text: [] for text in texts}
    asked = config.model_copy(update={"search": config.search.model_copy(update={"top": TOP})})
    for hit in search.run(asked, [Query(words=text) for text in texts], where=where).to_pylist():
        found[hit["query"]].append(
            Found(
                film=films[hit["video_id"]],
                clip_id=hit["clip_id"],
                score=hit["score"],
                start_s=hit["start_s"],
                end_s=hit["end_s"],
            )
        )
    return found


def measure(chosen: Sequence[Film], found: Mapping[str, Sequence[Found]]) -> Accuracy:
    """Text to video: each film's caption against all films."""
    ranks = [rank_of(film, found[film.caption]) for film in chosen]
    return Accuracy(
        clips=len(chosen),
        top1=sum(rank == 1 for rank in ranks) / len(ranks),
        top5=sum(rank is not None and rank <= TOP for rank in ranks) / len(ranks),
    )


def rank_of(film: Film, hits: Sequence[Found]) -> int | None:
    """Rank of a film among hits, from 1; None where it is not among them."""
    return next((rank for rank, hit in enumerate(hits, start=1) if hit.film == film), None)


def shows(shown: Combination, wanted: Mapping[str, str]) -> bool:
    """Whether a clip shows everything that was asked for."""
    return all(getattr(shown, name) == value for name, value in wanted.items())


def tell(say: Say, query: str, wanted: Mapping[str, str], hits: Sequence[Found]) -> None:
    """Say the first three hits of a query, and which are right."""
    say(f'search "{query}"')
    for hit in hits[:3]:
        mark = "+" if shows(hit.film.shown, wanted) else "-"
        say(f"  {mark} {hit.score:.3f}  {hit.clip_id}  {hit.film.caption}")
