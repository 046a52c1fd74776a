"""RecBole's SequentialDataset without the copies: exact time order, histories gathered when a batch asks for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data import dataset as recbole_dataset
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureType

from recbole_lsti.data import snapshot
from recbole_lsti.data.cache import Cache, entry_name
from recbole_lsti.data.cooccurrence import item_vectors
from recbole_lsti.data.events import EXACT_TIME, Events, HistoryRows
from recbole_lsti.data.fields import InputColumns
from recbole_lsti.data.grouping import positions
from recbole_lsti.data.split import VectorSplits
from recbole_lsti.data.tables import AtomicTables

# where one of these is set, LSTI reads time differences, which float32 cannot hold: batches then show exact_<time>
TIME_KEYS = ("short_seconds", "session_gap", "time_bias")
FIELD_TYPES = {"USER_ID_FIELD": FeatureType.TOKEN, "ITEM_ID_FIELD": FeatureType.TOKEN, "TIME_FIELD": FeatureType.FLOAT}


class LSTIDataset(VectorSplits, InputColumns, AtomicTables, SequentialDataset):
    """A SequentialDataset whose rows point into one time-ordered table of events.

    It yields the rows that RecBole's SequentialDataset yields, in both train modes, for every split, and differs in
    two ways: events are ordered by the time as it stands in the file, not by its float32 rounding, and list fields
    are gathered when they are read. `dataset.inter_feat[item_list_field]`, `item_list_length_field` and
    `inter_matrix()` answer as RecBole's do.

    Raises:
        ValueError: if user, item or time is not loaded or of another type, or `input_fields` names no column of the
            files.
    """

    inter_feat: Any  # a DataFrame while RecBole reads and filters, an Interaction from the cache, then HistoryRows
    events: Events | None = None  # from the cache, where there is one

    def _from_scratch(self) -> None:
        if self.config["cache_dir"] is None or type(self) is not LSTIDataset or self.config["benchmark_filename"]:
            super()._from_scratch()
            return
        cache = Cache(self.config["cache_dir"], self.config["cache_max_gib"])
        name = entry_name(self.dataset_name, snapshot.settings_of(self.config), snapshot.files_of(self.config))
        entry = cache.load(name)
        if entry is None:
            super()._from_scratch()
            entry = snapshot.take(self)
            cache.save(name, entry)
            entry = cache.load(name) or entry  # mapped from the file, so that memory is given back at once
        else:
            self.logger.info(
                "\n".join([f"tables from the cache, {cache.folder / name}, made of", *entry.plain["told"]])
            )
        self._get_preset()
        self._get_field_from_config()
        snapshot.put_back(self, entry)

    def _load_data(self, token: str, dataset_path: str) -> None:
        super()._load_data(token, dataset_path)
        for name, kind in FIELD_TYPES.items():
            field = self.config[name]
            loaded = [] if self.inter_feat is None else list(self.inter_feat)
            if field not in loaded:
                raise ValueError(
                    f"{name} ({field}) must be a column of {token}.inter that load_col loads; "
                    f"loaded: {', '.join(loaded) or 'none'}"
                )
            if self.field2type[field] is not kind:
                found = self.field2type[field].value
                raise ValueError(f"{name} ({field}) must be a {kind.value} column of {token}.inter, not {found}")

    def _normalize(self) -> None:
        # the last moment at which time is what the file says: normalisation and float32 come after
        self.event_time = self.inter_feat[self.time_field].to_numpy()  # int64 where the file has integers
        self.inter_feat[self.time_field] = self.inter_feat[self.time_field].astype(np.float64)
        super()._normalize()

    def data_augmentation(self) -> None:
        """Order the events and point one row at every event that has a history."""
        self._aug_presets()
        events = self.events or self.order_events(self.inter_feat.interaction)
        if any(self.config[key] for key in TIME_KEYS):
            events.columns[f"exact_{self.time_field}"] = torch.from_numpy(events.time.astype(np.float64))
        if self.config["time_gaps"]:
            events.columns[f"gap_{self.time_field}"] = torch.from_numpy(events.gaps())
        begins = events.begins
        has_history = np.ones(len(events.first), dtype=bool)
        has_history[begins] = False
        targets = positions(has_history)
        self._tell_rows(begins, len(events.first), len(targets))
        width = None if self.config["pad_to_longest"] else self.max_item_list_len
        # a model that carries its state reads whole histories, MAX_ITEM_LIST_LENGTH events at a time
        longest = len(events.first) if self.config["carry_state"] else self.max_item_list_len
        self.inter_feat = HistoryRows(events, targets, longest, width)

    def _tell_rows(self, begins: np.ndarray, n_events: int, n_rows: int) -> None:
        lonely = np.count_nonzero(np.diff(np.r_[begins, n_events]) == 1)
        self.logger.info(
            f"{n_events} events give {n_rows} rows to predict: the first event of each of {len(begins)} users has no "
            f"history; {lonely} users have that event alone and give no row"
        )

    def order_events(self, columns: dict[str, torch.Tensor]) -> Events:
        """Order the interactions by user and exact time; `columns` is emptied on the way."""
        columns[EXACT_TIME] = torch.from_numpy(self.event_time)
        del self.event_time
        return Events.ordered(columns, **self.event_names())

    def event_names(self) -> dict[str, str]:
        """The names that Events goes by."""
        return {
            "uid_field": self.uid_field,
            "time_field": self.time_field,
            "length_field": self.item_list_length_field,
            "list_suffix": self.config["LIST_SUFFIX"],
        }

    def __getitem__(self, index: Any, join: bool = True) -> Any:
        rows = self.inter_feat[index]
        if isinstance(rows, HistoryRows):
            rows = rows.gather()
        return self.join(rows) if join else rows

    def seen(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whole histories of the rows start..stop as (row from 0, item id) pairs, two (S,) int64 tensors.

        Not cut to MAX_ITEM_LIST_LENGTH, unless the rows come from `benchmark_filename` and hold no more.
        """
        rows = self.inter_feat
        if isinstance(rows, HistoryRows):
            return rows.histories(start, stop, self.iid_field)
        items = rows[self.item_id_list_field][start:stop]
        row, step = items.nonzero(as_tuple=True)
        return row, items[row, step]

    def item_vectors(self, width: int, seed: int) -> torch.Tensor:
        """Return (N, width) float32 vectors of deviation 1, alike where items stand near each other in the rows.

        Items that stand near no other have zeros. See data.cooccurrence.
        """
        rows = self.inter_feat
        if isinstance(rows, HistoryRows):
            events = np.flatnonzero(rows.occurring())
            items, user = rows.events.columns[self.iid_field].numpy()[events], rows.events.first[events]
            begins = np.r_[True, user[1:] != user[:-1]][: len(user)]
            first = np.maximum.accumulate(np.where(begins, np.arange(len(user)), 0))
        else:  # what stands before the target, and the target: every other pair would be counted in many rows
            last = rows[self.item_id_list_field][torch.arange(len(rows)), rows[self.item_list_length_field] - 1]
            items = torch.stack([last, rows[self.iid_field]], dim=1).flatten().numpy()
            first = np.repeat(np.arange(0, len(items), 2), 2)
        return torch.from_numpy(item_vectors(items, first, self.item_num, width, seed))

    def occurring(self) -> torch.Tensor:
        """Return which items are among the targets and histories of the rows, (N,) bool."""
        rows = self.inter_feat
        found = torch.zeros(self.item_num, dtype=torch.bool)
        if isinstance(rows, HistoryRows):
            found[rows.events.columns[self.iid_field][torch.from_numpy(rows.occurring())]] = True
        else:
            found[rows[self.iid_field]] = True
            found[rows[self.item_id_list_field].flatten()] = True
        found[0] = False
        return found


