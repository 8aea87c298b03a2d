"""What the first worker writes down while a run trains: the journal, TensorBoard's curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from raydist.train.journal import Journal
from raydist.train.sender import Sender
from raydist.train.task import TENSORBOARD
from raydist.train.tensorboard import Board, Retrieved
from raydist.train.watch import SHOWN_CAPTIONS, SHOWN_SIMILARITIES, SHOWN_STRIPS, Seen, Watch


class Recorder:
    """Journal and TensorBoard of one run."""

    def __init__(self, sender: Sender, step: int, recipe: Mapping[str, Any]) -> None:
        """
        Args:
            step: that the run goes on from; what was written of later ones is taken out.
        """
        self.sender = sender
        """Brings it into the archive."""
        self._journal = Journal(sender.folder, step)
        self._board = Board(sender.folder / TENSORBOARD, purge_step=step + 1 if step else None)
        self._board.hyper_parameters(recipe)

    def step(self, step: int, *, epoch: int, **values: float) -> None:
        """One step's figures."""
        self._journal.write(step=step, epoch=epoch, **values)
        self._board.step(step, **values)
        self.sender.note(step=step, epoch=epoch, **values)

    def evaluation(self, step: int, seen: Seen, figures: Mapping[str, Any], watch: Watch) -> None:
        """What the held-out clips said, in figures and in pictures."""
        self._journal.write(step=step, evaluation=figures)
        self._board.evaluation(step, loss=seen.loss, text_to_video=seen.text_to_video, video_to_text=seen.video_to_text)
        self._board.confirmation(step, confirmation(seen, watch))
        self._board.similarity(step, seen.video_NE[:SHOWN_SIMILARITIES] @ seen.text_NE[:SHOWN_SIMILARITIES].T)

    def asked_to_stop(self) -> bool:
        """Whether somebody wants the run saved and ended."""
        return self.sender.asked_to_stop()

    def sent(self) -> None:
        """See that all of it is in the archive: a checkpoint comes.

        Raises:
            StoreError: the store does not take it.
        """
        self._board.flush()
        self.sender.send()

    def final(self, figures: Mapping[str, float]) -> None:
        """What the run has come to."""
        self._board.final(figures)

    def close(self) -> None:
        """The run is over, or ends here for now."""
        self._board.close()
        self._journal.close()
        self.sender.close()


def confirmation(seen: Seen, watch: Watch) -> list[Retrieved]:
    """The first few different captions, with the clips that they find now; the same captions at each evaluation."""
    _, first = np.unique(seen.caption_N, return_index=True)
    shown = []
    captions = watch.pairs["captions"]
    for query in sorted(first.tolist())[:SHOWN_CAPTIONS]:
        scores_N = seen.video_NE @ seen.text_NE[query]
        right_N = seen.caption_N == seen.caption_N[query]
        order = np.argsort(-scores_N, kind="stable")[:SHOWN_STRIPS]
        shown.append(
            Retrieved(
                caption=captions[int(seen.indices[query])].as_py()[0],
                strips=list(watch.strips(seen.indices[order].tolist())),
                right=[bool(right_N[place]) for place in order],
                scores=[float(scores_N[place]) for place in order],
                rank=float(1 + (scores_N > scores_N[right_N].max()).sum()),
                candidates=len(scores_N),
            )
        )
    return shown
