"""The two branches: an LSTM over the whole history, and self-attention over its short-term part.

Shapes: B batch, L sequence length, H hidden size, A heads, D = H / A, W items a layer sees, C = ceil(L / W) blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_lsti.model.dropout import Dropout

TIME_BUCKETS = 32  # gaps in powers of two, up to 2**31 s = 68 years


class LongBranch(nn.Module):
    """Pre-norm residual blocks of an LSTM and a feed-forward layer: the stable taste.

    Source: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as torch.nn.LSTM computes it.
    """

    needs_time = False

    def __init__(self, H: int, inner_size: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(H) for _ in range(n_layers))
        self.lstms = nn.ModuleList(nn.LSTM(H, H, batch_first=True) for _ in range(n_layers))
        self.feed_forwards = nn.ModuleList(FeedForward(H, inner_size, dropout) for _ in range(n_layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H); step t reads steps 1..t."""
        for norm, lstm, feed_forward in self._blocks():
            x = x + self.dropout(_run(lstm, norm(x))[0])
            x = x + feed_forward(x)
        return x

    def resume(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Go on where an earlier call has ended.

        Args:
            x (Tensor): (B, L, H), the next steps.
            state (Tensor): (B, n_layers, 2, H) float32, each layer's h and c; zeros before the first step.
        Returns:
            tuple: (B, L, H) outputs, and the state behind the last of the steps.
        """
        ends = []
        for layer, (norm, lstm, feed_forward) in enumerate(self._blocks()):
            y, end = _run(lstm, norm(x), _hidden(state[:, layer]))
            x = x + self.dropout(y)
            x = x + feed_forward(x)
            ends.append(_packed(end))
        return x, torch.stack(ends, dim=1)

    def carry(self, x: Tensor, state: Tensor, leave: int) -> tuple[Tensor, Tensor]:
        """Read windows of histories, each from what the window before has left.

        Args:
            x (Tensor): (B, L, H).
            state (Tensor): (B, n_layers, 2, H), what was left; zeros where no window was before.
            leave (int): 1 or more; the next window begins with the state behind so many steps of this one.
        Returns:
            tuple: (B, L, H) outputs; the state behind `leave` steps, (B, n_layers, 2, H), detached. A window of no more
            than `leave` steps is its history's last: its state is that behind its padding, and is not read again.
        """
        lefts = []
        for layer, (norm, lstm, feed_forward) in enumerate(self._blocks()):
            before, behind = norm(x).tensor_split([leave], dim=1)
            y, left = _run(lstm, before, _hidden(state[:, layer]))
            if behind.shape[1]:
                y = torch.cat([y, _run(lstm, behind, left)[0]], dim=1)
            x = x + self.dropout(y)
            x = x + feed_forward(x)
            lefts.append(_packed(left))
        return x, torch.stack(lefts, dim=1).detach()

    def _blocks(self) -> Any:
        return zip(self.norms, self.lstms, self.feed_forwards, strict=True)


class ShortBranch(nn.Module):
    """Pre-norm residual blocks of windowed self-attention and a feed-forward layer: what the user wants now.

    Args:
        H (int): hidden size.
        inner_size (int): width of the feed-forward layers.
        n_layers (int): blocks.
        n_heads (int): attention heads; divides H.
        window (int): the short-term part of a step is at most its last `window` items, itself included,
        seconds (float | None): and not older than this many seconds before the step,
        session_gap (float | None): and of the step's own session; a new one starts after a longer gap, in seconds.
        time_bias (bool): learn an attention bias per log2-bucketed time gap.
        dropout (float): after attention and in the feed-forward layers, 0..1.
        attn_dropout (float): on the attention weights, 0..1.

    Stacked windows widen what the last layer sees, so the layers share the part: their reaches (and their `seconds`)
    add up to what is configured, never to more.
    """

    def __init__(
        self,
        H: int,
        inner_size: int,
        n_layers: int,
        *,
        n_heads: int,
        window: int,
        seconds: float | None,
        session_gap: float | None,
        time_bias: bool,
        dropout: float,
        attn_dropout: float,
    ) -> None:
        super().__init__()
        reaches = [(window - 1 + layer) // n_layers for layer in range(n_layers)]  # steps back; they sum to window - 1
        self.window, self.reach = window, max(reaches)
        self.attentions = nn.ModuleList(
            WindowAttention(H, n_heads, reach + 1, time_bias, attn_dropout) for reach in reaches
        )
        self.norms = nn.ModuleList(nn.LayerNorm(H) for _ in range(n_layers))
        self.feed_forwards = nn.ModuleList(FeedForward(H, inner_size, dropout) for _ in range(n_layers))
        self.dropout = Dropout(dropout)
        self.seconds = None if seconds is None else seconds / n_layers
        self.session_gap = session_gap
        self.needs_time = time_bias or seconds is not None or session_gap is not None

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        """(B, L, H) and, where `needs_time`, (B, L) float64 seconds -> (B, L, H)."""
        session = None
        if time is not None and self.session_gap is not None:
            starts = F.pad(time[:, 1:] - time[:, :-1] > self.session_gap, (1, 0))
            session = starts.cumsum(dim=1)  # (B, L) number of the session a step is in
        for norm, attention, feed_forward in zip(self.norms, self.attentions, self.feed_forwards, strict=True):
            x = x + self.dropout(attention(norm(x), time, self.seconds, session))
            x = x + feed_forward(x)
        return x

    def step(self, x: Tensor, kept: Tensor, n_events: Tensor, time: Tensor | None) -> tuple[Tensor, Tensor]:
        """Read one more event.

        Args:
            x (Tensor): (B, H), the event.
            kept (Tensor): (B, n_layers, R, 2, H), keys and values of the last R = `reach` events, the newest last.
            n_events (Tensor): (B,) int64, events before this one: of the R places the last n_events hold something.
            time (Tensor | None): (B, R + 1) float64 seconds of the kept events and of this one, where `needs_time`.
        Returns:
            tuple: (B, H) output, and the keys and values that the next step needs.
        """
        R = kept.shape[2]
        distance = torch.arange(R, -1, -1, device=x.device)  # (R + 1,) steps back
        visible = distance <= n_events[:, None]  # (B, R + 1)
        gap = None if time is None else time[:, -1:] - time
        if time is not None and self.session_gap is not None:
            breaks = F.pad(time[:, 1:] - time[:, :-1] > self.session_gap, (0, 1))
            later_breaks = breaks.flip(1).cumsum(dim=1).flip(1)  # between a kept event and this one
            visible = visible & ((later_breaks == 0) | (distance == 0))
        layers = []
        blocks: Any = zip(self.norms, self.attentions, self.feed_forwards, strict=True)
        for layer, (norm, attention, feed_forward) in enumerate(blocks):
            y, key_values = attention.step(norm(x), kept[:, layer], distance, visible, gap, self.seconds)
            x = x + self.dropout(y)
            x = x + feed_forward(x)
            layers.append(key_values[:, 1:])
        return x, torch.stack(layers, dim=1)


class WindowAttention(nn.Module):
    """Causal multi-head self-attention over the last W steps at a cost of O(L W): softmax(QK^T / sqrt(D) + b) V.

    The sequence is cut into blocks of W; each block attends to itself and the block before, masked to the window.
    b is a learned bias per distance in steps and, with `time_bias`, per log2-bucketed gap in seconds between two past
    events. Every step sees itself, so no softmax runs over an empty row.

    Source: Vaswani et al., NeurIPS 2017, eq. 1 (arXiv 1706.03762); relative bias as in Shaw et al., NAACL 2018
    (arXiv 1803.02155) and Raffel et al., JMLR 2020 (arXiv 1910.10683); blocks as in Beltagy et al. 2020 (arXiv
    2004.05150). Differs: the bias is one scalar per head and distance, the window is causal.
    """

    def __init__(self, H: int, n_heads: int, window: int, time_bias: bool, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.window = n_heads, window
        self.qkv = nn.Linear(H, 3 * H)
        self.out = nn.Linear(H, H)
        self.distance_bias = nn.Parameter(torch.zeros(n_heads, window))
        self.time_bias = nn.Parameter(torch.zeros(n_heads, TIME_BUCKETS)) if time_bias else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor | None, seconds: float | None, session: Tensor | None) -> Tensor:
        """(B, L, H) -> (B, L, H); `time` (B, L) seconds, `session` (B, L) numbers, both optional."""
        B, L, H = x.shape
        A, D = self.n_heads, H // self.n_heads
        # compiled for any L, on a GPU, a width that depends on L is one that torch's compiler cannot divide by
        W = self.window if torch.compiler.is_compiling() else min(self.window, L)
        q, k, v = self.qkv(_blocks(x, W)).view(B, -1, W, 3, A, D).permute(3, 0, 1, 4, 2, 5)  # each (B, C, A, W, D)
        k, v = _with_previous(k), _with_previous(v)  # (B, C, A, 2W, D)
        bias = self._bias(W, q.shape[1], time, seconds, session)  # (B or 1, C, A, W, 2W)
        weights = torch.softmax(q @ k.transpose(-1, -2) * D**-0.5 + bias, dim=-1)
        mixed = self.dropout(weights) @ v  # (B, C, A, W, D)
        return self.out(mixed.transpose(2, 3).reshape(B, -1, H)[:, :L])

    def step(
        self,
        x: Tensor,
        kept: Tensor,
        distance: Tensor,
        visible: Tensor,
        gap: Tensor | None,
        seconds: float | None,
    ) -> tuple[Tensor, Tensor]:
        """Attend from one event to the kept ones and itself.

        Args:
            x (Tensor): (B, H), the event.
            kept (Tensor): (B, R, 2, H), keys and values of the events before it.
            distance (Tensor): (R + 1,) int64, steps from each of them, and from the event itself, to the event.
            visible (Tensor): (B, R + 1) bool, what may be seen as far as this layer's window goes.
            gap (Tensor | None): (B, R + 1) seconds to the event.
            seconds (float | None): the largest gap that is seen.
        Returns:
            tuple: (B, H) output, (B, R + 1, 2, H) keys and values.
        """
        B, H = x.shape
        A, D = self.n_heads, H // self.n_heads
        query, new = self.qkv(x).split([H, 2 * H], dim=1)
        key_values = torch.cat([kept, new.view(B, 1, 2, H)], dim=1)
        visible = visible & (distance < self.window)
        bias = self.distance_bias[:, distance.clamp(max=self.window - 1)]  # (A, R + 1)
        if gap is not None:
            visible = visible if seconds is None else visible & (gap <= seconds)
            if self.time_bias is not None:
                bias = bias + _look_up(self.time_bias, _bucket(gap)).transpose(0, 1)
        keys, values = key_values.view(B, -1, 2, A, D).permute(2, 0, 3, 1, 4)  # each (B, A, R + 1, D)
        logits = (keys @ query.view(B, A, D, 1)).squeeze(3) * D**-0.5 + bias  # (B, A, R + 1)
        weights = self.dropout(torch.softmax(logits.masked_fill(~visible[:, None], float("-inf")), dim=-1))
        return self.out((weights[:, :, None] @ values).reshape(B, H)), key_values

    def _bias(self, W: int, C: int, time: Tensor | None, seconds: float | None, session: Tensor | None) -> Tensor:
        device = self.distance_bias.device
        query, key = torch.arange(W, device=device), torch.arange(-W, W, device=device)
        distance = query[:, None] - key  # (W, 2W) steps back
        visible = (distance >= 0) & (distance < self.window)
        visible = visible.expand(1, C, W, 2 * W).clone()
        visible[:, 0, :, :W] = False  # nothing stands before the first block
        bias = self.distance_bias[:, distance.clamp(0, self.window - 1)]  # (A, W, 2W)
        if time is not None:
            blocks = _blocks(time, W)  # (B, C, W)
            gap = blocks[..., :, None] - _with_previous(blocks[:, :, None, :, None])[:, :, 0, None, :, 0]
            if seconds is not None:
                visible = visible & (gap <= seconds)
            if self.time_bias is not None:
                bias = bias + _look_up(self.time_bias, _bucket(gap)).permute(1, 2, 0, 3, 4)
        if session is not None:
            blocks = _blocks(session, W)
            same = blocks[..., :, None] == _with_previous(blocks[:, :, None, :, None])[:, :, 0, None, :, 0]
            visible = visible & same
        return bias.masked_fill(~visible[:, :, None], float("-inf"))


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron applied at each step."""

    def __init__(self, H: int, inner_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(H), nn.Linear(H, inner_size), nn.GELU(), nn.Linear(inner_size, H), Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H)."""
        return self.layers(x)


def _run(lstm: nn.LSTM, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None) -> Any:
    """What an LSTM returns; on the CPU without autocast, as many a CPU has no LSTM of 16 bits."""
    if x.device.type != "cpu":
        return lstm(x, hidden)
    with torch.autocast("cpu", enabled=False):
        return lstm(x.to(next(lstm.parameters()).dtype), hidden)


def _hidden(state: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2, H) -> the h and c that torch.nn.LSTM wants, each (1, B, H)."""
    h, c = state.transpose(0, 1).contiguous()
    return h[None], c[None]


def _packed(state: tuple[Tensor, Tensor]) -> Tensor:
    """The h and c that torch.nn.LSTM returns, each (1, B, H) -> (B, 2, H)."""
    return torch.cat(state).transpose(0, 1)


def _bucket(gap: Tensor) -> Tensor:
    """Number of the power of two that a gap in seconds falls into."""
    return torch.log2(gap.clamp(min=0) + 1).long().clamp(max=TIME_BUCKETS - 1)


def _look_up(table: Tensor, bucket: Tensor) -> Tensor:
    """(A, buckets) numbers, (...) int64 -> (A, ...)."""
    if bucket.device.type == "cpu":
        return table[:, bucket]
    return F.embedding(bucket, table.T).movedim(-1, 0)  # on a GPU an index adds up a bucket's gradients one by one


def _blocks(x: Tensor, W: int) -> Tensor:
    """(B, L, ...) -> (B, C, W, ...), the last block filled up with zeros."""
    B, L = x.shape[:2]
    C = -(-L // W)
    filled = torch.cat([x, x.new_zeros(B, C * W - L, *x.shape[2:])], dim=1) if C * W > L else x
    return filled.view(B, C, W, *x.shape[2:])


def _with_previous(x: Tensor) -> Tensor:
    """(B, C, A, W, D) -> (B, C, A, 2W, D): each block behind the one before it; zeros before the first."""
    previous = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    return torch.cat([previous, x], dim=3)
