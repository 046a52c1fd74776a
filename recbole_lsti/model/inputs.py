"""What the model reads beside item ids: time gaps and fields of past events, attributes and given vectors of items.

`EventInputs` adds to each step what is known of the step itself, `ItemAttributes` makes each item's vector, which
stands in the history and is scored alike. Shapes: B batch, L sequence length, D width of item vectors, N items (padding
included), S longest list of a field, V width of a given vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor, nn
from torch.nn import functional as F

GAP_BUCKETS = 33  # 0: no event before; then gaps in powers of two, up to 2**31 s = 68 years


class Items(NamedTuple):
    """What every item is scored by: its vector, (N, D), and the part of its score that no user changes, (N,)."""

    vectors: Tensor
    bias: Tensor

    def of(self, chosen: Tensor, sparse: bool = False) -> Items:
        """The vectors, (..., D), and biases, (...), of chosen items; with sparse gradients no more than their rows."""
        vectors = F.embedding(chosen, self.vectors, sparse=sparse)
        bias = torch.gather(self.bias, 0, chosen.reshape(-1), sparse_grad=sparse)
        return Items(vectors, bias.view_as(chosen))

    def fixed(self) -> Items:
        """The same, of which nothing is learned."""
        return Items(self.vectors.detach(), self.bias.detach())


class EventInputs(nn.Module):
    """Adds to the item of each step the gap to the event before it and the step's own fields of the .inter file.

    Both belong to events that have happened: neither the target's time nor its fields are read.

    Args:
        config: `time_gaps` and `input_fields` are read.
        dataset: tells the fields' types and sizes; its interactions give mean and deviation of floats.
        D (int): width of item vectors.
    """

    def __init__(self, config: Any, dataset: Any, D: int) -> None:
        super().__init__()
        self.gap = nn.Embedding(GAP_BUCKETS, D) if config["time_gaps"] else None
        self.gap_field = f"gap_{config['TIME_FIELD']}{config['LIST_SUFFIX']}"
        fields = _fields(config, dataset, FeatureSource.INTERACTION)
        self.list_suffix: str = config["LIST_SUFFIX"]
        self.list_fields = [field + self.list_suffix for field in fields]
        self.embeddings = nn.ModuleList(_step_embedding(dataset, field, D) for field in fields)

    @property
    def reads(self) -> list[str]:
        """The list fields of a batch that `forward` reads."""
        return self.list_fields if self.gap is None else [*self.list_fields, self.gap_field]

    @classmethod
    def of(cls, config: Any, dataset: Any, D: int) -> EventInputs | None:
        """Return the inputs that the config names, None where it names none; arguments as above."""
        if config["time_gaps"] or (config["input_fields"] and _fields(config, dataset, FeatureSource.INTERACTION)):
            return cls(config, dataset, D)
        return None

    def forward(self, x: Tensor, interaction: Any) -> Tensor:
        """Return (B, L, D) items with the embeddings of their steps added.

        Args:
            x (Tensor): (B, L, D).
            interaction: the batch: list fields of the history, (B, L) or (B, L, S), and with `time_gaps` the seconds
                from the event before to each event, (B, L), -1 where there is none before.
        """
        if self.gap is not None:
            x = x + self.gap(_gap_bucket(interaction[self.gap_field]))
        for field, embedding in zip(self.list_fields, self.embeddings, strict=True):
            x = x + embedding(interaction[field])
        return x

    def of_event(self, gap: Tensor | None, n_events: Tensor, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one event of each of B users as `forward` reads it beside (B, D) items.

        Args:
            gap (Tensor | None): (B,) seconds since the user's last event, where gaps are read.
            n_events (Tensor): (B,) int64, events before this one.
            fields (Mapping): the event's fields, (B,) or (B, S); those left out are unknown.
        Raises:
            ValueError: a field that is no input of events.
        """
        B, device = len(n_events), n_events.device
        known = {field: value[:, 0].expand(B, *value.shape[2:]).to(device) for field, value in self.unknown(1).items()}
        for name, value in fields.items():
            if name + self.list_suffix not in known:
                raise ValueError(f"fields ({name}) must be of input_fields and of the .inter file")
            known[name + self.list_suffix] = value.to(device)
        if self.gap is not None and gap is not None:
            known[self.gap_field] = gap.float().masked_fill(n_events == 0, -1)
        return known

    def unknown(self, steps: int) -> dict[str, Tensor]:
        """Return list fields of one history of which nothing but items and times is known: (1, steps, ...)."""
        pairs: Any = zip(self.list_fields, self.embeddings, strict=True)
        return {field: embedding.unknown(steps)[None] for field, embedding in pairs}


