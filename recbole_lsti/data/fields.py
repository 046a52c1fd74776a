"""The columns that a model's inputs name: loaded without being listed in `load_col`, and checked."""

from __future__ import annotations

from typing import Any

from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource

from recbole_lsti.data.reader import read_header
from recbole_lsti.errors import nearest

SOURCES = (FeatureSource.INTERACTION, FeatureSource.ITEM)


class InputColumns(Dataset):
    """Loads what `input_fields` names from the .inter and .item files, and what `preload_weight` names from its file.

    Raises:
        ValueError: a field of `input_fields` that is no such column, or one that is an input in another way already; a
            field of `preload_weight` that is in no file, or whose ids are not those of another field.
    """

    inter_feat: Any

    def _get_preset(self) -> None:
        super()._get_preset()
        self._columns: dict[Any, list[str]] = {}  # what the header of each file offers

    def _load_feat(self, filepath: str, source: Any) -> Any:
        if self.config["input_fields"] or self.config["preload_weight"]:
            header = read_header(filepath, self.config["field_separator"], self.config["encoding"] or "utf-8")
            self._columns[source] = [field.name for field in header]
        return super()._load_feat(filepath, source)

    def _get_load_and_unload_col(self, source: Any) -> tuple[set[str] | None, set[str] | None]:
        load_col, unload_col = super()._get_load_and_unload_col(source)
        wanted = set(self._wanted(source)) & set(self._columns.get(source, ()))
        if load_col is None or not wanted:  # None: all columns
            return load_col, unload_col
        key = {self.iid_field} if source is FeatureSource.ITEM else set()
        return load_col | wanted | key, unload_col

    def _wanted(self, source: Any) -> list[str]:
        if isinstance(source, FeatureSource):
            fields = (self.config["input_fields"] or []) if source in SOURCES else []
            if source is FeatureSource.ITEM:  # a field of both files is the step's own
                fields = [field for field in fields if field not in self._columns[FeatureSource.INTERACTION]]
            return fields
        pairs = self.config["preload_weight"] or {}
        return [*pairs, *pairs.values()]

    def _load_data(self, token: str, dataset_path: str) -> None:
        super()._load_data(token, dataset_path)
        taken = {
            self.uid_field: "nothing is learned for a user",
            self.iid_field: "it is an input already",
            self.time_field: "time_gaps makes it an input",
        }
        for field in self.config["input_fields"] or []:
            if field in taken:
                raise ValueError(
                    f"input_fields ({field}) must be other columns than {', '.join(taken)}: {taken[field]}"
                )
            if field in (self.config["numerical_features"] or ()):
                raise ValueError(f"input_fields ({field}) must not be in numerical_features: LSTI scales floats itself")
            if self.field2source.get(field) not in SOURCES:
                self._refuse(field, token, taken)

    def _init_alias(self) -> None:
        names = [name for source, columns in self._columns.items() if isinstance(source, str) for name in columns]
        pairs = self.config["preload_weight"] or {}
        for field in (*pairs, *pairs.values()):
            if field not in self.field2source:
                raise ValueError(
                    f"preload_weight ({field}) must be a column of a file of additional_feat_suffix; "
                    f"there: {', '.join(names) or 'none'}{nearest(field, names)}"
                )
        super()._init_alias()
        aliases = [name for fields in self.alias.values() for name in fields]
        for field in pairs:
            if field in names and field not in aliases:
                raise ValueError(
                    f"preload_weight ({field}) must be keyed by another name of an id: alias_of_item_id: [{field}]"
                )

    def _refuse(self, field: str, token: str, taken: dict[str, str]) -> None:
        there = [name for source in SOURCES for name in self._columns.get(source, ()) if name not in taken]
        unload = [name for columns in (self.config["unload_col"] or {}).values() for name in columns]
        why = "; unload_col leaves it out" if field in unload else nearest(field, there)
        raise ValueError(
            f"input_fields ({field}) must be a column of {token}.inter or {token}.item; "
            f"there: {', '.join(there) or 'none'}{why}"
        )
