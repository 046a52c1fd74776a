"""Histories of a batch that begin alike are read once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def read_once(interaction: Any, user_field: str, items_field: str, length_field: str) -> tuple[Any, Tensor]:
    """Leave out the rows whose history is the beginning of a longer one of the same user.

    Where a user has many targets, as in splits by time or share, a batch holds the same events many times. What is
    read at a step depends on that step and earlier ones alone, so that one history serves all its beginnings.

    Args:
        interaction: B right-padded rows; every (B, L, ...) field of theirs is compared.
        user_field, items_field, length_field: names of the user, (B,), the items, (B, L), and their number, (B,).
    Returns:
        tuple: the rows that are left, and of which of them each of the B is a beginning, (B,) int64. Where they would
        be more than half of the rows, all of them: reading every step of a few costs more than the last step of each.
    """
    length, (B, L) = interaction[length_field], interaction[items_field].shape
    rows = torch.arange(B, device=length.device)
    if user_field not in interaction:
        return interaction, rows
    users, user = interaction[user_field].unique(return_inverse=True)
    if 2 * len(users) > B:
        return interaction, rows
    best = torch.zeros(len(users), dtype=torch.int64, device=length.device)
    # of each row's user, the longest row, of equal ones the first: a window that slides has slid least there
    longest = B - 1 - best.scatter_reduce(0, user, length * B + B - 1 - rows, "amax")[user] % B
    beyond = torch.arange(L, device=length.device) >= length[:, None]
    alike = torch.ones(B, dtype=torch.bool, device=length.device)
    for field in interaction:
        values = interaction[field]
        if values.ndim > 1 and values.shape[1] == L:
            same = values == values[longest]
            same = same.flatten(2).all(2) if same.ndim > 2 else same
            alike &= (same | beyond).all(1)
    left, row = torch.where(alike, longest, rows).unique(return_inverse=True)
    return (interaction, rows) if 2 * len(left) > B else (interaction[left], row)
