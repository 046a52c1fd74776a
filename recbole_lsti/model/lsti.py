"""LSTI: long- and short-term interest, fused into one user vector that scores every item.

Read top-down: the model, then its parts in the order in which data meets them. Shapes: B batch, L sequence length,
H hidden_size, N items (padding included), T targets, D width of item and user vectors: 2H where each of two branches
has item vectors of its own, else H. The mathematics and its sources are in docs/model.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_lsti.model.branches import LongBranch, ShortBranch
from recbole_lsti.model.dropout import Dropout
from recbole_lsti.model.fusion import Fusion, Interests, Read, gather
from recbole_lsti.model.histories import read_once
from recbole_lsti.model.inputs import EventInputs, ItemAttributes, Items
from recbole_lsti.model.objective import Asked, Objective
from recbole_lsti.model.repeat import Earlier, Pairs, RepeatTerm, Seen, look_up
from recbole_lsti.model.start import START_DEVIATION, initialise, log_frequency
from recbole_lsti.model.state import State, first_state, next_state, read_last_step

WINDOWS = 4  # histories longer than so many short-term parts are ranked by what their last step needs alone
FUSED_EVERY = 4  # one target of so many teaches the fusion of branches that are trained apart


class ScoreParts(NamedTuple):
    """The exact parts of a score, each (T, N); their sum is what `full_sort_predict` returns."""

    long: Tensor
    short: Tensor
    popularity: Tensor
    repeat: Tensor

    @property
    def total(self) -> Tensor:
        """The score of every item, (T, N)."""
        return self.long + self.short + self.popularity + self.repeat


class Encoded(NamedTuple):
    """A batch read once, to be scored a range of items at a time.

    Attributes:
        user: (B, D) user vectors.
        items: what every item is scored by.
        item, row, repeat: S items of the histories, sorted, their rows, and their repeat terms: three (S,) tensors.
    """

    user: Tensor
    items: Items
    item: Tensor
    row: Tensor
    repeat: Tensor


class LSTI(SequentialRecommender):
    """An LSTM over the whole history and windowed self-attention over its end, fused and scored against all items.

    Args:
        config: RecBole's Config or LSTIConfig; properties/model/LSTI.yaml lists every key with its reason.
        dataset: any RecBole Dataset; its item count sizes the embedding. Attributes of items want an LSTIDataset.

    Trained from every position of a sequence (`train_mode: sequence`, the batch holds `target_item_id_list`) or from
    one target a row (`prefix`, as RecBole trains). The outputs at a step depend on that step and earlier ones alone.

    Raises:
        ValueError: `input_fields` or `preload_weight` that the data set does not have; settings that need other inputs.
    """

    trains_on_sequences = True  # calculate_loss takes a target behind every step
    long_branch: LongBranch | ShortBranch | None
    short_branch: LongBranch | ShortBranch | None
    carried: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.hidden_size = H = config["hidden_size"]
        self.fusion_type: str = config["fusion"]
        self.target_field = f"target_{self.ITEM_ID}{config['LIST_SUFFIX']}"
        self.negative_field = config["NEG_PREFIX"] + self.target_field
        self.time_field = f"exact_{config['TIME_FIELD']}{config['LIST_SUFFIX']}"

        self.apart = config["train_branches"] == "apart" and self.fusion_type not in ("long", "short")
        D = 2 * H if self.apart else H
        self.long_half, self.short_half = slice(H), slice(D - H, D)  # of item vectors; all of them if they are shared
        self.item_embedding = nn.Embedding(self.n_items, D, padding_idx=0)
        self.attributes = ItemAttributes.of(config, dataset, D)
        self.event_inputs = EventInputs.of(config, dataset, D)
        self.sparse_gradients = _sparse_gradients(config, self.attributes is not None)
        self.input_norm = nn.LayerNorm(H)
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.twin: str | None = config["twin"]
        kinds: dict[str, Callable[[Any], LongBranch | ShortBranch]] = {"long": _long_branch, "short": _short_branch}
        self.long_branch = kinds[self.twin or "long"](config) if self.fusion_type != "short" else None
        self.short_branch = kinds[self.twin or "short"](config) if self.fusion_type != "long" else None
        self.cascade = bool(config["cascade"]) and self.fusion_type != "short"  # which has no long branch to read
        self.long_lag = config["short_window"] if config["long_excludes_short"] else 0
        self.fusion = Fusion(self.fusion_type, H, self.apart, bool(config["history_mean"]))
        self.reads_mean = self.fusion.mean_weight is not None
        self.user_dropout = Dropout(config["user_dropout_prob"])
        count = torch.bincount(dataset.inter_feat[self.ITEM_ID], minlength=self.n_items)
        self.popularity = nn.Parameter(log_frequency(count))
        self.branch_dropout: float = config["branch_dropout"]
        self.n_repeats = config["train_neg_sample_args"]["sample_num"]
        self.objective = Objective(config, count, self.sparse_gradients)
        self.repeat = RepeatTerm(D) if config["repeat_term"] else None
        # what each branch says alone wants another repeat term than what they say together
        self.repeat_alone = RepeatTerm(D) if config["repeat_term"] and self.apart else None
        self.carries = bool(config["carry_state"])
        self.piece: int = config["MAX_ITEM_LIST_LENGTH"]  # with carry_state: steps read at a time
        self.short_window: int = config["short_window"]
        self.leave = self.piece - self.short_window  # where the next window begins: data.loader cuts them so
        # with carry_state: what the long branch has left for the next window, by number; 0 is nothing, and stays zero
        self.register_buffer("carried", torch.zeros(1, config["n_layers"], 2, H), persistent=False)
        self.apply(lambda module: initialise(module, config["initializer_range"]))

    @torch.no_grad()
    def start_items(self, vectors: Tensor) -> None:
        """Start the items' embeddings from vectors, (N, H) of deviation 1; those of zeros keep their random start."""
        there = vectors.any(dim=1)
        copies = self.item_embedding.embedding_dim // vectors.shape[1]  # one for each branch that has its own
        self.item_embedding.weight[there] = START_DEVIATION * vectors[there].repeat(1, copies)

    # ---- what RecBole calls ------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the mean loss over the batch's targets, a scalar.

        A batch of sequences holds (B, L) targets, 0 where there is none, and (B, L) or (B, L, K) negatives; a batch of
        prefixes holds (B,) targets, one behind the last item of each row, and RecBole repeats it for each negative.

        Trained apart, each branch has a loss of its own; the value is that of the fused score, which moves the fusion
        and the repeat term alone.
        """
        in_sequence = self.target_field in interaction
        if not in_sequence and self.objective.pairwise:
            interaction = self._unrepeated(interaction)
        item_seq = interaction[self.ITEM_SEQ]
        if in_sequence:
            targets = interaction[self.target_field]
            row, step = targets.nonzero(as_tuple=True)
            positive = targets[row, step]
        else:
            row, step = _last_step(interaction[self.ITEM_SEQ_LEN])
            positive = interaction[self.POS_ITEM_ID]
        items = self.items()
        seen = None if self.repeat is None else self.repeat.find(item_seq, row, step, _earlier(interaction))
        asked = self.objective.asked(positive, self._negatives(interaction, in_sequence, row, step))
        if self.apart:
            read = self._read_branches(item_seq, interaction, items).at(row, step)
            return self._loss_apart(read, items, asked, seen)
        user = self.user_dropout(gather(self.forward(item_seq, interaction, items).user, row, step))
        return self.objective(user, slice(None), items, asked, _repeats(self.repeat, user, seen))

    def _loss_apart(self, read: Read, items: Items, asked: Asked, seen: Seen | None) -> Tensor:
        """The fused score's loss, which moves the fusion and the repeat term, with the gradients of the branches' own.

        There is little to learn in these two: one of FUSED_EVERY targets is enough.
        """
        own = torch.stack(
            [
                self.objective(user, half, items, asked, _repeats(self.repeat_alone, user, seen))
                for user, half in self._alone(read)
            ]
        ).mean()
        user = self.user_dropout(self.fusion.join(read.fixed(FUSED_EVERY)).user)
        pairs = _repeats(self.repeat, user, None if seen is None else seen.every(FUSED_EVERY))
        fused = self.objective(user, slice(None), items.fixed(), asked.every(FUSED_EVERY), pairs)
        return fused + own - own.detach()

    def _alone(self, read: Read) -> Iterator[tuple[Tensor, slice]]:
        """What each branch says for itself, (T, D), and the columns of item vectors that it speaks of."""
        said = (None if part is None else self.user_dropout(part) for part in (read.long, read.short))
        for user, half in zip(self.fusion.alone(*said), (self.long_half, self.short_half), strict=True):
            if user is not None:
                yield user, half

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of each row's own item, (B,)."""
        items = self.items()
        interests, item_seq, row, step = self._at_the_end(interaction, items)
        chosen, user = interaction[self.ITEM_ID], interests.user
        vectors, bias = items.of(chosen)
        scores = (vectors * user).sum(1) + bias
        if self.repeat is None:
            return scores
        return scores + look_up(chosen[:, None], self.repeat.pairs(user, item_seq, row, step)).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the score of every item for each row, (B, N)."""
        items = self.items()
        interests, item_seq, row, step = self._at_the_end(interaction, items)
        return self.score_all(interests.user, item_seq, row, step, items)

    def score_all(self, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor, items: Items) -> Tensor:
        """Return the score of every item for T user vectors, (T, N), each at a step of a row of item_seq, (T,)."""
        scores = torch.addmm(items.bias, user, items.vectors.T)
        return scores if self.repeat is None else self.repeat.add_to(scores, user, item_seq, row, step)

    def encode(self, interaction: Any) -> Encoded:
        """Read the histories of a batch, for `score_range`."""
        items = self.items()
        interests, item_seq, row, step = self._at_the_end(interaction, items)
        user = interests.user
        seen = None if self.repeat is None else self.repeat.find(item_seq, row, step)
        query, item, value = _repeats(self.repeat, user, seen)
        item, order = item.sort()
        return Encoded(user, items, item, query[order], value[order].to(user.dtype))

    def score_range(self, encoded: Encoded, start: int, stop: int) -> Tensor:
        """Return the scores of the items start..stop for each row, (B, stop - start): columns of full_sort_predict."""
        items = encoded.items
        scores = torch.addmm(items.bias[start:stop], encoded.user, items.vectors[start:stop].T)
        inside = slice(*torch.searchsorted(encoded.item, encoded.item.new_tensor([start, stop])).tolist())
        where = (encoded.row[inside], encoded.item[inside] - start)
        return scores.index_put_(where, encoded.repeat[inside].to(scores.dtype), accumulate=True)

    # ---- what only LSTI can tell -------------------------------------------------------------------------------

    def score_parts(self, interaction: Any) -> tuple[ScoreParts, Interests]:
        """Return the scores of every item for each row, split exactly, and the interests behind them.

        The parts sum to `full_sort_predict` to float precision, for every fusion: nothing non-linear follows the sum.
        """
        items = self.items()
        interests, item_seq, row, step = self._at_the_end(interaction, items)
        zeros = items.vectors.new_zeros(len(interests.user), self.n_items)
        repeat = zeros
        if self.repeat is not None:
            repeat = self.repeat.add_to(zeros, interests.user, item_seq, row, step)
        return (
            ScoreParts(
                zeros if interests.long is None else interests.long @ items.vectors.T,
                zeros if interests.short is None else interests.short @ items.vectors.T,
                items.bias.expand_as(zeros),
                repeat,
            ),
            interests,
        )

    @property
    def needs_time(self) -> bool:
        """Whether a history must come with its times."""
        with_gaps = self.event_inputs is not None and self.event_inputs.gap is not None
        return with_gaps or (self.short_branch is not None and self.short_branch.needs_time)

    def items(self) -> Items:
        """Return what every item is scored by; in training with `id_dropout`, each call draws anew."""
        if self.attributes is None:
            return Items(self.item_embedding.weight, self.popularity)
        return self.attributes(self.item_embedding.weight, self.popularity)

    # ---- one event at a time -----------------------------------------------------------------------------------

    def init_state(self, batch_size: int = 1) -> State:
        """Return the state of users without events, for `step`.

        Raises:
            ValueError: if both branches are of one kind: such a control has no state.
        """
        if self.twin is not None:
            raise ValueError(f"twin ({self.twin}) must be null for one event at a time")
        return first_state(self, batch_size)

    @torch.no_grad()
    def step(
        self, state: State, item: Tensor, time: Tensor | None = None, fields: Mapping[str, Tensor] | None = None
    ) -> State:
        """Read one more event of each user, at a cost that does not depend on the events before it.

        `state.user` of what is returned is the user vector that `forward` gives for the whole history, in evaluation
        mode.

        Args:
            state (State): of B users. It is used up: its tables are written to. `clone` keeps a copy.
            item (Tensor): (B,) int64, 1..N-1.
            time (Tensor | None): (B,) seconds, where short_seconds, session_gap, time_bias or time_gaps is set.
            fields (Mapping | None): the event's own `input_fields`, (B,) or (B, S); those left out are unknown.
        Raises:
            ValueError: if the model needs times and there are none; a field that is no input of events.
        """
        if self.needs_time and time is None:
            raise ValueError("time (None) must be given: short_seconds, session_gap, time_bias or time_gaps is set")
        device = state.n_events.device
        item, time = item.to(device), None if time is None else time.to(device)
        known: dict[str, Tensor] = {}
        if self.event_inputs is not None:
            gap = time.double() - state.time[:, -1] if time is not None and state.time.shape[1] else None
            known = self.event_inputs.of_event(gap, state.n_events, fields or {})
        elif fields:
            raise ValueError(f"fields ({', '.join(fields)}) must be of input_fields and of the .inter file")
        vectors = self.vectors_of(item, self.items())
        return next_state(self, state, item, vectors, self.embed(vectors, known), time)

    @torch.no_grad()
    def score(self, state: State) -> Tensor:
        """Return the score of every item, (B, N), as `full_sort_predict` does for the whole history."""
        items = self.items()
        scores = torch.addmm(items.bias, state.user, items.vectors.T)
        return scores if self.repeat is None else self.repeat.add_seen(scores, state.user, *state.seen())

    def forward(self, item_seq: Tensor, interaction: Any, items: Items | None = None) -> Interests:
        """Return the interests at every step of right-padded sequences.

        Args:
            item_seq (Tensor): (B, L) int64, 0 = padding.
            interaction: the batch; fields of its events, and their exact times, (B, L) float64 seconds, are read
                where they are an input or the short part needs them.
            items (Items | None): the items, where they are scored, too; None: as `items` returns them.
        Returns:
            Interests: parts of shape (B, L, D); what stands at padded steps means nothing.
        """
        return self._drop_branches(self.fusion.join(self._read_branches(item_seq, interaction, items or self.items())))

    def _read_branches(self, item_seq: Tensor, interaction: Any, items: Items) -> Read:
        vectors = self.vectors_of(item_seq, items)
        events = self.embed(vectors, interaction)
        long = short = mean = None
        recent = events[..., self.short_half]
        if self.long_branch is not None:
            long = self._read(self.long_branch, events[..., self.long_half], interaction)
            recent = self.recent(recent, long)
            long = _delay(long, self.long_lag)
            if self.reads_mean:
                mean = _delay(self._running_mean(vectors, interaction, items), self.long_lag)
        if self.short_branch is not None:
            short = self._read(self.short_branch, recent, interaction)
        return self.fusion.normalise(long, short, events, mean)

    def _running_mean(self, vectors: Tensor, interaction: Any, items: Items) -> Tensor:
        """The mean of all item vectors of a history up to each step, (B, L, H), from those of the steps, (B, L, D)."""
        total = vectors[..., self.long_half].cumsum(dim=1)
        n_events = torch.arange(1, vectors.shape[1] + 1, device=vectors.device)[:, None]
        earlier = _earlier(interaction)
        if earlier is not None:
            n_events = n_events + earlier.counts.sum(dim=1)[:, None, None]
            if earlier.item.shape[1]:
                before = F.embedding_bag(
                    earlier.item,
                    items.vectors,
                    mode="sum",
                    per_sample_weights=earlier.counts.to(items.vectors.dtype),
                    padding_idx=0,
                    sparse=self.sparse_gradients,
                )
                total = total + before[:, None, self.long_half]
        return total / n_events

    def _drop_branches(self, interests: Interests) -> Interests:
        """In training, leave one of two parts out for a share of the rows; the others are scaled so the mean stays."""
        long, short, p = interests.long, interests.short, self.branch_dropout
        if not self.training or not p or long is None or short is None:
            return interests
        chance = torch.rand(len(long), 1, 1, device=long.device)
        long = long.masked_fill(chance < p / 2, 0) / (1 - p / 2)
        short = short.masked_fill(chance >= 1 - p / 2, 0) / (1 - p / 2)
        return Interests(long, short, interests.gate)

    def vectors_of(self, item: Tensor, items: Items) -> Tensor:
        """Return the vectors of (...) items, (..., D); 0 = none."""
        return F.embedding(item, items.vectors, padding_idx=0, sparse=self.sparse_gradients)

    def embed(self, vectors: Tensor, interaction: Any, where: Any = ...) -> Tensor:
        """Return what the branches read of the events at `where`, (..., D): their items' vectors, fields of a batch."""
        x = vectors
        if self.event_inputs is not None:
            x = self.event_inputs(x, {field: interaction[field][where] for field in self.event_inputs.reads})
        return self.dropout(self.input_norm(x.unflatten(-1, (-1, self.hidden_size))).flatten(-2))

    def _read(self, branch: LongBranch | ShortBranch, events: Tensor, interaction: Any) -> Tensor:
        """A branch at each step; in windows of a longer history the LSTM goes on where the one before has ended."""
        if isinstance(branch, ShortBranch):
            return branch(events, interaction[self.time_field] if branch.needs_time else None)
        if "state_from" not in interaction:
            return branch(events)
        source, target = interaction["state_from"], interaction["state_to"]
        missing = int(torch.maximum(source.max(), target.max())) + 1 - len(self.carried)
        if missing > 0:
            self.carried = torch.cat([self.carried, self.carried.new_zeros(missing, *self.carried.shape[1:])])
        outputs, left = branch.carry(events, self.carried[source], self.leave)
        self.carried[target] = left.to(self.carried.dtype)
        self.carried[0] = 0
        return outputs

    def _at_the_end(self, interaction: Any, items: Items) -> tuple[Interests, Tensor, Tensor, Tensor]:
        """The interests at the last step of each row, every part (B, D); the items, rows and steps they belong to."""
        item_seq = interaction[self.ITEM_SEQ]
        row, step = _last_step(interaction[self.ITEM_SEQ_LEN])
        if not self.training and not (self.carries and item_seq.shape[1] > self.piece):
            interaction, row = read_once(interaction, self.USER_ID, self.ITEM_SEQ, self.ITEM_SEQ_LEN)
            item_seq = interaction[self.ITEM_SEQ]
        if len(item_seq) == len(row) and self._last_step_alone(item_seq.shape[1]):
            return read_last_step(self, item_seq, interaction, items, step), item_seq, row, step
        return self.forward(item_seq, interaction, items).at(row, step), item_seq, row, step

    def _last_step_alone(self, length: int) -> bool:
        """Whether the last step is read without the others: where all do not fit in memory, and where it costs less."""
        if self.carries and length > self.piece:
            return True
        if self.training or self.twin is not None or self.short_branch is None:
            return False
        return length > WINDOWS * self.short_window

    def _negatives(self, interaction: Any, in_sequence: bool, row: Tensor, step: Tensor) -> Tensor | None:
        """The (T, K) items that RecBole has sampled against the targets."""
        if not self.objective.pairwise:
            return None
        negative = interaction[self.negative_field][row, step] if in_sequence else interaction[self.NEG_ITEM_ID]
        return negative.reshape(len(row), -1)

    def _unrepeated(self, interaction: Any) -> Any:
        """Undo that RecBole repeats a batch for each of the K negatives of its B targets: B rows, (B, K) negatives."""
        if self.n_repeats == 1:
            return interaction
        negative = interaction[self.NEG_ITEM_ID].view(self.n_repeats, -1).T
        interaction = interaction[: len(negative)]
        interaction[self.NEG_ITEM_ID] = negative
        return interaction

    def recent(self, events: Tensor, long: Tensor) -> Tensor:
        """What the short branch reads, (..., H): the events, or with `cascade` what the long branch makes of them."""
        return long if self.cascade else events


