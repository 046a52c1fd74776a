"""RecBole's Collector without its users x items tables: the same numbers from the top k and from counting."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_lsti.errors import nearest
from recbole_lsti.evaluation.chunks import Pairs, Ranked, Scores, ranked
from recbole_lsti.evaluation.listed import Listed

PER_EVALUATION = (
    "rec.topk",
    "rec.meanrank",
    "rec.repeat",
    "rec.score",
    "rec.items",
    "data.label",
)  # forgotten after each


class RankingCollector(Collector):
    """Collects what RecBole's ranking metrics read: of each row the best k items and the ranks of its targets.

    RecBole's own builds a matrix of the targets as large as the scores, sorts every row where GAUC is asked for, and
    moves numbers and counters to the CPU as if they were tensors, which stops ItemCoverage, AveragePopularity,
    ShannonEntropy, GiniIndex and TailPercentage. A target with a score of -inf is a miss, however few items are left.
    """

    had: Tensor | None = None  # user * N + item of the training part's interactions, sorted, where a metric asks

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._parts: dict[str, list[Tensor]] = {}  # of each batch, joined at the end

    def data_collect(self, train_data: Any) -> None:
        """Collect what metrics read of the training data: RecBole's counts, item attributes, who has had what.

        Raises:
            ValueError: if `diversity_field` is no loaded attribute of the items where IntraListDiversity is asked for.
        """
        train_data = getattr(
            train_data, "general_dataloader", train_data
        )  # knowledge graphs' loaders wrap the usual one
        super().data_collect(train_data)
        dataset = train_data.dataset
        if self.register.need("data.item_attributes"):
            self.data_struct.set("data.item_attributes", _item_attributes(self.config, dataset))
        if self.register.need("rec.repeat"):
            self.n_items = dataset.num(dataset.iid_field)
            self.had = _interactions(dataset, self.n_items)

    def twin(self) -> RankingCollector:
        """Return a collector that knows the same of the training data and has collected nothing yet."""
        other = copy.copy(self)
        other.data_struct, other._parts = DataStruct(), {}
        for key, value in self.data_struct._data_dict.items():
            if key not in PER_EVALUATION:
                other.data_struct.set(key, value)
        return other

    def eval_batch_collect(
        self, scores_tensor: Tensor | Scores, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch.

        Args:
            scores_tensor: (B, N) scores, -inf for items that do not compete, or Scores that compute them by ranges.
            interaction: the batch.
            positive_u (Tensor): (P,) int64, row of each target; an item that a row has twice counts once.
            positive_i (Tensor): (P,) int64, item of each target.
        """
        if self.config["eval_type"] != EvaluatorType.RANKING:
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        collect_rankings([self], scores_tensor, interaction, positive_u, positive_i)

    def keep(
        self, ranking: Ranked, interaction: Any, row: Tensor, item: Tensor, seen: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Keep what a ranking of a batch says of its targets: row, item and seen as for `collect_rankings`."""
        n_rows, again = len(ranking.items), None
        if self.had is not None:  # before repeated targets go: all of them tell where a row begins
            again = self._had_before(self.had, interaction, row, item, seen)
        once = _first_of_each(row, item) if len(row) > n_rows else slice(None)
        row, item = row[once], item[once]
        found = (ranking.items[row] == item[:, None]) & (ranking.values[row] > -torch.inf)  # (P, k)
        self._add("rec.items", ranking.items)
        hits = _by_row(found, row, n_rows)
        self._add("rec.topk", hits)
        n_targets = hits[:, -1:]
        if again is not None:
            again = again[once]
            self._add("rec.repeat", _by_row(found[again], row[again], n_rows))
        if ranking.rank is not None and ranking.competing is not None:
            total = torch.zeros(n_rows, device=row.device).index_add_(0, row, ranking.rank[once])[:, None]
            self._add("rec.meanrank", torch.cat([total, ranking.competing, n_targets], dim=1))

    def _add(self, name: str, part: Tensor) -> None:
        self._parts.setdefault(name, []).append(part.cpu())

    def _had_before(
        self, had: Tensor, interaction: Any, row: Tensor, item: Tensor, seen: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Whether each target's user had it: (P,) bool.

        In the training part or in the whole history, `seen`; without that, in the history that the row shows.
        """
        users = interaction[self.config["USER_ID_FIELD"]]
        at, item = row.cpu(), item.cpu()
        if len(users) > int(at[-1]) + 1:
            at = target_places(at, len(users))
        asked = users.cpu()[at] * self.n_items + item
        again = had[torch.searchsorted(had, asked).clamp(max=len(had) - 1)] == asked
        if seen is not None:
            again |= torch.isin(at * self.n_items + item, seen[0].cpu() * self.n_items + seen[1].cpu())
            return again.to(row.device)
        shown = self.config["ITEM_ID_FIELD"] + (self.config["LIST_SUFFIX"] or "")
        if shown in interaction and interaction[shown].ndim == 2:
            again |= (interaction[shown].cpu()[at] == item[:, None]).any(1)
        return again.to(row.device)

    def get_data_struct(self) -> Any:
        """Return what was collected, tensors on the CPU, and forget what belongs to this evaluation alone."""
        content = self.data_struct._data_dict
        content.update({name: torch.cat(parts) for name, parts in self._parts.items()})
        self._parts = {}
        for key, value in content.items():
            if torch.is_tensor(value):
                content[key] = value.cpu()
        collected = copy.copy(self.data_struct)
        collected._data_dict = dict(content)
        for key in PER_EVALUATION:
            content.pop(key, None)
        return collected


def collect_rankings(
    collectors: Sequence[RankingCollector],
    scores: Tensor | Scores | Listed,
    interaction: Any,
    row: Tensor,
    item: Tensor,
    seen: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Give collectors their rankings of one batch, from one pass over its scores.

    Args:
        collectors: of the ranking of all items and, where `seen` is given, of the one without those.
        scores: (B, N), used up where `seen` is given, or Scores; or Listed, which tell no ranks of targets (GAUC).
        interaction: the batch.
        row, item (Tensor): (P,) int64, the targets.
        seen: (row, item) pairs that do not compete, two (S,) int64 tensors.
    """
    first = collectors[0]
    if isinstance(scores, Tensor):
        scores = Scores.whole(scores)
    row, item = row.to(first.device), item.to(first.device)
    masks = [None] if seen is None else [None, Pairs(*seen, first.device)]
    if isinstance(scores, Listed):
        rankings = scores.ranked(max(first.topk), masks, first.device)
    else:
        rankings = ranked(scores, row, item, max(first.topk), first.register.need("rec.meanrank"), masks)
    for collector, ranking in zip(collectors, rankings, strict=True):
        collector.keep(ranking, interaction, row, item, seen)


def target_places(row: Tensor, n_shown: int) -> Tensor:
    """Where the targets stand in a batch with sampled negatives: each user's targets, then so many candidates for each.

    Args:
        row (Tensor): (P,) int64, ascending, the ranked row of each target.
        n_shown (int): rows that the batch shows, P times one more than the negatives of a target.
    Returns:
        Tensor: (P,) int64.
    """
    first = torch.searchsorted(row, row)
    return first * (n_shown // len(row)) + torch.arange(len(row)) - first


def _first_of_each(row: Tensor, item: Tensor) -> Tensor:
    """Whether each (row, item) pair is the first of its like, (P,) bool."""
    place = torch.arange(len(row), device=row.device)
    pairs, which = torch.stack([row, item]).unique(dim=1, return_inverse=True)
    first = place.new_full((pairs.shape[1],), len(row)).scatter_reduce(0, which, place, "amin")
    return first[which] == place


def _by_row(found: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Where each row's targets stand in its list, and how many it has: (P, k) bool -> (B, k + 1) int64."""
    counted = torch.cat([found, torch.ones_like(found[:, :1])], dim=1).long()
    return counted.new_zeros(n_rows, counted.shape[1]).index_add_(0, row, counted)


def _item_attributes(config: Any, dataset: Any) -> Tensor:
    """The column of the items that `diversity_field` names, (N,) or (N, A)."""
    field = config["diversity_field"]
    known = [] if dataset.item_feat is None else [name for name in dataset.item_feat if name != dataset.iid_field]
    if field not in known:
        raise ValueError(
            f"diversity_field ({field}) must be a column of {dataset.dataset_name}.item that load_col loads; "
            f"loaded: {', '.join(known) or 'none'}{nearest(str(field), known)}"
        )
    return dataset.item_feat[field]


def _interactions(dataset: Any, n_items: int) -> Tensor:
    """user * N + item of every interaction of a data set, sorted."""
    rows = dataset.inter_feat
    user, items = rows[dataset.uid_field], [rows[dataset.iid_field]]
    shown = getattr(dataset, "item_id_list_field", None)  # a sequential row's target, and the item before it
    if hasattr(rows, "before"):  # rows that gather: the whole histories need not be
        items.append(rows.before(dataset.iid_field))
    elif shown is not None and shown in rows:
        items.append(rows[shown][torch.arange(len(user)), rows[dataset.item_list_length_field] - 1])
    return torch.unique(torch.cat([user * n_items + item for item in items]))
