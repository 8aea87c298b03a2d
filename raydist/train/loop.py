"""The loop of one training worker, from the first step or from a checkpoint to the end.

Reads     the run's pairs, frames from the cache (or decoded anew), the base model
Writes    on the first worker only: the journal, TensorBoard's files, and at the end the adapter
Promises  all workers take the same decisions at the same steps; a run that was stopped anywhere and goes on from its
          checkpoint has the losses that it would have had (bit for bit on the same machine and worker count)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import distributed, nn

from raydist.models.encoder import Encoder
from raydist.models.lora import LoRA
from raydist.train.feed import Ahead, Fed, Feed
from raydist.train.loss import LOWEST_TEMPERATURE
from raydist.train.recorder import Recorder
from raydist.train.schedule import rate_at
from raydist.train.state import State
from raydist.train.step import Step
from raydist.train.task import Task
from raydist.train.watch import NotFiniteError, Watch

Keep = Callable[[State], None]
"""Makes a checkpoint; called by all workers at the same step."""

DONE, PATIENCE, INTERRUPTED, NOT_FINITE = "done", "patience", "interrupted", "not_finite"
FAILED = "failed"
"""Not by the loop: for a reason that would come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop works with."""

    task: Task
    encoder: Encoder
    lora: LoRA
    feed: Feed
    watch: Watch
    pairs: pa.Table
    """Trained ones."""
    steps_per_epoch: int
    recorder: Recorder | None
    """On the first worker."""


class Loop:
    """Trains until the schedule's end, the end of patience, a request to stop, or a loss that is no number."""

    def __init__(self, parts: Parts, state: State, keep: Keep) -> None:
        self._parts = parts
        self._section = parts.task.section
        self._keep = keep
        self.state = state
        self._named = parts.lora.parameters()
        self._temperature = nn.Parameter(
            torch.tensor(parts.encoder.temperature, device=parts.encoder.device),
            requires_grad=self._section.learn_temperature,
        )
        self._optimizer = self._make_optimizer()
        self._step = Step(parts.encoder, self._temperature, self._section.micro_batch)
        self._unread = set(state.unread)
        self.steps = self._section.epochs * parts.steps_per_epoch
        """The schedule's horizon."""

    def run(self) -> State:
        """Go on from the state to an end; why it ended stands in `stopped` of what is returned."""
        if self.state.step or self.state.baseline:
            self._restore()
        try:
            if not self.state.baseline:
                self._evaluate()
            if not self.state.stopped:
                self._train()
        except NotFiniteError:
            self.state.stopped = NOT_FINITE
        return self.state

    def _train(self) -> None:
        state, since = self.state, time.monotonic()
        ahead = Ahead(self._parts.feed.batches(state.step, self.steps))
        try:
            for fed in self._timed(ahead):
                if agreed(self._asked_to_stop(), self._parts.encoder.device):
                    state.stopped = INTERRUPTED
                    break
                self._advance(fed)
                ended = state.step % self._parts.steps_per_epoch == 0
                if ended or state.step % self._section.eval_steps == 0:
                    self._evaluate()
                if ended and self._out_of_patience():
                    state.stopped = PATIENCE
                    break
                if state.step % self._section.checkpoint_steps == 0:
                    self._checkpoint(time.monotonic() - since)
                    since = time.monotonic()
            else:
                state.stopped = DONE
        finally:
            ahead.close()
        self._checkpoint(time.monotonic() - since)

    def _timed(self, ahead: Ahead) -> Any:
        """Batches, with how long each was waited for."""
        self._asked = time.monotonic()
        for fed in ahead:
            self._got = time.monotonic()
            yield fed
            self._asked = time.monotonic()

    def _advance(self, fed: Fed) -> None:
        """One step: gradients, clipping, the optimizer."""
        began = self._asked
        state, section = self.state, self._section
        learning_rate = section.learning_rate * rate_at(state.step, self.steps, section.warm_up)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = float(self._step.gradients(fed.share))
        state.step += 1
        self._unread.update(fed.unread)
        if not math.isfinite(loss):
            raise self._blamed(fed)
        norm = float(nn.utils.clip_grad_norm_([p for _, p in self._named], section.clip_norm))
        if not math.isfinite(norm):  # of a finite loss: clipped, it would turn all matrices into NaN
            raise self._blamed(fed)
        self._optimizer.step()
        if self._temperature.requires_grad:  # one that is not learnt stays the model's own, however low
            with torch.no_grad():
                self._temperature.clamp_(min=LOWEST_TEMPERATURE)
        spent = time.monotonic() - began
        if self._parts.recorder is not None:
            self._parts.recorder.step(
                state.step,
                epoch=(state.step - 1) // self._parts.steps_per_epoch,
                loss=loss,
                learning_rate=learning_rate,
                temperature=float(self._temperature.detach()),
                gradient_norm=norm,
                samples_per_s=len(fed.indices) / max(spent, 1e-9),
                data_wait=(self._got - began) / max(spent, 1e-9),
            )

    def _blamed(self, fed: Fed) -> NotFiniteError:
        """The end of a run, with the clips of the batch that brought it about."""
        self.state.culprits = self._parts.pairs.take(pa.array(fed.indices))["clip_id"].to_pylist()
        return NotFiniteError()

    def _evaluate(self) -> None:
        """Look at the held-out clips, and keep the adapter if it is the best so far."""
        state, parts = self.state, self._parts
        seen = parts.watch.look(self._step, float(self._temperature.detach()))
        figures = {**seen.figures(), "step": state.step, "epoch": self._epoch()}
        if not state.baseline:
            state.baseline = figures
        if not state.best or figures["loss"] < state.best["loss"]:
            state.best, state.best_adapter = figures, parts.lora.state()
            state.best_temperature = float(self._temperature.detach())
        if parts.recorder is not None:
            parts.recorder.evaluation(state.step, seen, figures, parts.watch)

    def _epoch(self) -> int:
        """The epoch of the last step, from 0; -1 before the first."""
        return (self.state.step - 1) // self._parts.steps_per_epoch

    def _out_of_patience(self) -> bool:
        """Whether enough whole epochs have gone by since the one with the best evaluation."""
        return self._epoch() - int(self.state.best["epoch"]) >= self._section.patience

    def _asked_to_stop(self) -> bool:
        return self._parts.recorder is not None and self._parts.recorder.asked_to_stop()

    def _checkpoint(self, seconds: float) -> None:
        state = self.state
        state.adapter = self._parts.lora.state()
        state.temperature = float(self._temperature.detach())
        state.optimizer = self._optimizer.state_dict()
        state.unread = everyone(sorted(self._unread))
        state.seconds += seconds
        if self._parts.recorder is not None:  # first: no checkpoint is ahead of the journal
            self._parts.recorder.sent()
        self._keep(state)

    def _restore(self) -> None:
        state = self.state
        if state.stopped == INTERRUPTED:
            state.stopped = ""
        self._parts.lora.load(state.adapter)
        with torch.no_grad():
            self._temperature.fill_(state.temperature)
        self._optimizer.load_state_dict(state.optimizer)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW that decays matrices, and neither biases and norms nor the temperature."""
        decayed = [p for _, p in self._named if p.ndim > 1]
        plain = [p for _, p in self._named if p.ndim <= 1]
        if self._temperature.requires_grad:
            plain.append(self._temperature)
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": self._section.weight_decay}]
        if plain:
            groups.append({"params": plain, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=0.0)


def agreed(asked: bool, device: torch.device) -> bool:
    """Whether any worker asks: all get the same answer."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return asked
    flag = torch.tensor(int(asked), device=device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag)


def everyone(own: list[str]) -> list[str]:
    """What any worker has, sorted."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return own
    lists: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(lists, own)
    return sorted({name for part in lists for name in part})