def _long_branch(config: Any) -> LongBranch:
    H, dropout = config["hidden_size"], config["hidden_dropout_prob"]
    return LongBranch(H, config["inner_size"], config["n_layers"], dropout)


def _short_branch(config: Any) -> ShortBranch:
    return ShortBranch(
        config["hidden_size"],
        config["inner_size"],
        config["n_layers"],
        n_heads=config["n_heads"],
        window=config["short_window"],
        seconds=config["short_seconds"],
        session_gap=config["session_gap"],
        time_bias=config["time_bias"],
        dropout=config["hidden_dropout_prob"],
        attn_dropout=config["attn_dropout_prob"],
    )


def _last_step(item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
    """Row and step of the last real item of each row: two (B,) int64 tensors.

    Raises:
        ValueError: if a row has none.
    """
    if len(item_seq_len) and int(item_seq_len.min()) < 1:
        raise ValueError(f"length of a history ({int(item_seq_len.min())}) must be 1 or more: there is nothing to read")
    return torch.arange(len(item_seq_len), device=item_seq_len.device), item_seq_len - 1


def _repeats(term: RepeatTerm | None, user: Tensor, seen: Seen | None) -> Pairs:
    """What a repeat term gives to the pairs of users and items of their histories; no pairs where there is no term."""
    if term is None or seen is None:
        none = torch.zeros(0, dtype=torch.int64, device=user.device)
        return Pairs(none, none, user.new_empty(0))
    return term.values(user, seen)


def _earlier(interaction: Any) -> Earlier | None:
    """What came before the windows of a batch, None where they begin at the first event."""
    if "earlier_item" not in interaction:
        return None
    return Earlier(*(interaction[f"earlier_{field}"] for field in Earlier._fields))


def _delay(x: Tensor, lag: int) -> Tensor:
    """Read a (B, L, H) branch `lag` steps earlier; before its first step stand zeros."""
    return F.pad(x, (0, 0, lag, 0))[:, : x.shape[1]] if lag else x


def _sparse_gradients(config: Any, composed: bool) -> bool:
    """Whether a step touches the rows of the items it meets alone: where it can, SSM does so unless told otherwise."""
    if composed:
        if config["sparse_gradients"]:
            raise ValueError(
                "sparse_gradients (True) must be False or null where items have attributes or given vectors: each step "
                "makes every item anew"
            )
        return False
    if config["sparse_gradients"] is not None:
        return bool(config["sparse_gradients"])
    if config["loss_type"] != "SSM" or config["compile"] or config["weight_decay"]:
        return False
    return config["single_spec"] and config["learner"] in ("adam", "adamw")
