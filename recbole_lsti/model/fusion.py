"""How what the branches say becomes one user vector.

Shapes: B batch, L sequence length, T targets, H hidden size, D width of item and user vectors: 2H where each branch has
item vectors of its own, else H.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Interests(NamedTuple):
    """What the branches say at every step; `long + short` is the user vector that scores the items.

    `gate` is the share of the long branch, 0..1, where the fusion has one: (B, L, H) for `gate`, (B, L, 1) for
    `scalar`. `long` and `short` are the parts that enter the score, already gated: (B, L, D), each 0 where the item
    vectors of the other branch stand. A branch that the fusion leaves out is None.
    """

    long: Tensor | None
    short: Tensor | None
    gate: Tensor | None

    @property
    def user(self) -> Tensor:
        """The fused user vector, (B, L, D)."""
        if self.long is None or self.short is None:
            (part,) = (part for part in (self.long, self.short) if part is not None)
            return part
        return self.long + self.short

    def at(self, row: Tensor, step: Tensor) -> Interests:
        """The interests of T chosen (row, step) pairs: every part becomes (T, D)."""
        return Interests(*(None if part is None else gather(part, row, step) for part in self))


class Read(NamedTuple):
    """What the branches have made of a history, normalised, (..., H), None where there is no such branch.

    `events` is what both have read, (..., D).
    """

    long: Tensor | None
    short: Tensor | None
    events: Tensor

    def at(self, row: Tensor, step: Tensor) -> Read:
        """The same of T chosen (row, step) pairs: (T, H) and (T, D)."""
        return self._each(lambda part: gather(part, row, step))

    def fixed(self, n: int) -> Read:
        """The same of every nth target, through which nothing is learned."""
        return self._each(lambda part: part[::n].detach())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Read:
        long, short = (None if part is None else change(part) for part in (self.long, self.short))
        return Read(long, short, change(self.events))


def gather(part: Tensor, row: Tensor, step: Tensor) -> Tensor:
    """(B, L, D) at T chosen (row, step) pairs, (T, D): what part[row, step] is, with a faster gradient."""
    return part.flatten(0, 1).index_select(0, row * part.shape[1] + step)


class Fusion(nn.Module):
    """Join the normalised branches into two parts that add up to the user vector.

    The branches are normalised before they are joined and nothing non-linear follows, so the score splits exactly:
    `gate` w*l + (1-w)*s with w per dimension, `scalar` one w a step, `sum` l + s, `concat` V[l; s] = V_l l + V_s s.
    Where the branches are `apart`, each part lies in a half of its own: [g*l; (1-g)*s] and so on.

    With `history_mean` the long branch is joined by the mean of the vectors that the items of its history are scored
    by: normalised, weighted per dimension, added to l. What a user has liked on the whole then reaches the score on a
    straight way, and the LSTM is left to tell what differs from it.

    Source of the mean: FISM, Kabbur et al., KDD 2013. Differs: one vector of an item for the history and for the score,
    scaled by normalisation, beside an LSTM.
    """

    def __init__(self, kind: str, H: int, apart: bool, history_mean: bool) -> None:
        super().__init__()
        self.H, self.apart = H, apart
        self.mean_weight = nn.Parameter(torch.ones(H)) if history_mean and kind != "short" else None
        self.long_norm = nn.LayerNorm(H) if kind != "short" else None
        self.short_norm = nn.LayerNorm(H) if kind != "long" else None
        self.gate: nn.Sequential | None = None
        if kind in ("gate", "scalar"):
            width = (4 if apart else 3) * H  # both branches and what they read
            self.gate = nn.Sequential(nn.Linear(width, H), nn.GELU(), nn.Linear(H, H if kind == "gate" else 1))
        self.mix_long = nn.Linear(H, H, bias=False) if kind == "concat" else None
        self.mix_short = nn.Linear(H, H, bias=False) if kind == "concat" else None

    def forward(self, long: Tensor | None, short: Tensor | None, events: Tensor, mean: Tensor | None) -> Interests:
        """Return parts of shape (..., D); arguments as of `normalise`."""
        return self.join(self.normalise(long, short, events, mean))

    def normalise(self, long: Tensor | None, short: Tensor | None, events: Tensor, mean: Tensor | None) -> Read:
        """Bring the branches to one scale.

        Args:
            long, short (Tensor | None): (..., H), what the branches put out.
            events (Tensor): (..., D), what they have read.
            mean (Tensor | None): (..., H), the mean of the item vectors that the long branch has read.
        """
        if self.long_norm is not None and long is not None:
            long = self.long_norm(long)
            if self.mean_weight is not None and mean is not None:
                long = long + self.mean_weight * F.layer_norm(mean, (self.H,))
        return Read(long, None if self.short_norm is None or short is None else self.short_norm(short), events)

    def join(self, read: Read) -> Interests:
        """Fuse branches that `normalise` has brought to one scale: their parts of the user vector, and the gate."""
        long, short, events = read
        if long is None or short is None:
            return Interests(long, short, None)
        gate = None
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(torch.cat([long, short, events], dim=-1)))
            long, short = gate * long, (1 - gate) * short
        elif self.mix_long is not None and self.mix_short is not None:
            long, short = self.mix_long(long), self.mix_short(short)
        return Interests(*self.alone(long, short), gate)

    def alone(self, long: Tensor | None, short: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What each branch says, (..., H), as a user vector for itself, (..., D)."""
        if not self.apart:
            return long, short
        return None if long is None else F.pad(long, (0, self.H)), None if short is None else F.pad(short, (self.H, 0))
