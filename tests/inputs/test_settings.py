"""Which fields may be inputs, and how they are found."""

from __future__ import annotations

import pytest
import torch

from inputs.conftest import ALL, built, preloaded


def test_columns_are_loaded_without_load_col(shop):
    _, loaders = built(shop | {"input_fields": ["event", "year"]})
    dataset = loaders[0]._dataset
    assert {"event", "event_list"} <= set(dataset.inter_feat.interaction)
    assert "tags" not in dataset.inter_feat.interaction
    assert sorted(dataset.item_feat.columns) == ["item_id", "year"]
    _, loaders = built(shop)
    assert loaders[0]._dataset.item_feat is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"input_fields": ["evnt"]},
            r"input_fields \(evnt\) must be a column of shop.inter or .* \(did you mean event\?\)",
        ),
        ({"input_fields": ["timestamp"]}, r"input_fields \(timestamp\) must be other columns .*: time_gaps makes it"),
        ({"input_fields": ["item_id"]}, r"input_fields \(item_id\) must be other columns"),
        ({"input_fields": "event"}, r"input_fields \(event\) must be a list of different fields such as"),
        ({"input_fields": ["event", "event"]}, r"input_fields .* must be a list of different fields"),
        (
            {"input_fields": ["price"], "numerical_features": ["price"]},
            r"input_fields \(price\) must not be in numeric",
        ),
        ({"input_fields": ["tags"], "unload_col": {"inter": ["tags"]}, "load_col": None}, r"\(tags\) .*unload_col"),
        ({"id_dropout": 0.2}, r"id_dropout \(0.2\) must be 0 where items have no attributes"),
        (
            {"id_dropout": 0.2, "input_fields": ["event"]},
            r"id_dropout \(0.2\) must be 0 where items have no attributes",
        ),
        ({"id_dropout": 1.2}, r"id_dropout \(1.2\) must be a number from 0 to 1"),
    ],
)
def test_what_cannot_be_an_input_is_refused(shop, settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        built(shop | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"alias_of_item_id": None},
            r"preload_weight \(iid\) must be keyed by another name of an id: alias_of_item_id",
        ),
        (
            {"alias_of_item_id": None, "alias_of_user_id": ["iid"]},
            r"preload_weight \(iid\) must be keyed by another name of the item id: alias_of_item_id",
        ),
        ({"preload_weight": {"iid": "embeding"}}, r"preload_weight \(embeding\) .*did you mean embedding\?"),
        ({"additional_feat_suffix": None}, r"preload_weight \(iid\) must be a column of .*; there: none"),
    ],
)
def test_vectors_that_are_of_no_item_are_refused(shop, settings, message):
    with pytest.raises(ValueError, match=message):
        built(preloaded(shop) | settings)


def test_the_cache_brings_the_fields_back(shop, tmp_path):
    settings = preloaded(shop) | ALL | {"cache_dir": str(tmp_path / "cache")}
    first, loaders = built(settings)
    again, cached = built(settings)
    for one, two in ((first, again), (first, built(settings | {"cache_dir": None})[0])):
        for batch, other in zip(loaders[2], cached[2], strict=True):
            torch.testing.assert_close(one.full_sort_predict(batch[0]), two.full_sort_predict(other[0]))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    built(shop | {"cache_dir": str(tmp_path / "cache")})
    assert len(list((tmp_path / "cache").iterdir())) == 2
