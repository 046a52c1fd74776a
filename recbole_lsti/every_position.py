"""RecBole's own causal models trained from every position of a sequence, the classes unchanged.

In GRU4Rec, SASRec and their like `gather_indexes` picks the output at the last item, and the loss needs no more than
(T, H) outputs and (T,) targets. Picking the outputs at all positions that have a target instead trains the same model
on the same targets in one pass over each sequence. Whether a model allows it is found out by trying, not by a list.
Shapes: B batch, L sequence length, H hidden size, T targets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

TOLERANCE = 1e-4  # relative and absolute, on losses of float32 models


class EveryPosition:
    """The loss of a RecBole model over all targets of a batch of sequences: the mean, as its own loss is.

    Args:
        model: a RecBole SequentialRecommender.
        target_field (str): the batch's (B, L) int64 targets, 0 where there is none.
        negative_field (str): sampled items where the targets stand, for pairwise losses.
    """

    def __init__(self, model: Any, target_field: str, negative_field: str) -> None:
        self.model, self.target_field, self.negative_field = model, target_field, negative_field

    def __call__(self, interaction: Any) -> Tensor:
        """Return `model.calculate_loss` over every target of the batch."""
        model = self.model
        row, step = interaction[self.target_field].nonzero(as_tuple=True)
        batch = Interaction(dict(interaction.interaction))
        batch[model.POS_ITEM_ID] = interaction[self.target_field][row, step]
        if self.negative_field in interaction:
            batch[model.NEG_ITEM_ID] = interaction[self.negative_field][row, step]
        model.gather_indexes = lambda output, last: output[row, step]  # hides the class's method while the loss runs
        try:
            return model.calculate_loss(batch)
        finally:
            del model.gather_indexes

    @torch.no_grad()
    def check(self) -> None:
        """Compare the loss of sequences with those of their prefixes, on random histories and random weights.

        Fresh weights are so small that every output looks like every other; a copy of the model gets larger ones.

        Raises:
            ValueError: if they differ, or the model cannot be asked: it must be trained in prefix mode.
        """
        devices = [p.device for p in self.model.parameters() if p.is_cuda][:1]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            model = copy.deepcopy(self.model).eval()
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            reason = _Trial(EveryPosition(model, self.target_field, self.negative_field)).difference()
        if reason:
            raise ValueError(f"train_mode (sequence) must be prefix for {type(model).__name__}: {reason}")


class _Trial:
    """A few random histories, B rows with a target behind each of their steps, asked in both ways."""

    def __init__(self, every_position: EveryPosition) -> None:
        self.every_position, self.model = every_position, every_position.model
        self.B, self.steps, self.L = 3, min(8, self.model.max_seq_length), self.model.max_seq_length
        self.device = next(self.model.parameters()).device
        self.real = torch.arange(self.L, device=self.device) < self.steps
        self.item_seq, self.target, self.negative = (self._random() for _ in range(3))

    def difference(self) -> str:
        """Return why the losses differ, or an empty text."""
        try:
            prefixes = [self._prefix_loss(step) for step in range(self.steps)]
            together = self._sequence_loss(self.item_seq, range(self.steps))
        except _CANNOT:
            return "its loss needs more of a sequence than the outputs at its targets"
        if _close(together, sum(prefixes) / self.steps):
            return ""
        later = torch.arange(self.L, device=self.device) > 2
        other = torch.where(later, self._random(), self.item_seq)
        if not _close(self._sequence_loss(other, [2]), self._sequence_loss(self.item_seq, [2])):
            return "its output at a step changes with later items"
        return "its output at a step of a sequence is not its output for the history up to there"

    def _prefix_loss(self, step: int) -> Tensor:
        later = torch.arange(self.L, device=self.device) > step
        batch = self._batch(self.item_seq.masked_fill(later, 0), step + 1)
        batch[self.model.POS_ITEM_ID] = self.target[:, step]
        batch[self.model.NEG_ITEM_ID] = self.negative[:, step]
        return self.model.calculate_loss(batch)

    def _sequence_loss(self, item_seq: Tensor, steps: Iterable[int]) -> Tensor:
        batch = self._batch(item_seq, self.steps)
        chosen = torch.zeros(self.L, dtype=torch.bool, device=self.device)
        chosen[list(steps)] = True
        batch[self.every_position.target_field] = self.target.masked_fill(~chosen, 0)
        batch[self.every_position.negative_field] = self.negative
        return self.every_position(batch)

    def _batch(self, item_seq: Tensor, length: int) -> Interaction:
        return Interaction(
            {
                self.model.USER_ID: torch.ones(self.B, dtype=torch.int64, device=self.device),
                self.model.ITEM_SEQ: item_seq,
                self.model.ITEM_SEQ_LEN: torch.full((self.B,), length, device=self.device),
            }
        )

    def _random(self) -> Tensor:
        return torch.randint(1, self.model.n_items, (self.B, self.L), device=self.device) * self.real


_CANNOT = (RuntimeError, IndexError, KeyError, ValueError, TypeError, AttributeError)


def _close(a: Any, b: Any) -> bool:
    return torch.is_tensor(a) and torch.is_tensor(b) and torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
