"""Dropout that costs little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Dropout):
    """torch's dropout with the probability rounded to 1/256, drawn eight elements a random number on a CPU.

    torch draws one number for each element there, which took a tenth of a training step. On other devices it is
    torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...): elements zeroed with probability p, the others divided by 1 - p."""
        if not self.training or x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        keep = round(256 * (1 - self.p))  # of the 256 values of a byte
        if keep == 256:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) < keep
        return x * kept.to(x.dtype).mul_(256 / max(1, keep))