class ItemAttributes(nn.Module):
    """The vector of an item: its id's embedding and those of its attributes, summed.

    With `id_dropout` above 0, training leaves an item's id out, wherever the item occurs in a batch, with that
    probability: the attributes and one bias shared by all items learn to do without. Outside training, items that do
    not occur in the training part have no id either.

    Args:
        config: `input_fields`, `preload_weight` and `id_dropout` are read.
        dataset (LSTIDataset): the training part, with the item table.
        D (int): width of item vectors.
    Source: leaving ids out for cold start as in DropoutNet, Volkovs et al., NeurIPS 2017. Differs: items alone, trained
    by the model's own loss, and an item is in or out for a whole batch, so that history and score agree.
    """

    trained: Tensor

    def __init__(self, config: Any, dataset: Any, D: int) -> None:
        super().__init__()
        self.id_dropout: float = config["id_dropout"]
        self.embeddings = nn.ModuleList()
        columns = [_item_column(dataset, field, D) for field in _fields(config, dataset, FeatureSource.ITEM)]
        columns += [_vectors(matrix, D) for matrix in _preloaded(config, dataset)]
        for place, (embedding, column) in enumerate(columns):
            self.embeddings.append(embedding)
            self.register_buffer(f"column{place}", column, persistent=False)  # the data set brings it along
        self.register_buffer("trained", dataset.occurring())
        self.unknown_bias = nn.Parameter(torch.zeros(())) if self.id_dropout else None
        self._kept: tuple[Any, Items] | None = None

    @classmethod
    def of(cls, config: Any, dataset: Any, D: int) -> ItemAttributes | None:
        """Return the attributes that the config names, None where it names none; arguments as above.

        Raises:
            ValueError: `id_dropout` without attributes; a preloaded matrix that is not of items.
        """
        if config["preload_weight"] or (config["input_fields"] and _fields(config, dataset, FeatureSource.ITEM)):
            return cls(config, dataset, D)
        if config["id_dropout"]:
            raise ValueError(
                f"id_dropout ({config['id_dropout']}) must be 0 where items have no attributes: "
                "input_fields names none of the .item file, and there is no preload_weight"
            )
        return None

    def forward(self, ids: Tensor, popularity: Tensor) -> Items:
        """Return what all items are scored by; each call in training draws anew which ids are left out.

        Args:
            ids (Tensor): (N, D) embeddings of the ids; popularity (Tensor): (N,).
        """
        if self.training or torch.is_grad_enabled():
            return self._compose(ids, popularity)
        used = [ids, popularity, *self.parameters(), *self.buffers()]
        state = [(tensor.data_ptr(), tensor._version) for tensor in used]  # changes with every write to a weight
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self._compose(ids, popularity)
        return self._kept[1]

    def train(self, mode: bool = True) -> ItemAttributes:
        """Switch between training and evaluation, and forget the vectors kept in between."""
        self._kept = None
        return super().train(mode)

    def _compose(self, ids: Tensor, popularity: Tensor) -> Items:
        vectors = sum(
            embedding(getattr(self, f"column{place}")).to(ids.dtype) for place, embedding in enumerate(self.embeddings)
        )
        if not self.training:
            with_id = self.trained if self.id_dropout < 1 else torch.zeros_like(self.trained)
        elif self.id_dropout:
            # what never occurs is only ever a negative: its id takes that, so that its attributes are not blamed
            with_id = (torch.rand(len(ids), device=ids.device) >= self.id_dropout) | ~self.trained
        else:
            return Items(ids + vectors, popularity)
        bias = popularity if self.unknown_bias is None else torch.where(with_id, popularity, self.unknown_bias)
        return Items(vectors + torch.where(with_id[:, None], ids, 0.0), bias)


class TokenField(nn.Module):
    """Embeds a token; 0, the unknown one, is a zero vector."""

    def __init__(self, n_tokens: int, D: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, D, padding_idx=0)

    def forward(self, values: Tensor) -> Tensor:
        """(...) int64 -> (..., D)."""
        return self.embedding(values)

    def unknown(self, steps: int) -> Tensor:
        """Return (steps,) unknown values."""
        return torch.zeros(steps, dtype=torch.int64)


