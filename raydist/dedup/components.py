"""components: edges between clips -> groups, and the clips of them that stay.

Promises  a group is what edges connect, however long the chain; keepers are chosen more strictly, because a chain
          joins clips that are unlike: no two kept clips share an edge, and each other clip shares one with a kept clip
Memory    some 40 bytes an edge

Shape legend: N clips, E edges, D the edges of all clips in both directions
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

NONE = -1
"""In `clique`: of none; in `by`: nobody stands for this clip."""


def components(n: int, edges: NDArray[np.integer], clique: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """What hangs together.

    Args:
        n: N.
        edges: [E, 2] numbers of clips below n, in any direction, repeats allowed.
        clique: [N] number of the clique that a clip is in, `NONE` for none: each member has an edge to each other.

    Returns:
        [N] int64: the smallest number of a clip in the same group.

    Raises:
        ValueError: edges that are not [E, 2] or name clips that there are not.
    """
    a, b = _ends(n, edges)
    if clique is not None:
        members, pivots = _to_first(np.asarray(clique))
        a, b = np.concatenate([a, members]), np.concatenate([b, pivots])
    if not n:
        return np.empty(0, np.int64)
    kind = np.int32 if n < 2**31 else np.int64
    # A byte an edge is all that the graph needs to hold; true stays true where an edge is given several times.
    graph = csr_array((np.ones(len(a), np.bool_), (a.astype(kind), b.astype(kind))), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    first = np.full(int(labels.max()) + 1, n, np.int64)
    np.minimum.at(first, labels, np.arange(n))
    smallest: NDArray[np.int64] = first[labels]
    return smallest


def keepers(
    order: NDArray[np.integer], edges: NDArray[np.integer], clique: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which clips stay: each in its turn, if none before it that stays has an edge to it.

    That is the greedy maximal independent set. It depends on nothing but the order, and it is what a sequential pass
    gives; see Blelloch, Fineman, Shun: Greedy sequential maximal independent set and matching are parallel on average
    (SPAA 2012, arXiv:1202.3205). Clips whose turn is before that of all their neighbours are settled all at once, for
    a few rounds; what is left then, chains in which each waits for the one before, is walked through one by one.

    Args:
        order: [N] rank of each clip, the smallest first; equal ones in the order of their numbers.
        edges: [E, 2] numbers of clips, in any direction, repeats and loops allowed.
        clique: [N] as in `components`; the edges inside a clique are never written out.

    Returns:
        kept [N], and by [N] int64: the first kept neighbour of each clip that goes; its own number of one that stays.

    Raises:
        ValueError: edges that are not [E, 2] or name clips that there are not, a clique of another length.
    """
    n = len(order)
    a, b = _ends(n, edges)
    cliques = np.full(n, NONE) if clique is None else np.asarray(clique)
    if len(cliques) != n:
        raise ValueError(f"clique has {len(cliques)} entries, expected one for each of {n} clips")
    turn = np.empty(n, np.int64)
    turn[np.argsort(np.asarray(order), kind="stable")] = np.arange(n)
    return _Choice(turn, a, b, cliques).made()


_ROUNDS = 8
"""Of settling at once; each takes a pass over the edges that are left, of which a random order leaves a few percent."""


class _Choice:
    """The choice at work, in turns: clip t is the one whose turn is t."""

    def __init__(
        self, turn: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], clique: NDArray[np.integer]
    ) -> None:
        n = len(turn)
        self._turn = turn
        early, late = np.minimum(turn[a], turn[b]), np.maximum(turn[a], turn[b])
        real = early != late
        self._early, self._late = early[real], late[real]
        self._clique = np.full(n, NONE, np.int64)
        self._clique[turn] = clique
        self._clique_kept = np.full(int(self._clique.max(initial=NONE)) + 1, n, np.int64)
        """Of each clique, the turn of its member that stays; n: none so far."""
        self._kept = np.zeros(n, np.bool_)
        self._gone = np.zeros(n, np.bool_)

    def made(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """What `keepers` returns."""
        early, late = self._early, self._late
        for _ in range(_ROUNDS):
            self._settle(early, late)
            settled = self._kept | self._gone
            left = ~(settled[early] | settled[late])
            early, late = early[left], late[left]
            if not len(early) and settled.all():
                break
        self._walk(early, late)
        by = self._by()
        clip = np.empty(len(by), np.int64)
        clip[self._turn] = np.arange(len(by))
        return self._kept[self._turn], clip[by][self._turn]

    def _settle(self, early: NDArray[np.int64], late: NDArray[np.int64]) -> None:
        """One round: keep what waits for nobody, and let its neighbours go. The edges are those between open clips."""
        settled = self._kept | self._gone
        fresh = ~settled
        fresh[late] = False
        inside = np.flatnonzero((self._clique != NONE) & ~settled)
        clique = self._clique[inside]
        first = np.full(len(self._clique_kept), len(settled), np.int64)
        np.minimum.at(first, clique, inside)
        fresh[inside] &= first[clique] == inside
        self._kept |= fresh
        self._gone[late[fresh[early]]] = True
        stay = inside[fresh[inside]]
        self._clique_kept[self._clique[stay]] = stay
        self._gone[inside[~fresh[inside] & (self._clique_kept[clique] < len(settled))]] = True

    def _walk(self, early: NDArray[np.int64], late: NDArray[np.int64]) -> None:
        """Settle the rest, each in its turn."""
        n = len(self._kept)
        order = np.argsort(early, kind="stable")
        early, late = early[order], late[order]
        open_ = np.flatnonzero(~(self._kept | self._gone))
        starts, ends = np.searchsorted(early, open_), np.searchsorted(early, open_, "right")
        for turn, start, end in zip(open_.tolist(), starts.tolist(), ends.tolist(), strict=True):
            clique = self._clique[turn]
            if self._gone[turn] or (clique != NONE and self._clique_kept[clique] < n):
                self._gone[turn] = True
                continue
            self._kept[turn] = True
            if clique != NONE:
                self._clique_kept[clique] = turn
            if end > start:
                self._gone[late[start:end]] = True

    def _by(self) -> NDArray[np.int64]:
        """Of each clip that goes the first kept neighbour, of the others themselves."""
        by = np.full(len(self._kept), len(self._kept), np.int64)
        inside = np.flatnonzero(self._clique != NONE)
        by[inside] = self._clique_kept[self._clique[inside]]
        from_kept = self._kept[self._early]
        np.minimum.at(by, self._late[from_kept], self._early[from_kept])
        own = np.flatnonzero(self._kept)
        by[own] = own
        return by


def _ends(n: int, edges: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    edges = np.asarray(edges)
    if not len(edges):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"edges have shape {edges.shape}, expected [E, 2]")
    if edges.min() < 0 or edges.max() >= n:
        raise ValueError(f"edges name clips {edges.min()} to {edges.max()}, expected 0 to {n - 1}")
    return edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)


def _to_first(clique: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges that join each clique: from each member to one of them."""
    members = np.flatnonzero(clique != NONE)
    _, first, which = np.unique(clique[members], return_index=True, return_inverse=True)
    return members, members[first][which]