class LSTIKGSeqDataset(LSTIDataset, recbole_dataset.KGSeqDataset):
    """The same for RecBole's sequential models with a knowledge graph (GRU4RecKG, KSR)."""


class LSTIDIENDataset(LSTIDataset, recbole_dataset.DIENDataset):
    """The same for DIEN, whose rows also show one sampled negative item for each item of the history."""

    def data_augmentation(self) -> None:
        """Order the events, the sampled negatives among them as one more column, and point rows at them."""
        negative = self.neg_item_list_field.removesuffix(self.config["LIST_SUFFIX"])
        self.inter_feat.interaction[negative] = self.neg_item_list
        self.copy_field_property(negative, self.iid_field)
        super().data_augmentation()
        self.inter_feat.interaction.dropped.add(negative)  # RecBole shows the list alone


def dataset_class(config: Any) -> type[LSTIDataset]:
    """The data set class for a sequential model: ours, joined with what RecBole's own class for it adds."""
    own = getattr(recbole_dataset, f"{config['model']}Dataset", None)
    if own is not None and issubclass(own, LSTIDataset):
        return own
    if own is not None and issubclass(own, recbole_dataset.KGSeqDataset):
        return LSTIKGSeqDataset
    if own is not None and issubclass(own, recbole_dataset.DIENDataset):
        return LSTIDIENDataset
    return LSTIDataset


def create_dataset(config: Any) -> LSTIDataset:
    """Read, filter and order the data set that the config names.

    Args:
        config: LSTIConfig, or RecBole's Config of a sequential model.
    Returns:
        LSTIDataset: to be handed to RecBole's `data_preparation`, which splits it.
    """
    return dataset_class(config)(config)
