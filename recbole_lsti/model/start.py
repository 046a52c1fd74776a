"""Where weights start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

START_DEVIATION = 0.05  # of counted item vectors: more than at random, for they are worth keeping


def log_frequency(count: Tensor) -> Tensor:
    """(N,) log of how often each item is a target, centred: the scores that a model without interests would learn."""
    log_count = torch.log1p(count.float())
    log_count[0] = log_count[1:].mean()  # the padding item is no item
    return log_count - log_count[0]


def initialise(module: nn.Module, std: float) -> None:
    """Give a linear layer, an embedding or an LSTM its first weights; other modules keep their own.

    Args:
        module: it, without what it holds.
        std (float): standard deviation of linear layers and embeddings; an LSTM's are orthogonal or Xavier's.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():  # normal_ has just overwritten the padding row
                module.weight[module.padding_idx].zero_()
    elif isinstance(module, nn.LSTM):
        for name, parameter in module.named_parameters():
            if name.startswith("weight"):
                nn.init.xavier_uniform_(parameter) if "ih" in name else nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
