"""RecBole's tables without its slow steps: the same rows, ids and types, read by columns and filtered by masks.

Each method here stands for the RecBole method of its name and gives the same result, with three differences that are
meant: `rm_dup_inter` sorts by time stably (RecBole's sort leaves the order of equal times open); a `.user` or `.item`
row without an id is dropped where it stands (RecBole drops its neighbour if a row above it was a duplicate); and what
is filtered or filled is counted and logged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_lsti.data.grouping import BLOCK, count_ids
from recbole_lsti.data.lines import line_of_row
from recbole_lsti.data.reader import read_header, read_table
from recbole_lsti.errors import AtomicFileError, nearest

TOKEN_ARRAY_BYTES = 1 << 30  # a fixed-width array of tokens is no larger; one very long token would make it so


class AtomicTables(Dataset):
    """Reads atomic files, filters and remaps them as RecBole's Dataset does, column by column.

    Raises:
        AtomicFileError: a file that cannot be read; the message names file, line and rule.
        ValueError: a filter that leaves no row.
    """

    inter_feat: Any  # a DataFrame until `build`, unless it comes from the cache

    def _get_preset(self) -> None:
        super()._get_preset()
        self.told: list[str] = []  # what was read, filtered and filled: the cache keeps it with the tables

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        load_col, unload_col = self._get_load_and_unload_col(source)
        if load_col == set():
            return None
        separator, encoding = self.config["field_separator"], self.config["encoding"] or "utf-8"
        header = read_header(filepath, separator, encoding)
        fields = [
            field
            for field in header
            if (load_col is None or field.name in load_col) and field.name not in (unload_col or ())
        ]
        lacking = (load_col or set()) - {field.name for field in header}
        if lacking:
            names = ", ".join(sorted(map(str, lacking)))  # YAML reads a bare No as False
            self.logger.warning(f"{filepath} has no column {names}, which load_col asks for")
        if not fields:
            self.logger.warning(f"No columns has been loaded from [{source}]")
            return None
        exact = {self.time_field} if source is FeatureSource.INTERACTION else set()
        feat, lines = read_table(
            filepath,
            {field.name for field in fields},
            exact=exact,
            separator=separator,
            seq_separator=self.config["seq_separator"],
            encoding=encoding,
        )
        if lines.joined:
            self.logger.warning(f"{filepath}: {lines.joined} lines are part of a quoted field that began above them")
        for field in fields:
            if source != "link":
                self.field2source[field.name] = source
                self.field2type[field.name] = FeatureType(field.type)
                if "float" in field.type:
                    self.field2bucketnum[field.name] = 2
            if field.type.endswith("seq"):
                feat[field.name] = self._cut_lists(field.name, feat[field.name])
            elif source != "link":
                self.field2seqlen[field.name] = 1
        if exact and self.time_field in feat and self.field2type[self.time_field] is FeatureType.FLOAT:
            self._check_time(filepath, feat[self.time_field].to_numpy())
        self._rows_read = len(feat)
        self._tell(f"{filepath}: {len(feat)} rows, columns {', '.join(feat.columns)}")
        return feat

    def _cut_lists(self, field: str, lists: pd.Series) -> pd.Series:
        longest = int(lists.map(len).max())
        limit = (self.config["seq_len"] or {}).get(field, longest)
        self.field2seqlen[field] = min(limit, longest)
        return lists.map(lambda values: values[:limit]) if limit < longest else lists

    def _check_time(self, path: str, time: np.ndarray) -> None:
        if time.dtype != np.int64 and np.isinf(time).any():
            row = int(np.flatnonzero(np.isinf(time))[0])
            line = line_of_row(path, row, self.config["field_separator"], self.config["encoding"] or "utf-8")
            raise AtomicFileError.at(path, line, f"{self.time_field} ({time[row]}) must be a finite number")

    def _load_user_or_item_feat(self, token: str, dataset_path: str, source: Any, field_name: str) -> Any:
        feat = super()._load_user_or_item_feat(token, dataset_path, source, field_name)
        if feat is not None and len(feat) < self._rows_read:
            why = f"a row above has the same {getattr(self, field_name)}"
            self._tell(f"{source.value}_feat: {self._rows_read - len(feat)} of {self._rows_read} rows filtered: {why}")
            feat = feat.reset_index(drop=True)
        return feat

    # ---- filtering ---------------------------------------------------------------------------------------------

    def _keep(self, feat_name: str, kept: np.ndarray, why: str) -> None:
        """Keep the rows of a table where `kept`, and log how many go and why.

        Raises:
            ValueError: if none is left.
        """
        feat = getattr(self, feat_name)
        n_kept = int(np.count_nonzero(kept))
        if n_kept == len(feat):
            return
        self._tell(f"{feat_name}: {len(feat) - n_kept} of {len(feat)} rows filtered: {why}")
        if not n_kept:
            raise ValueError(f"{feat_name} must keep at least one row; all {len(feat)} were filtered: {why}")
        setattr(self, feat_name, feat[np.asarray(kept)].reset_index(drop=True))

    def _tell(self, line: str) -> None:
        self.told.append(line)
        self.logger.info(line)

    def _filter_nan_user_or_item(self) -> None:
        for field, name in ((self.uid_field, "user_feat"), (self.iid_field, "item_feat")):
            for feat_name in (name, "inter_feat"):
                feat = getattr(self, feat_name)
                if feat is not None and field is not None:
                    missing = feat[field].isna().to_numpy()
                    self._keep(feat_name, ~missing, f"{field} is missing")

    def _remove_duplication(self) -> None:
        keep = self.config["rm_dup_inter"]
        if keep is None:
            return
        self._check_field("uid_field", "iid_field")
        if self.time_field in self.inter_feat:
            time = self.inter_feat[self.time_field].to_numpy()
            if np.any(time[1:] < time[:-1]) or np.isnan(time).any():
                order = np.argsort(time, kind="stable")
                self.inter_feat = self.inter_feat.take(order).reset_index(drop=True)
        else:
            self.logger.warning(f"rm_dup_inter ({keep}) goes by the order of the file: no time field is loaded")
        duplicated = self.inter_feat.duplicated([self.uid_field, self.iid_field], keep=keep).to_numpy()
        self._keep("inter_feat", ~duplicated, f"another row has the same user and item (rm_dup_inter: {keep})")

    def _filter_by_field_value(self) -> None:
        for field, wanted in (self.config["val_interval"] or {}).items():
            if field not in self.field2type:
                raise ValueError(f"val_interval ({field}) must name a loaded column{nearest(field, self.field2type)}")
            for feat_name in self._feat_names(field):
                values = getattr(self, feat_name)[field]
                if self.field2type[field] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                    intervals = self._parse_intervals_str(wanted)
                    if not intervals:
                        raise ValueError(f"val_interval of {field} ({wanted}) must be an interval such as [1,5)")
                    kept = self._within_intervals(values.to_numpy(), intervals)
                else:
                    kept = values.isin(wanted).to_numpy()
                self._keep(feat_name, kept, f"{field} is not in {wanted} (val_interval)")

    def _feat_names(self, field: str) -> list[str]:
        """The tables that hold a field, as `field2feats` gives them, by name."""
        feats = self.field2feats(field)
        return [name for name in self.feat_name_list if any(getattr(self, name) is feat for feat in feats)]

    def _filter_inter_by_user_or_item(self) -> None:
        if self.config["filter_inter_by_user_or_item"] is not True:
            return
        for field, name in ((self.uid_field, "user"), (self.iid_field, "item")):
            feat = getattr(self, f"{name}_feat")
            if feat is not None:
                (known, asked), _ = factorize_together([feat[field].array, self.inter_feat[field].array])
                self._keep("inter_feat", np.isin(asked, known), f"{field} has no row in the .{name} file")

    def _filter_by_inter_num(self) -> None:
        if self.uid_field is None or self.iid_field is None:
            return
        sides = [
            _Side.of(self.inter_feat, self.uid_field, self.user_feat, self.config["user_inter_num_interval"], self),
            _Side.of(self.inter_feat, self.iid_field, self.item_feat, self.config["item_inter_num_interval"], self),
        ]
        if all(side.interval is None for side in sides):
            return
        rows: Any = slice(None)
        while True:
            bans = [side.ban(rows) for side in sides]
            if not any(ban.any() for ban in bans):
                break
            rows = np.arange(len(self.inter_feat)) if isinstance(rows, slice) else rows
            for side, ban in zip(sides, bans, strict=True):
                rows = rows[~ban[side.inter[rows]]]
        kept = np.zeros(len(self.inter_feat), dtype=bool)
        kept[rows] = True
        why = ", ".join(f"{side.field} {side.interval}" for side in sides if side.interval is not None)
        self._keep("inter_feat", kept, f"too few or too many interactions ({why})")
        for side, feat_name in zip(sides, ("user_feat", "item_feat"), strict=True):
            if side.own is not None:
                self._keep(feat_name, side.listed[side.own], f"too few or too many interactions ({why})")

    # ---- ids and values ----------------------------------------------------------------------------------------

    def _remap(self, remap_list: list[tuple[pd.DataFrame, str, Any]]) -> None:
        if not remap_list:
            return
        parts = []
        for feat, field, ftype in remap_list:
            values = feat[field]
            parts.append(values.array if ftype == FeatureType.TOKEN else np.concatenate(values.to_numpy()))
        codes, tokens = factorize_together(parts)
        words = ["[PAD]", *tokens]
        huge = max(map(len, words)) * len(words) * 4 > TOKEN_ARRAY_BYTES
        id_token = np.array(words, dtype=object if huge else None)
        token_id = {token: index for index, token in enumerate(words)}
        for (feat, field, ftype), code in zip(remap_list, codes, strict=True):
            self.field2id_token.setdefault(field, id_token)
            self.field2token_id.setdefault(field, token_id)
            code += 1  # missing tokens, code -1, become the padding; a copy of their own, see factorize_together
            if ftype == FeatureType.TOKEN_SEQ:
                ends = np.cumsum(feat[field].map(len).to_numpy())
                feat[field] = pd.Series(np.split(code, ends[:-1]), index=feat.index, dtype=object)
            else:
                feat[field] = code

    def _user_item_feat_preparation(self) -> None:
        for name, field in (("user", self.uid_field), ("item", self.iid_field)):
            feat = getattr(self, f"{name}_feat")
            lacking = 0 if feat is None else self.num(field) - 1 - feat[field].nunique()
            if lacking:
                self._tell(f"{name}_feat: {lacking} of {self.num(field) - 1} {name}s have no row: filled")
        super()._user_item_feat_preparation()

    def _fill_nan(self) -> None:
        for feat_name in self.feat_name_list:
            feat = getattr(self, feat_name)
            first = 0 if feat_name == "inter_feat" else 1  # row 0 of the others is the padding
            for field in feat:
                values, ftype = feat[field].iloc[first:], self.field2type[field]
                if ftype == FeatureType.FLOAT and (missing := int(values.isna().sum())):
                    self._tell(f"{feat_name}: {missing} missing values of {field} filled with the mean")
                elif ftype == FeatureType.TOKEN and (missing := int((values.isna() | (values == 0)).sum())):
                    self._tell(f"{feat_name}: {missing} missing values of {field} filled with the padding token")
        super()._fill_nan()

    def _normalize(self) -> None:
        chosen, everything = self.config["normalize_field"], self.config["normalize_all"]
        if chosen is not None and everything is True:
            raise ValueError(f"normalize_field ({chosen}) must be null where normalize_all is True")
        fields = chosen or (self.float_like_fields if everything else [])
        for field in fields:
            if field not in self.field2type:
                raise ValueError(
                    f"normalize_field ({field}) must name a loaded column{nearest(field, self.field2type)}"
                )
            if self.field2type[field] not in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                self.logger.warning(f"{field} is not a FLOAT/FLOAT_SEQ feat, which will not be normalized.")
                continue
            for feat in self.field2feats(field):
                if self.field2type[field] == FeatureType.FLOAT:
                    feat[field] = self._scaled(field, feat[field].to_numpy())
                else:
                    scaled = self._scaled(field, np.concatenate(feat[field].to_numpy()))
                    ends = np.cumsum(feat[field].map(len).to_numpy())
                    feat[field] = pd.Series(np.split(scaled, ends[:-1]), index=feat.index, dtype=object)

    def _scaled(self, field: str, values: np.ndarray) -> np.ndarray:
        low, high = values.min(), values.max()
        if low == high:
            self.logger.warning(f"All the same value in [{field}].")
            return np.ones(len(values))
        return (values - low) / (high - low)

    # ---- tensors -----------------------------------------------------------------------------------------------

    def _dataframe_to_interaction(self, data: pd.DataFrame | Interaction) -> Interaction:
        if isinstance(data, Interaction):  # from the cache
            return data
        # interactions are ordered next, which makes int64 of 32-bit ids; those that are split already are not
        narrow = data is self.inter_feat and self.config["benchmark_filename"] is None
        paired = [field for field in data if field in self.config["numerical_features"]]  # (value, weight) pairs
        columns = dict(super()._dataframe_to_interaction(data[paired]).interaction) if paired else {}
        for field in data:
            if field not in columns:
                columns[field] = self._to_tensor(field, data[field].to_numpy(), narrow)
        return Interaction({field: columns[field] for field in data})

    def _to_tensor(self, field: str, values: np.ndarray, narrow: bool) -> torch.Tensor:
        """(rows,) int64 (int32 if narrow) or float32; (rows, longest list), zero-padded on the right, for lists."""
        ftype = self.field2type[field]
        if narrow and ftype == FeatureType.TOKEN and values.dtype == np.int32:
            return torch.from_numpy(values)
        dtype = np.int64 if ftype in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ) else np.float32
        if ftype in (FeatureType.TOKEN, FeatureType.FLOAT):
            return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))
        lists = [row[: self.field2seqlen[field]] for row in values]
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        padded = np.zeros((len(lists), int(lengths.max())), dtype=dtype)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(lists)
        return torch.from_numpy(padded)

    def join(self, df: Interaction) -> Interaction:
        """Add the columns of the user and item tables to rows that name users and items, in place."""
        for field, feat in ((self.uid_field, self.user_feat), (self.iid_field, self.item_feat)):
            if feat is not None and field in df:
                ids = df[field]
                for name, column in feat.interaction.items():
                    df[name] = column[ids]
        return df

    def counter(self, field: str) -> Counter:
        """Count how often each id of a token field occurs in the interactions.

        Raises:
            ValueError: if the interactions have no such token field.
        """
        if isinstance(self.inter_feat, pd.DataFrame) or self.field2type.get(field) != FeatureType.TOKEN:
            return super().counter(field)
        counts = np.bincount(self.inter_feat[field].numpy())
        ids = np.flatnonzero(counts)
        return Counter(dict(zip(ids.tolist(), counts[ids].tolist(), strict=True)))

    def _mean_count(self, field: str) -> float:
        counts = np.bincount(np.asarray(self.inter_feat[field]))
        return float(np.mean(counts[counts > 0]))

    @property
    def avg_actions_of_users(self) -> float:
        """Interactions of a user, on average."""
        return self._mean_count(self.uid_field)

    @property
    def avg_actions_of_items(self) -> float:
        """Interactions with an item, on average."""
        return self._mean_count(self.iid_field)


class _Side:
    """Users or items while those with too few or too many interactions are banned, until none is.

    Attributes:
        inter (ndarray): (interactions,) codes.
        own (ndarray | None): (rows,) codes of the .user or .item table.
        listed (ndarray): (codes,) bool, those whose row in the table is left.
    """

    def __init__(self, field: str, interval: str | None, intervals: Any, within: Any) -> None:
        self.field, self.interval, self.intervals, self.within = field, interval, intervals, within
        self.inter: np.ndarray = np.empty(0)
        self.own: np.ndarray | None = None
        self.listed: np.ndarray = np.empty(0)

    @classmethod
    def of(cls, inter: pd.DataFrame, field: str, feat: pd.DataFrame | None, interval: Any, dataset: Dataset) -> _Side:
        side = cls(field, interval, dataset._parse_intervals_str(interval), dataset._within_intervals)
        if feat is None:
            side.inter, tokens = inter[field].array.codes, inter[field].array.categories
        else:
            (side.inter, side.own), tokens = factorize_together([inter[field].array, feat[field].array])
        side.listed = np.zeros(len(tokens), dtype=bool)
        if side.own is not None:
            side.listed[side.own] = True
        return side

    def ban(self, rows: np.ndarray | slice) -> np.ndarray:
        """(codes,) bool: those to go, given the interactions that are left; they leave the table."""
        count = count_ids(self.inter[rows], len(self.listed))
        if not self.intervals:
            return np.zeros(len(count), dtype=bool)
        # RecBole: who has no interactions left goes only by his row in the table, and by the first lower bound alone
        banned = (count > 0) & ~self.within(count, self.intervals)
        banned |= self.listed & (count < self.intervals[0][1])
        self.listed &= ~banned
        return banned


def factorize_together(columns: Sequence[Any]) -> tuple[list[np.ndarray], np.ndarray]:
    """Do pandas.factorize over several columns as if they stood one after the other.

    Args:
        columns: categoricals or object arrays of tokens; missing ones are NaN.
    Returns:
        tuple: a new int32 code array for each column, -1 where a token is missing, and the tokens, (codes,) object, in
        order of first appearance.
    """
    parts = [_factorize(column) for column in columns]
    words = [np.asarray(unique, dtype=object) for _, unique in parts]
    if len(parts) == 1:
        return [parts[0][0].astype(np.int32)], words[0]
    shared, tokens = pd.factorize(np.concatenate(words))
    places = np.split(shared.astype(np.int32), np.cumsum([len(word) for word in words])[:-1])
    codes = [np.append(place, np.int32(-1))[code] for (code, _), place in zip(parts, places, strict=True)]
    return codes, np.asarray(tokens, dtype=object)


def _factorize(column: Any) -> tuple[np.ndarray, Any]:
    """pandas.factorize, at once where the categories stand in order of first appearance, as they do after reading."""
    if isinstance(column, pd.Categorical) and _appear_in_order(column.codes, len(column.categories)):
        return column.codes, column.categories
    return pd.factorize(column)


def _appear_in_order(codes: np.ndarray, n_codes: int) -> bool:
    """Whether each of the codes 0..n_codes-1 appears, 0 first and each of the others after the one below it."""
    highest = -1
    for start in range(0, len(codes), BLOCK):
        part = np.r_[highest, codes[start : start + BLOCK].astype(np.int32)]
        so_far = np.maximum.accumulate(part)
        if np.any(part[1:] - so_far[:-1] > 1):
            return False
        highest = int(so_far[-1])
    return highest + 1 == n_codes
