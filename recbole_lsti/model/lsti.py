"""LSTI: long- and short-term interest, fused into one user vector that scores every item.

Read top-down: the model, then its parts in the order in which data meets them. Shapes: B batch, L sequence length,
H hidden_size, A attention heads, W items a layer of the short branch sees, N items (padding included), T targets.
The mathematics and its sources are in docs/model.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_lsti.model.branches import LongBranch, ShortBranch
from recbole_lsti.model.dropout import Dropout
from recbole_lsti.model.losses import Proposal, bce, bpr, cross_entropy, gbce_beta, sampled_softmax
from recbole_lsti.model.repeat import RepeatTerm


class Interests(NamedTuple):
    """What the branches say at every step; `long + short` is the user vector that scores the items.

    `gate` is the share of the long branch, 0..1, where the fusion has one: (B, L, H) for `gate`, (B, L, 1) for
    `scalar`. `long` and `short` are the parts that enter the score, already gated: (B, L, H). A branch that the
    fusion leaves out is None.
    """

    long: Tensor | None
    short: Tensor | None
    gate: Tensor | None

    @property
    def user(self) -> Tensor:
        """The fused user vector, (B, L, H)."""
        if self.long is None or self.short is None:
            (part,) = (part for part in (self.long, self.short) if part is not None)
            return part
        return self.long + self.short

    def at(self, row: Tensor, step: Tensor) -> Interests:
        """The interests of T chosen (row, step) pairs: every part becomes (T, H)."""
        return Interests(*(None if part is None else part[row, step] for part in self))


class Scores(NamedTuple):
    """The exact parts of a score, each (T, N); their sum is what `full_sort_predict` returns."""

    long: Tensor
    short: Tensor
    popularity: Tensor
    repeat: Tensor

    @property
    def total(self) -> Tensor:
        """The score of every item, (T, N)."""
        return self.long + self.short + self.popularity + self.repeat


class LSTI(SequentialRecommender):
    """An LSTM over the whole history and windowed self-attention over its end, fused and scored against all items.

    Args:
        config: RecBole's Config or LSTIConfig; properties/model/LSTI.yaml lists every key with its reason.
        dataset: any RecBole Dataset; its item count sizes the embedding.

    Trained from every position of a sequence (`train_mode: sequence`, the batch holds `target_item_id_list`) or from
    one target a row (`prefix`, as RecBole trains). The outputs at a step depend on that step and earlier ones alone.
    """

    trains_on_sequences = True  # calculate_loss takes a target behind every step

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        H = config["hidden_size"]
        inner_size, n_layers = config["inner_size"], config["n_layers"]
        dropout = config["hidden_dropout_prob"]
        self.fusion_type: str = config["fusion"]
        self.loss_type: str = config["loss_type"]
        self.target_field = f"target_{self.ITEM_ID}{config['LIST_SUFFIX']}"
        self.negative_field = config["NEG_PREFIX"] + self.target_field
        self.time_field = f"exact_{config['TIME_FIELD']}{config['LIST_SUFFIX']}"

        self.sparse_gradients = _sparse_gradients(config)
        self.item_embedding = nn.Embedding(self.n_items, H, padding_idx=0, sparse=self.sparse_gradients)
        self.input_norm = nn.LayerNorm(H)
        self.dropout = Dropout(dropout)
        self.long_branch = LongBranch(H, inner_size, n_layers, dropout) if self.fusion_type != "short" else None
        self.short_branch = (
            ShortBranch(
                H,
                inner_size,
                n_layers,
                n_heads=config["n_heads"],
                window=config["short_window"],
                seconds=config["short_seconds"],
                session_gap=config["session_gap"],
                time_bias=config["time_bias"],
                dropout=dropout,
                attn_dropout=config["attn_dropout_prob"],
            )
            if self.fusion_type != "long"
            else None
        )
        self.long_lag = config["short_window"] if config["long_excludes_short"] else 0
        self.fusion = Fusion(self.fusion_type, H)
        count = torch.bincount(dataset.inter_feat[self.ITEM_ID], minlength=self.n_items)
        self.popularity = nn.Parameter(_log_frequency(count))
        self.n_negatives: int = config["n_negatives"]
        self.branch_dropout: float = config["branch_dropout"]
        self.gbce_t: float = config["gbce_t"]
        self.n_repeats = config["train_neg_sample_args"]["sample_num"]
        self.proposal = Proposal(count, config["negative_power"]) if self.loss_type == "SSM" else None
        self.repeat = RepeatTerm(H) if config["repeat_term"] else None
        self.apply(lambda module: _initialise(module, config["initializer_range"]))

    # ---- what RecBole calls ------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the mean loss over the batch's targets, a scalar.

        A batch of sequences holds (B, L) targets, 0 where there is none, and (B, L) or (B, L, K) negatives; a batch of
        prefixes holds (B,) targets, one behind the last item of each row, and RecBole repeats it for each negative.
        """
        in_sequence = self.target_field in interaction
        if not in_sequence and self.loss_type in ("BPR", "BCE", "gBCE"):
            interaction = self._unrepeated(interaction)
        item_seq = interaction[self.ITEM_SEQ]
        if in_sequence:
            targets = interaction[self.target_field]
            row, step = targets.nonzero(as_tuple=True)
            positive = targets[row, step]
        else:
            row, step = _last_step(interaction[self.ITEM_SEQ_LEN])
            positive = interaction[self.POS_ITEM_ID]
        user = self.forward(item_seq, interaction).at(row, step).user
        if self.loss_type == "CE":
            pairs = self._repeat_pairs(user, item_seq, row, step)
            return cross_entropy(user, self.item_embedding.weight, self.popularity, positive, *pairs)
        if self.proposal is not None:
            pairs = self._repeat_pairs(user, item_seq, row, step)
            return self._sampled_softmax(self.proposal, user, positive, pairs)
        negative = interaction[self.negative_field][row, step] if in_sequence else interaction[self.NEG_ITEM_ID]
        items = torch.cat([positive[:, None], negative.reshape(len(positive), -1)], dim=1)  # (T, 1 + K)
        scores = self._score_items(user, item_seq, row, step, items).float()
        return self._sampled_loss(scores[:, 0], scores[:, 1:])

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of each row's own item, (B,)."""
        item_seq = interaction[self.ITEM_SEQ]
        row, step = _last_step(interaction[self.ITEM_SEQ_LEN])
        user = self.forward(item_seq, interaction).at(row, step).user
        return self._score_items(user, item_seq, row, step, interaction[self.ITEM_ID][:, None]).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the score of every item for each row, (B, N)."""
        item_seq = interaction[self.ITEM_SEQ]
        row, step = _last_step(interaction[self.ITEM_SEQ_LEN])
        user = self.forward(item_seq, interaction).at(row, step).user
        return self._score_all(user, item_seq, row, step)

    # ---- what only LSTI can tell -------------------------------------------------------------------------------

    def score_parts(self, interaction: Any) -> tuple[Scores, Interests]:
        """Return the scores of every item for each row, split exactly, and the interests behind them.

        The parts sum to `full_sort_predict` to float precision, for every fusion: nothing non-linear follows the sum.
        """
        item_seq = interaction[self.ITEM_SEQ]
        row, step = _last_step(interaction[self.ITEM_SEQ_LEN])
        interests = self.forward(item_seq, interaction).at(row, step)
        items = self.item_embedding.weight  # (N, H)
        zeros = items.new_zeros(len(row), self.n_items)
        repeat = zeros
        if self.repeat is not None:
            repeat = self.repeat.add_to(zeros, interests.user, item_seq, row, step)
        return (
            Scores(
                zeros if interests.long is None else interests.long @ items.T,
                zeros if interests.short is None else interests.short @ items.T,
                self.popularity.expand_as(zeros),
                repeat,
            ),
            interests,
        )

    def forward(self, item_seq: Tensor, interaction: Any) -> Interests:
        """Return the interests at every step of right-padded sequences.

        Args:
            item_seq (Tensor): (B, L) int64, 0 = padding.
            interaction: the batch; its exact times, (B, L) float64 seconds, are read where the short part needs them.
        Returns:
            Interests: parts of shape (B, L, H); what stands at padded steps means nothing.
        """
        events = self.dropout(self.input_norm(self.item_embedding(item_seq)))  # (B, L, H)
        long = short = None
        if self.long_branch is not None:
            long = _delay(self.long_branch(events), self.long_lag)
        if self.short_branch is not None:
            time = interaction[self.time_field] if self.short_branch.needs_time else None
            short = self.short_branch(events, time)
        return self._drop_branches(self.fusion(long, short, events))

    def _drop_branches(self, interests: Interests) -> Interests:
        """In training, leave one of two parts out for a share of the rows; the others are scaled so the mean stays."""
        long, short, p = interests.long, interests.short, self.branch_dropout
        if not self.training or not p or long is None or short is None:
            return interests
        chance = torch.rand(len(long), 1, 1, device=long.device)
        long = long.masked_fill(chance < p / 2, 0) / (1 - p / 2)
        short = short.masked_fill(chance >= 1 - p / 2, 0) / (1 - p / 2)
        return Interests(long, short, interests.gate)

    def _repeat_pairs(self, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.repeat is None:
            return row[:0], row[:0], user.new_empty(0)
        return self.repeat.pairs(user, item_seq, row, step)

    def _unrepeated(self, interaction: Any) -> Any:
        """Undo that RecBole repeats a batch for each of the K negatives of its B targets: B rows, (B, K) negatives."""
        if self.n_repeats == 1:
            return interaction
        negative = interaction[self.NEG_ITEM_ID].view(self.n_repeats, -1).T
        interaction = interaction[: len(negative)]
        interaction[self.NEG_ITEM_ID] = negative
        return interaction

    def _sampled_loss(self, positive: Tensor, negative: Tensor) -> Tensor:
        if self.loss_type == "BPR":
            return bpr(positive, negative)
        if self.loss_type == "BCE":
            return bce(positive, negative)
        return bce(positive, negative, gbce_beta(negative.shape[1], self.n_items - 1, self.gbce_t))

    def _sampled_softmax(
        self, proposal: Proposal, user: Tensor, positive: Tensor, pairs: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        with torch.autocast(user.device.type, enabled=False):  # a softmax over many items wants float32
            user, (query, item, value) = user.float(), pairs
            negatives, log_weight = proposal.draw(self.n_negatives)
            scores = torch.addmm(self._bias(negatives), user, self.item_embedding(negatives).T)  # (T, U)
            own = (self.item_embedding(positive) * user).sum(1) + self._bias(positive)
            return sampled_softmax(own, scores, positive, negatives, log_weight, query, item, value.float())

    def _bias(self, items: Tensor) -> Tensor:
        bias = torch.gather(self.popularity, 0, items.reshape(-1), sparse_grad=self.sparse_gradients)
        return bias.view_as(items)

    def _score_all(self, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> Tensor:
        scores = torch.addmm(self.popularity, user, self.item_embedding.weight.T)  # (T, N)
        return scores if self.repeat is None else self.repeat.add_to(scores, user, item_seq, row, step)

    def _score_items(self, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor, items: Tensor) -> Tensor:
        scores = (self.item_embedding(items) @ user[:, :, None]).squeeze(2) + self._bias(items)  # (T, K)
        return scores if self.repeat is None else scores + self.repeat.of(items, user, item_seq, row, step)


class Fusion(nn.Module):
    """Join the normalised branches into two parts that add up to the user vector.

    The branches are normalised before they are joined and nothing non-linear follows, so the score splits exactly:
    `gate` g*l + (1-g)*s with g per dimension, `scalar` one g a step, `sum` l + s, `concat` V[l; s] = V_l l + V_s s.
    """

    def __init__(self, kind: str, H: int) -> None:
        super().__init__()
        self.kind = kind
        self.long_norm = nn.LayerNorm(H) if kind != "short" else None
        self.short_norm = nn.LayerNorm(H) if kind != "long" else None
        self.gate: nn.Sequential | None = None
        if kind in ("gate", "scalar"):
            self.gate = nn.Sequential(nn.Linear(3 * H, H), nn.GELU(), nn.Linear(H, H if kind == "gate" else 1))
        self.mix_long = nn.Linear(H, H, bias=False) if kind == "concat" else None
        self.mix_short = nn.Linear(H, H, bias=False) if kind == "concat" else None

    def forward(self, long: Tensor | None, short: Tensor | None, events: Tensor) -> Interests:
        """Three (B, L, H) tensors -> Interests with parts of shape (B, L, H)."""
        long = None if self.long_norm is None else self.long_norm(long)
        short = None if self.short_norm is None else self.short_norm(short)
        if long is None or short is None:
            return Interests(long, short, None)
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(torch.cat([long, short, events], dim=-1)))
            return Interests(gate * long, (1 - gate) * short, gate)
        if self.mix_long is not None and self.mix_short is not None:
            return Interests(self.mix_long(long), self.mix_short(short), None)
        return Interests(long, short, None)


def _last_step(item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
    """Row and step of the last real item of each row: two (B,) int64 tensors."""
    return torch.arange(len(item_seq_len), device=item_seq_len.device), item_seq_len - 1


def _delay(x: Tensor, lag: int) -> Tensor:
    """Read a (B, L, H) branch `lag` steps earlier; before its first step stand zeros."""
    return F.pad(x, (0, 0, lag, 0))[:, : x.shape[1]] if lag else x


def _sparse_gradients(config: Any) -> bool:
    """Whether a step touches the rows of the items it meets alone: where it can, SSM does so unless told otherwise."""
    if config["sparse_gradients"] is not None:
        return bool(config["sparse_gradients"])
    one_process, learner = config["single_spec"], config["learner"]
    return config["loss_type"] == "SSM" and one_process and learner in ("adam", "adamw") and not config["weight_decay"]


def _log_frequency(count: Tensor) -> Tensor:
    """(N,) log of how often each item is a target, centred: the scores that a model without interests would learn."""
    log_count = torch.log1p(count.float())
    log_count[0] = log_count[1:].mean()  # the padding item is no item
    return log_count - log_count[0]


def _initialise(module: nn.Module, std: float) -> None:
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