class TokenSeqField(TokenField):
    """Embeds a list of tokens as the mean of its tokens; an empty list is a zero vector."""

    def forward(self, values: Tensor) -> Tensor:
        """(..., S) int64, 0 = no token -> (..., D)."""
        flat = values.reshape(-1, values.shape[-1])
        pooled = F.embedding_bag(flat, self.embedding.weight, mode="mean", padding_idx=0)
        return pooled.view(*values.shape[:-1], -1)

    def unknown(self, steps: int) -> Tensor:
        """Return (steps, 1) unknown values."""
        return torch.zeros(steps, 1, dtype=torch.int64)


class FloatField(nn.Module):
    """Projects numbers, scaled to mean 0 and deviation 1 over `values`, (rows,) or (rows, S)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, values: Tensor, D: int) -> None:
        super().__init__()
        self.is_list = values.ndim == 2
        values = values.float().reshape(len(values), -1)
        self.register_buffer("mean", values.mean(dim=0))
        self.register_buffer("deviation", _positive(values.std(dim=0, correction=0)))
        self.projection = nn.Linear(values.shape[1], D, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """(...) or, for lists, (..., S) -> (..., D)."""
        values = values if self.is_list else values[..., None]
        return self.projection((values - self.mean) / self.deviation)

    def unknown(self, steps: int) -> Tensor:
        """Return (steps,) or (steps, S) unknown values: the mean."""
        values = self.mean.cpu().expand(steps, -1)
        return values if self.is_list else values.squeeze(1)


def _fields(config: Any, dataset: Any, source: FeatureSource) -> list[str]:
    """Fields of `input_fields` that the data set has from a source."""
    return [field for field in config["input_fields"] or [] if dataset.field2source[field] is source]


def _step_embedding(dataset: Any, field: str, D: int) -> nn.Module:
    kind = dataset.field2type[field]
    if kind is FeatureType.TOKEN:
        return TokenField(dataset.num(field), D)
    if kind is FeatureType.TOKEN_SEQ:
        return TokenSeqField(dataset.num(field), D)
    return FloatField(dataset.inter_feat[field], D)


def _item_column(dataset: Any, field: str, D: int) -> tuple[nn.Module, Tensor]:
    """What embeds an attribute and its column in the order of the item ids: tokens, or numbers with a zero row 0."""
    kind, column = dataset.field2type[field], dataset.item_feat[field]
    if kind is FeatureType.TOKEN:
        return TokenField(dataset.num(field), D), column
    if kind is FeatureType.TOKEN_SEQ:
        return TokenSeqField(dataset.num(field), D), column
    if kind is FeatureType.FLOAT_SEQ:
        return _vectors(column, D)
    scaled = (column - column[1:].mean()) / _positive(column[1:].std(correction=0))
    scaled[0] = 0
    return nn.Linear(1, D, bias=False), scaled[:, None]


def _vectors(matrix: Tensor, D: int) -> tuple[nn.Module, Tensor]:
    """A projection and the given vectors, (N, V), centred and of mean length 1; items without one, all 0, keep 0."""
    matrix = matrix.float()
    there = matrix.any(dim=1)
    centred = torch.zeros_like(matrix)
    if there.any():
        centred[there] = matrix[there] - matrix[there].mean(dim=0)
        centred /= _positive(centred[there].norm(dim=1).mean())
    return nn.Linear(matrix.shape[1], D, bias=False), centred


def _preloaded(config: Any, dataset: Any) -> list[Tensor]:
    """The matrices of RecBole's `preload_weight`, each (N, V)."""
    matrices = []
    for field in config["preload_weight"] or {}:
        if field not in dataset.alias["item_id"]:
            raise ValueError(
                f"preload_weight ({field}) must be keyed by another name of the item id: alias_of_item_id: [{field}]"
            )
        matrix = torch.as_tensor(dataset.get_preload_weight(field))
        matrices.append(matrix.reshape(len(matrix), -1))
    return matrices


def _gap_bucket(gap: Tensor) -> Tensor:
    """Bucket of a gap, (...) seconds -> (...) int64; 0 where there is none, which is -1 seconds."""
    bucket = 1 + torch.log2(gap.clamp(min=0) + 1).long().clamp(max=GAP_BUCKETS - 2)
    return bucket.masked_fill(gap < 0, 0)


def _positive(deviation: Tensor) -> Tensor:
    """A divisor: 1 where all values are the same."""
    return torch.where(deviation > 0, deviation, 1.0)
