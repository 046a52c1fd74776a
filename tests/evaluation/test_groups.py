"""Groups of evaluated rows, against counting by hand, for every split."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL, random_rows, write_inter
from recbole.data import data_preparation

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.evaluation.groups import bootstrap, group_rows, group_table, normal_interval, row_features

SPLITS: dict[str, Any] = {
    "loo": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"},
    "ratio": {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": "user"},
    "time": {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": None},
    "moment": {"split": {"TS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": "user"},
}


def parts(folder, eval_args, **settings):
    config = LSTIConfig(
        "LSTI",
        "tiny",
        config_dict={**SMALL, "data_path": str(folder), "eval_args": {**eval_args, "mode": "full"}, **settings},
    )
    train, _, test = data_preparation(config, create_dataset(config))
    return train._dataset, test._dataset


@pytest.mark.parametrize("pad_to_longest", [True, False])
@pytest.mark.parametrize("split", SPLITS)
def test_features_equal_counting_by_hand(tmp_path, split, pad_to_longest):
    late = [(f"late{n}", f"i{n + step}", 490 + step) for n in range(3) for step in range(4)]
    rows = sorted(random_rows(n_users=25, seed=7) + late, key=lambda row: row[2])
    write_inter(tmp_path, "tiny", rows)
    train, test = parts(tmp_path, SPLITS[split], MAX_ITEM_LIST_LENGTH=3, pad_to_longest=pad_to_longest)
    found = row_features(train, test)

    # the training part of a user: events up to the last target of a training row, told by RecBole's own fields
    events: dict[str, list[tuple[str, int]]] = {}
    for user, item, time in rows:
        events.setdefault(user, []).append((item, time))
    place = {id(event): number for user in events for number, event in enumerate(events[user])}
    n_train = Counter(train.inter_feat["user_id"].tolist())
    trained = {
        user: events[user][: n_train[train.token2id("user_id", user)] + 1]
        if n_train[train.token2id("user_id", user)]
        else []
        for user in events
    }
    popularity = Counter(item for user in trained for item, _ in trained[user])
    expected = Counter()
    skipped = Counter()
    for user in events:
        # rows that are tested are each user's last ones, in every one of these splits
        n_test = int((test.inter_feat["user_id"] == test.token2id("user_id", user)).sum())
        for event in events[user][len(events[user]) - n_test :]:
            before = place[id(event)]
            since = event[1] - events[user][before - 1][1]
            activity = len(trained[user])
            key = (user, before, activity, popularity[event[0]], since, popularity[event[0]] == 0, activity == 0)
            expected[key] += 1
            skipped[user] += 1
    names = ["history_length", "user_activity", "item_popularity", "seconds_since_last", "new_item", "new_user"]
    tokens = test.id2token("user_id", found["user"].to_numpy())
    assert Counter(zip(tokens, *(found[name] for name in names), strict=True)) == expected
    assert len(found) == len(test) > 0
    # the rows are those of the evaluation, in its order
    assert found["user"].tolist() == test.inter_feat["user_id"].tolist()
    shown = np.minimum(found["history_length"], 3)
    assert shown.tolist() == test.inter_feat["item_length"].tolist()
    if split in ("time", "moment"):
        assert found["new_user"].any()
    assert list(found.index) == list(range(len(found)))


def test_user_fields_are_columns(tmp_path):
    folder = write_inter(
        tmp_path, "tiny", [("a", "x", 1), ("a", "y", 2), ("a", "z", 9), ("b", "x", 1), ("b", "y", 4), ("b", "z", 5)]
    )
    (folder / "tiny.user").write_text(
        "user_id:token\tgender:token\tage:float\ttags:token_seq\tnew_user:token\na\tf\t30\tp q\tyes\nb\t\t40\tp\tno\n"
    )
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "gender", "age", "tags", "new_user"]}
    train, test = parts(tmp_path, SPLITS["loo"], load_col=columns)
    found = row_features(train, test).set_index(test.id2token("user_id", test.inter_feat["user_id"].numpy()))
    assert found.loc["a", "gender"] == "f"
    assert found.loc["a", "age"] == 30
    assert found.loc["b", "gender"] is None
    assert "tags" not in found
    assert (found.loc["a", "new_user.user"], found.loc["a", "new_user"]) == ("yes", False)


def test_rows_of_benchmark_files(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    (folder / "tiny.train.inter").write_text(header + "a\tx\ty\t2\na\tx y\tz\t3\nb\tx\tz\t2\n")
    (folder / "tiny.valid.inter").write_text(header + "a\tx y z\tx\t4\n")
    (folder / "tiny.test.inter").write_text(header + "a\tx y z x\tw\t5\nc\tz\tz\t6\n")
    train, test = parts(
        tmp_path,
        {"order": "TO"},
        benchmark_filename=["train", "valid", "test"],
        alias_of_item_id=["item_id_list"],
        load_col={"inter": ["user_id", "item_id_list", "item_id", "timestamp"]},
        train_mode="prefix",
        MAX_ITEM_LIST_LENGTH=5,
    )
    found = row_features(train, test)
    assert found["history_length"].tolist() == [4, 1]
    assert found["user_activity"].tolist() == [3, 0]  # x y z
    assert found["item_popularity"].tolist() == [0, 2]  # z is shown to a and to b
    assert found["seconds_since_last"].isna().all()


# ---- groups -------------------------------------------------------------------------------------------------------


def cut(values, name="history_length", **options) -> dict[str, int]:
    return {
        str(key): int(n)
        for key, n in group_rows(pd.Series(values, name=name), **options).value_counts(sort=False).items()
    }


def test_quantiles_are_even_and_labelled_by_what_they_hold():
    assert cut(list(range(1, 101)), n_buckets=4) == {"1-25": 25, "26-50": 25, "51-75": 25, "76-100": 25}
    assert cut([1] * 90 + [2, 7, 9], n_buckets=3) == {"1": 90, "2-9": 3}  # equal values stay together
    assert cut([5, 5], n_buckets=5) == {"5": 2}
    assert cut([0.25, 0.5, 0.75, 1.5], name="age", n_buckets=2) == {"0.25 to 0.5": 2, "0.75 to 1.5": 2}
    assert cut([1.0, math.nan, 3.0], n_buckets=2) == {"1": 1, "3": 1, "unknown": 1}
    assert cut([1.00001, 1.000011, 1.000012, 1.000013], name="x", n_buckets=2) == {
        "1.00001 to 1.000011": 2,
        "1.000012 to 1.000013": 2,
    }
    assert cut([math.nan, math.nan]) == {"unknown": 2}


def test_log_ranges_grow():
    assert cut([0, 1, 2, 3, 9, 10, 29, 30, 99, 100], buckets="log") == {
        "0": 1,
        "1-2": 2,
        "3-9": 2,
        "10-29": 2,
        "30-99": 2,
        "100": 1,
    }
    assert cut([-5.0, 5.0], name="balance", buckets="log", n_buckets=2) == {"-5": 1, "5": 1}  # no logarithm below 0
    week = 7 * 86400
    assert cut([0, 59, 60, 3599, 3600, week, 400 * 86400, math.nan], name="seconds_since_last", buckets="log") == {
        "under 1 minute": 2,
        "1 minute to 1 hour": 2,
        "1 hour to 1 day": 1,
        "1 week to 30 days": 1,
        "1 year and more": 1,
        "unknown": 1,
    }


def test_seconds_are_told_in_a_unit():
    assert cut([0, 30, 5400, 86400], name="seconds_since_last", n_buckets=2) == {
        "0 seconds to 30 seconds": 2,
        "1.5 hours to 1 day": 2,
    }


def test_flags_and_tokens():
    assert cut([True, False, False], name="new_item") == {"new item": 1, "known item": 2}
    assert cut(["f", None, "m", "f"], name="gender") == {"f": 2, "m": 1, "unknown": 1}
    many = cut([f"job{n}" for n in range(30)] + ["job3"], name="job")
    assert len(many) == 21
    assert next(iter(many)) == "job3"
    assert many["all others"] == 10
    assert cut([str(age) for age in range(30)], name="age", n_buckets=2) == {"0-14": 15, "15-29": 15}


def test_wrong_options():
    with pytest.raises(ValueError, match=r"buckets \(quantiles\) must be one of .*did you mean quantile"):
        group_rows(pd.Series([1.0], name="x"), "quantiles")
    with pytest.raises(ValueError, match=r"n_buckets \(0\) must be 1 or more"):
        group_rows(pd.Series([1.0], name="x"), n_buckets=0)


def scores_of(user, values):
    return SimpleNamespace(user=np.asarray(user), metrics=["ndcg@10", "hit@10"], raw=values, unseen=values / 2)


def test_the_table_equals_means_by_hand():
    random = np.random.default_rng(0)
    user = random.integers(0, 40, 300)
    values = random.random((300, 2))
    values[::7, 1] = math.nan
    features = pd.DataFrame({"user": user, "history_length": random.integers(1, 60, 300), "new_user": user < 9})
    table = group_table(features, scores_of(user, values), n_buckets=4)
    assert (table[0]["feature"], table[0]["rows"], table[0]["users"]) == ("all", 300, len(set(user)))
    seen = 0
    for entry in table[1:]:
        if entry["feature"] == "history_length":
            low, _, high = entry["group"].partition("-")
            inside = features["history_length"].between(int(low), int(high)).to_numpy()
        else:
            inside = (features["new_user"] == (entry["group"] == "new user")).to_numpy()
        seen += entry["rows"]
        assert entry["rows"] == inside.sum()
        assert entry["users"] == len(set(user[inside]))
        for ranking, factor in (("raw", 1), ("unseen", 0.5)):
            for column, metric in enumerate(["ndcg@10", "hit@10"]):
                cell = entry[ranking][metric]
                assert cell["mean"] == pytest.approx(factor * np.nanmean(values[inside, column]))
                assert cell["rows"] == np.isfinite(values[inside, column]).sum()
                assert cell["low"] < cell["mean"] < cell["high"]
    assert seen == 600  # each feature puts every row into one group


def test_groups_of_one_user_have_no_interval():
    features = pd.DataFrame({"user": [1, 1], "history_length": [3, 4]})
    everything = group_table(features, scores_of([1, 1], np.full((2, 2), 0.5)))[0]["raw"]["hit@10"]
    assert everything["mean"] == 0.5
    assert math.isnan(everything["low"])


def test_other_rows_are_refused():
    features = pd.DataFrame({"user": [1, 2], "history_length": [3, 4]})
    with pytest.raises(ValueError, match=r"features \(2 rows\) must describe the 2 rows of user_scores, in order"):
        group_table(features, scores_of([2, 1], np.zeros((2, 2))))


def test_intervals_treat_a_user_as_one_draw():
    """Twenty copies of each row tell no more than one: the interval must not shrink."""
    random = np.random.default_rng(1)
    value = random.random((200, 1))
    once, often = (value, np.ones((200, 1))), (20 * value, np.full((200, 1), 20.0))
    for interval in (normal_interval, bootstrap):
        np.testing.assert_allclose(interval(*once), interval(*often))
    low, high = normal_interval(*once)
    margin = 1.959964 * value.std(ddof=1) / math.sqrt(200)
    np.testing.assert_allclose([low[0], high[0]], [value.mean() - margin, value.mean() + margin])


def test_both_intervals_agree_for_many_users_and_cover_the_truth():
    random = np.random.default_rng(2)
    counts = random.integers(1, 6, (6000, 1)).astype(float)
    sums = random.binomial(counts.astype(int), 0.2).astype(float)
    normal, resampled = np.array(normal_interval(sums, counts)), np.array(bootstrap(sums, counts))
    np.testing.assert_allclose(normal, resampled, atol=5e-4)
    covered = 0
    for _ in range(300):
        few = random.integers(1, 4, (60, 1)).astype(float)
        low, high = bootstrap(random.binomial(few.astype(int), 0.3).astype(float), few, resamples=300)
        covered += bool(low[0] <= 0.3 <= high[0])
    assert 0.9 < covered / 300 < 0.98
    features = pd.DataFrame({"user": np.arange(6000), "new_user": np.arange(6000) < 4000})
    table = group_table(features, scores_of(np.arange(6000), np.repeat(sums / counts, 2, axis=1)))
    assert [entry["interval"] for entry in table] == ["normal", "bootstrap", "bootstrap"]
