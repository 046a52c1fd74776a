"""How LSTI's weights move in a step: rows of large tables lazily, rates that rise and fall, averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn


def rate_share(progress: float, end: float, warmup: float = 0.0) -> float:
    """Share of the learning rate at a place in the training: a linear rise over `warmup`, then a linear fall to `end`.

    Args:
        progress (float): part of all steps that is done or, in the rise, will be after this one: 0..1.
        end (float): what is left at 1.
        warmup (float): part of the steps that the rise takes, 0..1.
    """
    if progress < warmup:
        return progress / warmup
    return 1 - (1 - end) * (min(1.0, progress) - warmup) / (1 - warmup)


def rate_at(epoch: int, done: int, steps: int, epochs: int, end: float, warmup: float) -> float:
    """Share of the learning rate of the step that follows `done` of an epoch's `steps`; see `rate_share`.

    Args:
        epoch (int): from 0, of `epochs`.
    """
    progress = (epoch + done / steps) / epochs
    if progress < warmup:
        progress = min(warmup, (epoch + (done + 1) / steps) / epochs)  # the first step moves, too
    return rate_share(progress, end, warmup)


class LazyRows:
    """Makes Adam or AdamW without weight decay take sparse gradients, at a cost that does not grow with the table.

    Registered before an optimiser's step (`register_step_pre_hook`), where no scaler scales the gradients any more, it
    clips all of them together, which is all that it does where none is sparse. Then it updates the rows that have a
    gradient as the optimiser would, and leaves the dense gradients to it. The moments lie in its own state, so its
    checkpoints hold them. A row without a gradient keeps its values and both moments, where the dense
    optimiser would decay the moments and go on moving the row.

    Args:
        clip: arguments of torch's clip_grad_norm_, or None. It cannot clip sparse gradients itself.
    Source: Kingma & Ba, ICLR 2015, algorithm 1 (arXiv 1412.6980); lazily as in torch.optim.SparseAdam. Differs from
    that: eps is added behind the bias correction, as Adam adds it.
    """

    def __init__(self, clip: Mapping[str, Any] | None) -> None:
        self.clip = clip

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Do the sparse part of a step, and take its gradients away."""
        dense: list[Tensor] = []
        sparse: list[tuple[Tensor, Tensor, Tensor, dict[str, Any]]] = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not parameter.grad.is_sparse:
                    dense.append(parameter)
                    continue
                gradient = parameter.grad.coalesce()
                sparse.append((parameter, gradient.indices()[0], gradient.values(), group))
                parameter.grad = None
        if self.clip:
            clip_grad_norm_([*dense, *(_with_gradient(values) for _, _, values, _ in sparse)], **self.clip)
        for parameter, rows, gradient, group in sparse:
            _update_rows(parameter, rows, gradient, group, optimizer.state[parameter])


def _with_gradient(values: Tensor) -> Tensor:
    """Something whose gradient is `values`, for a function that clips the gradients of what it is given."""
    holder = torch.empty_like(values)
    holder.grad = values
    return holder


def _update_rows(
    parameter: Tensor, rows: Tensor, gradient: Tensor, group: Mapping[str, Any], state: dict[str, Any]
) -> None:
    """Adam's step on R rows: `rows` (R,) int64, each once, `gradient` (R, ...)."""
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)  # as Adam keeps it
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    step, (beta1, beta2) = state["step"].item(), group["betas"]
    mean = state["exp_avg"].index_select(0, rows).lerp_(gradient, 1 - beta1)
    square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    state["exp_avg"].index_copy_(0, rows, mean)
    state["exp_avg_sq"].index_copy_(0, rows, square)
    scale = square.div_(1 - beta2**step).sqrt_().add_(group["eps"])
    parameter.index_add_(0, rows, mean.div_(scale), alpha=-group["lr"] / (1 - beta1**step))


class AveragedWeights:
    """An exponential moving average of a model's weights, one step of the average behind each step of the optimiser.

    The model holds the average wherever it is not being trained: it is what is validated, written, tested.

    Args:
        model: whose weights are averaged.
        decay (float): what an average keeps of itself in a step, 0..1.
    Source: Polyak & Juditsky 1992 in the exponential form of Tarvainen & Valpola, NeurIPS 2017 (arXiv 1703.01780).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._average = get_ema_multi_avg_fn(decay)
        self._kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._n = 0  # steps averaged

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights that a step has reached."""
        kept, weights = list(self._kept.values()), [parameter.detach() for parameter in model.parameters()]
        if self._n:
            self._average(kept, weights, self._n)
        else:
            torch._foreach_copy_(kept, weights)
        self._n += 1

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Swap the model's weights with those kept here: the average with those in training, and back."""
        if not self._n:  # no step has been averaged: there is nothing but the model's own weights
            return
        for name, parameter in model.named_parameters():
            value = parameter.clone()
            parameter.copy_(self._kept[name])
            self._kept[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the average: the weights in training and the number of steps."""
        return {"weights": self._kept, "n_averaged": self._n}

    @torch.no_grad()
    def put_back(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` has returned."""
        for name, kept in self._kept.items():
            kept.copy_(state["weights"][name])
        self._n = state["n_averaged"]
