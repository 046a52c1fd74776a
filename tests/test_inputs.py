"""Inputs beside the item ids: no leak, every kind of field, given vectors, and attributes that stand in for ids."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, write_inter
from recbole.data import data_preparation

import recbole_lsti
from recbole_lsti.cli import main
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.model import lsti
from recbole_lsti.model.inputs import EventInputs, TokenSeqField, _gap_bucket
from recbole_lsti.model.lsti import LSTI
from recbole_lsti.recommendation import recommend_from
from recbole_lsti.runner import Loaded, build

HEADER = "user_id:token\titem_id:token\ttimestamp:float\tevent:token\ttags:token_seq\tprice:float\tvec:float_seq"
ITEM_HEADER = "item_id:token\tgenre:token\tthemes:token_seq\tyear:float\tshape:float_seq"
STEP_FIELDS = ["event", "tags", "price", "vec"]
ATTRIBUTES = ["genre", "themes", "year", "shape"]
ALL = {"time_gaps": True, "input_fields": [*STEP_FIELDS, *ATTRIBUTES], "id_dropout": 0.3, "n_layers": 2}


def event_rows(seed: int = 0, n_users: int = 12, n_items: int = 30) -> list[list]:
    random = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        times = 1_400_000_000 + np.cumsum(random.integers(1, 5000, 6 + user))
        for time in times:
            tags = " ".join(f"t{tag}" for tag in random.integers(6, size=random.integers(1, 4)))
            vec = " ".join(f"{x:.3f}" for x in random.normal(size=2))
            event = random.choice(["view", "cart", "buy"])
            rows.append([f"u{user}", f"i{random.integers(n_items)}", time, event, tags, random.integers(1, 90), vec])
    return sorted(rows, key=lambda row: row[2])


def item_rows(n_items: int = 34) -> list[list]:
    random = np.random.default_rng(7)
    return [
        [
            f"i{item}",
            f"g{item % 4}" if item else "",
            " ".join(f"h{theme}" for theme in random.integers(5, size=random.integers(1, 3))),
            1950 + item,
            " ".join(f"{x:.3f}" for x in random.normal(size=3)),
        ]
        for item in range(n_items)
    ]


def write_table(folder: Path, suffix: str, header: str, rows: list[list]) -> None:
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (folder / f"shop.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_shop(folder: Path, rows: list[list] | None = None) -> dict:
    """A data set with a field of each kind on both sides; returns the settings that find it."""
    shop = write_inter(folder, "shop", rows or event_rows(), HEADER)
    write_table(shop, "item", ITEM_HEADER, item_rows())
    settings = {**SMALL, "data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "topk": [5]}
    return {**settings, "valid_metric": "NDCG@5", "filter_inter_by_user_or_item": False}


@pytest.fixture
def shop(tmp_path: Path) -> dict:
    return write_shop(tmp_path)


def built(settings: dict) -> tuple[LSTI, list]:
    """A model whose every parameter says something, and the loaders of its data."""
    config = LSTIConfig("LSTI", "shop", config_dict=settings)
    loaders = data_preparation(config, create_dataset(config))
    torch.manual_seed(0)
    model = LSTI(config, loaders[0]._dataset)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.3 * torch.randn_like(parameter)
            if parameter.ndim == 2 and "embedding" in name and "projection" not in name:
                noise[0] = 0  # the padding
            parameter += noise
    return model.eval(), list(loaders)


# ---- nothing of the target is read -------------------------------------------------------------------------------

READS_TIME = {"time_gaps": True, "time_bias": True}
TIMES = [
    {"time_gaps": True},
    {**READS_TIME, "session_gap": 900.0, "short_seconds": 9000.0},
    {**READS_TIME, "cascade": True},
    {**READS_TIME, "train_branches": "apart"},
]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("train_mode", ["sequence", "prefix"])
@torch.no_grad()
def test_the_time_and_fields_of_the_test_event_reach_no_score(tmp_path, train_mode, times):
    moved, last = event_rows(), {}
    for place, row in enumerate(moved):
        last[row[0]] = place
    for place in last.values():  # the same item, much later, with other fields
        moved[place][2:] = [moved[place][2] + 10**7, "buy", "t0 t1", 500, "9.0 9.0"]
    scores, models = [], []
    for name, rows in (("as_is", event_rows()), ("moved", moved)):
        settings = write_shop(tmp_path / name, rows) | {**ALL, **times, "train_mode": train_mode}
        model, loaders = built(settings)
        by_user = {}
        for batch, *_ in loaders[2]:
            by_user.update(zip(batch["user_id"].tolist(), model.full_sort_predict(batch), strict=True))
        scores.append(by_user)
        models.append(model)
    assert all(map(torch.equal, models[0].state_dict().values(), models[1].state_dict().values()))
    assert len(scores[0]) == 12
    for user, score in scores[0].items():
        torch.testing.assert_close(scores[1][user], score)


def changed(batch, fields: list[str], at) -> object:
    """A copy of a batch in which fields say something else at some of their first two dimensions."""
    other = copy.deepcopy(batch)
    for field in fields:
        values = other[field]
        values[at] = values[at] + 10**5 if values.is_floating_point() else 1 + values[at] % 2
    return other


@pytest.mark.parametrize("times", TIMES)
@torch.no_grad()
def test_in_sequences_a_step_reads_its_own_event_and_earlier_ones(shop, times):
    model, loaders = built(shop | ALL | times)
    batch = next(iter(loaders[0]))
    fields = [f"{field}_list" for field in ("gap_timestamp", *STEP_FIELDS)]
    before = model.forward(batch["item_id_list"], batch).user
    length = int(batch["item_length"].min())
    assert length >= 2
    for step in range(1, length):
        for field in fields:
            later = (slice(None), slice(step, None))
            after = model.forward(batch["item_id_list"], changed(batch, [field], later)).user
            torch.testing.assert_close(after[:, :step], before[:, :step])
            assert (after[:, step] - before[:, step]).abs().max() > 1e-4, field  # as the input that it is
    assert float(model.calculate_loss(batch)) > 0


@pytest.mark.parametrize("times", TIMES)
@torch.no_grad()
def test_in_prefixes_the_fields_of_the_target_change_no_loss(shop, times):
    model, loaders = built(shop | ALL | times | {"train_mode": "prefix"})
    batch = next(iter(loaders[0]))
    own = ["timestamp", "gap_timestamp", *STEP_FIELDS]
    loss = model.calculate_loss(batch)
    assert model.calculate_loss(changed(batch, own, slice(None))) == loss
    listed = [f"{field}_list" for field in own if field != "timestamp"]
    for field in listed:
        assert model.calculate_loss(changed(batch, [field], (slice(None), 0))) != loss, field


def test_no_gradient_comes_back_from_later_events(shop):
    model, loaders = built(shop | ALL)
    batch = next(iter(loaders[0]))
    price, vec = batch["price_list"].requires_grad_(), batch["vec_list"].requires_grad_()
    model.forward(batch["item_id_list"], batch).user[:, 1].square().sum().backward()
    for gradient in (price.grad[..., None], vec.grad):
        assert (gradient[:, :2].abs().sum((0, 2)) > 0).all()
        assert (gradient[:, 2:] == 0).all()


# ---- the contracts of the model hold -----------------------------------------------------------------------------


@torch.no_grad()
def test_one_pass_scores_every_step_as_its_prefix_alone(shop):
    model, loaders = built(shop | ALL | TIMES[1])
    batch = next(iter(loaders[0]))
    lists = {field: batch[field] for field in batch.columns if field.endswith("_list")}
    whole = model.forward(batch["item_id_list"], batch)
    for step in range(int(batch["item_length"].min())):
        prefix = {field: values[:, : step + 1].contiguous() for field, values in lists.items()}
        prefix["item_length"] = torch.full((len(batch),), step + 1)
        parts, interests = model.score_parts(prefix)
        torch.testing.assert_close(interests.user, whole.user[:, step], atol=1e-5, rtol=1e-5)
        total = model.full_sort_predict(prefix)
        torch.testing.assert_close(parts.total, total, atol=1e-5, rtol=1e-5)
        items = torch.arange(len(batch)) + 1
        picked = model.predict(prefix | {"item_id": items})
        torch.testing.assert_close(picked, total[torch.arange(len(batch)), items], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
@pytest.mark.parametrize("train_mode", ["sequence", "prefix"])
def test_every_parameter_receives_a_gradient(shop, train_mode, loss_type):
    model, loaders = built(shop | ALL | {"train_mode": train_mode, "loss_type": loss_type})
    model.train()
    for batch in loaders[0]:
        model.calculate_loss(batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert model.item_embedding.weight.grad[0].abs().sum() == 0
    assert model.items().vectors[0].abs().sum() == 0


def test_nothing_is_added_where_nothing_is_named(shop):
    model, _ = built(shop)
    assert model.attributes is None
    assert model.event_inputs is None
    assert model.items().vectors is model.item_embedding.weight


# ---- what the embeddings are -------------------------------------------------------------------------------------


def test_gaps_fall_into_buckets_of_powers_of_two():
    gaps = torch.tensor([-1, 0, 1, 2, 3, 7, 2**20 - 1, 1e15])
    assert _gap_bucket(gaps).tolist() == [0, 1, 2, 2, 3, 4, 21, 32]


@pytest.mark.parametrize("mode", [{}, {"train_mode": "prefix"}, {"MAX_ITEM_LIST_LENGTH": 3, "min_context": 1}])
def test_a_gap_is_that_to_the_event_before_wherever_a_window_begins(shop, mode):
    _, loaders = built(shop | {"time_gaps": True, "time_bias": True} | mode)
    times: dict[str, list[int]] = {}
    for row in event_rows():
        times.setdefault(row[0], []).append(row[2])
    seen = 0
    for batch in (*loaders[0], *(each[0] for each in loaders[2])):
        for row, length in enumerate(batch["item_length"].tolist()):
            mine = times[loaders[0]._dataset.id2token("user_id", int(batch["user_id"][row]))]
            for time, gap in zip(
                batch["exact_timestamp_list"][row, :length], batch["gap_timestamp_list"][row], strict=False
            ):
                at = mine.index(int(time))
                assert gap == (mine[at] - mine[at - 1] if at else -1)
                seen += 1
    assert seen > 100


@torch.no_grad()
def test_an_item_is_the_sum_of_its_id_and_its_attributes(shop):
    model, loaders = built(shop | ALL)
    dataset, found = loaders[0]._dataset, model.items().vectors
    genre, themes, year, shape = model.attributes.embeddings
    random = item_rows()
    years = torch.tensor([row[3] for row in random], dtype=torch.float32)
    shapes = torch.tensor([[float(x) for x in row[4].split()] for row in random])
    centred = shapes - shapes.mean(0)
    for place, (item, its_genre, its_themes, its_year, _) in enumerate(random):
        number = dataset.token2id("item_id", item)
        tokens = [dataset.token2id("themes", theme) for theme in its_themes.split()]
        expected = themes.embedding.weight[tokens].mean(0)
        if its_genre:
            expected = expected + genre.embedding.weight[dataset.token2id("genre", its_genre)]
        expected = expected + year.weight[:, 0] * (its_year - years.mean()) / years.std(correction=0)
        expected = expected + shape.weight @ (centred[place] / centred.norm(dim=1).mean())
        if model.attributes.trained[number]:
            expected = expected + model.item_embedding.weight[number]
        torch.testing.assert_close(found[number], expected, atol=1e-4, rtol=1e-4)
    assert 20 < int(model.attributes.trained.sum()) < 34


def test_lists_are_pooled_over_their_tokens_alone():
    field = TokenSeqField(6, 4)
    values = torch.tensor([[[1, 2, 0], [3, 0, 0]], [[0, 0, 0], [4, 4, 5]]])
    weight = field.embedding.weight
    expected = torch.stack([(weight[1] + weight[2]) / 2, weight[3], 0 * weight[0], (2 * weight[4] + weight[5]) / 3])
    torch.testing.assert_close(field(values), expected.view(2, 2, 4))


@torch.no_grad()
def test_unknown_fields_say_nothing(shop):
    model, _ = built(shop | {"input_fields": STEP_FIELDS})
    x = torch.randn(1, 5, 8)
    torch.testing.assert_close(model.event_inputs(x, model.event_inputs.unknown(5)), x)


@torch.no_grad()
def test_vectors_kept_in_evaluation_follow_the_weights(shop):
    model, _ = built(shop | ALL)
    first = model.items()
    assert model.items().vectors is first.vectors
    model.attributes.embeddings[0].embedding.weight[1:] += 1
    second = model.items().vectors
    assert (second - first.vectors).abs().max() > 0.9
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})
    assert not torch.allclose(model.items().vectors, second)


# ---- settings and files ------------------------------------------------------------------------------------------


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


def preloaded(shop: dict) -> dict:
    """The same data with a vector for each of 32 items, two of them in no other file; settings that read it."""
    random = np.random.default_rng(3)
    rows = [[f"i{item}", " ".join(f"{x:.4f}" for x in random.normal(size=6))] for item in range(4, 36)]
    write_table(Path(shop["data_path"]) / "shop", "text", "iid:token\tembedding:float_seq", rows)
    return shop | {
        "additional_feat_suffix": "text",
        "preload_weight": {"iid": "embedding"},
        "alias_of_item_id": ["iid"],
    }


@torch.no_grad()
def test_vectors_are_preloaded_as_recbole_preloads_them(shop):
    model, loaders = built(preloaded(shop))
    dataset = loaders[0]._dataset
    assert {"i34", "i35"} <= set(dataset.field2id_token["item_id"])
    given = torch.as_tensor(dataset.get_preload_weight("iid")).float()
    assert given.shape == (dataset.item_num, 6)
    (projection,) = model.attributes.embeddings
    number = dataset.token2id("item_id", "i34")
    there = given.any(1)
    centred = given - given[there].mean(0)
    expected = projection.weight @ centred[number] / centred[there].norm(dim=1).mean()
    torch.testing.assert_close(model.items().vectors[number], expected, atol=1e-5, rtol=1e-5)
    without = dataset.token2id("item_id", "i1")
    torch.testing.assert_close(model.items().vectors[without], model.item_embedding.weight[without])
    assert not [name for name, _ in model.named_parameters() if "column" in name]  # the vectors stay as given


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


def test_a_run_its_checkpoint_and_recommendations(shop):
    result = recbole_lsti.run("LSTI", "shop", config_dict=preloaded(shop) | ALL | {"time_gaps": False})
    assert 0 <= result["test_result"]["ndcg@5"] <= 1
    loaded = recbole_lsti.load(result["checkpoint_file"])
    table = recbole_lsti.recommend(result["checkpoint_file"], users=["u3"], histories=[["i1", "i2"]], k=4)
    dataset = loaded.dataset
    events = dataset.inter_feat.events
    mine = events.columns["user_id"] == dataset.token2id("user_id", "u3")
    batch = {f"{field}_list": events.columns[field][mine][None] for field in ("item_id", *STEP_FIELDS)}
    batch["item_length"] = mine.sum()[None]
    with torch.no_grad():
        score = loaded.model.full_sort_predict(batch)[0]
    found = table[(table["user"] == "u3") & (table["list"] == "fused")]["score"].to_numpy()
    np.testing.assert_allclose(found, score[1:].topk(4).values.numpy(), rtol=1e-5)
    assert len(table[table["user"] == 0]) == 12
    rows = item_rows()
    for row in rows:
        row[1] = "other"
    write_table(Path(shop["data_path"]) / "shop", "item", ITEM_HEADER, rows)
    with pytest.raises(ValueError, match=r"dataset shop \(1 different genre\) must be the one the checkpoint was"):
        recbole_lsti.load(result["checkpoint_file"])


def test_histories_without_times_are_refused_where_gaps_are_read(shop):
    result = recbole_lsti.run("LSTI", "shop", config_dict=shop | {"time_gaps": True, "epochs": 1})
    assert len(recbole_lsti.recommend(result["checkpoint_file"], users=["u3"], k=2)) == 6
    with pytest.raises(ValueError, match=r"history 0 must come with times: .* time_gaps"):
        recbole_lsti.recommend(result["checkpoint_file"], histories=[["i1"]])


@pytest.mark.parametrize(
    "reads",
    [{"time_gaps": True}, {"time_bias": True}, {"session_gap": 100.0}, {"time_gaps": True, "MAX_ITEM_LIST_LENGTH": 4}],
    ids=str,
)
def test_a_history_with_its_times_gets_what_a_user_with_both_gets(shop, reads, capsys):
    checkpoint = recbole_lsti.run("LSTI", "shop", config_dict=shop | reads | {"epochs": 1})["checkpoint_file"]
    loaded = recbole_lsti.load(checkpoint)
    events = loaded.dataset.inter_feat.events
    mine = (events.columns["user_id"] == loaded.dataset.token2id("user_id", "u3")).numpy()
    items = loaded.dataset.id2token("item_id", events.columns["item_id"].numpy()[mine]).tolist()
    times = events.time[mine].tolist()
    by_user = recbole_lsti.recommend(checkpoint, users=["u3"], k=3).drop(columns="user")
    given = recbole_lsti.recommend(checkpoint, histories=[items], k=3, times=[times]).drop(columns="user")
    pd.testing.assert_frame_equal(given, by_user)
    strange = recbole_lsti.recommend(checkpoint, histories=[["?", *items]], k=3, times=[[times[0], *times]])
    pd.testing.assert_frame_equal(strange.drop(columns="user"), by_user)
    words = ["recommend", checkpoint, "--k", "3", "--history", " ".join(items), "--times", " ".join(map(str, times))]
    assert main(words) == 0
    assert f"{by_user['score'].iloc[0]:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], r"times \(0 lists\) must be as many as histories \(1\)"),
        ([[1.0]], r"times of history 0 \(1\) must be as many as its items \(2\)"),
        ([[2.0, 1.0]], r"times of history 0 \(\[2.0, 1.0\]\) must be a list of Unix seconds, the oldest first"),
        ([[1.0, float("nan")]], "times of history 0 .* must be a list of Unix seconds"),
        (["1 2"], r"times of history 0 \(1 2\) must be a list of Unix seconds"),
        ([5.0], r"times of history 0 \(5.0\) must be a list of Unix seconds"),
    ],
)
def test_times_that_are_none_are_refused(shop, times, message):
    config = LSTIConfig("LSTI", "shop", config_dict=shop | {"time_gaps": True})
    dataset, loaders, model = build(config)
    with pytest.raises(ValueError, match=message):
        recommend_from(Loaded(config, model.eval(), dataset, *loaders), histories=[["i1", "i2"]], times=times)


# ---- items that training has never seen --------------------------------------------------------------------------

N_GENRES, A_GENRE, N_COLD = 8, 12, 3  # of the 12 items of a genre, 3 are met in the last event of users alone


def cold_start(folder: Path, attributes: bool) -> dict:
    """An item of the next genre follows, any of its items; every test item is one that occurs nowhere else."""
    random, rows = np.random.default_rng(0), []
    for user in range(160):
        genre = random.integers(N_GENRES)
        for step in range(12):
            genre = (genre + 1) % N_GENRES
            warm = random.integers(A_GENRE - N_COLD)
            item = A_GENRE - 1 - random.integers(N_COLD) if step == 11 else warm
            rows.append((f"u{user}", f"i{genre}.{item}", step))
    shop = write_inter(folder, "shop", sorted(rows, key=lambda row: row[2]))
    items = [[f"i{genre}.{item}", f"g{genre}"] for genre in range(N_GENRES) for item in range(A_GENRE)]
    write_table(shop, "item", "item_id:token\tgenre:token", items)
    return {
        **{"data_path": str(folder), "use_gpu": False, "show_progress": False, "topk": A_GENRE, "epochs": 20},
        **{"valid_metric": f"Hit@{A_GENRE}", "hidden_size": 32, "inner_size": 64, "n_layers": 1, "short_window": 4},
        **{"learning_rate": 0.01, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "train_batch_tokens": 512},
        "input_fields": ["genre"] if attributes else None,
    }


def hit_rate(settings: dict) -> float:
    return recbole_lsti.run("LSTI", "shop", config_dict=settings, saved=False)["test_result"][f"hit@{A_GENRE}"]


def test_items_never_trained_on_are_found_by_their_attributes(tmp_path):
    chance = A_GENRE / (N_GENRES * A_GENRE)
    with_attributes = cold_start(tmp_path, attributes=True)
    assert hit_rate(with_attributes | {"id_dropout": 0.3}) > 4 * chance
    assert hit_rate(with_attributes) < chance
    assert hit_rate(cold_start(tmp_path, attributes=False)) < chance


def test_ids_are_left_out_for_all_of_a_batch_and_only_in_training(shop):
    model, _ = built(shop | {"input_fields": ["genre"], "id_dropout": 0.5})
    model.train()
    trained, bias = model.attributes.trained, model.attributes.unknown_bias
    drawn = torch.stack([model.items().bias != model.popularity for _ in range(200)])
    assert not drawn[:, ~trained].any()
    assert 0.4 < drawn[:, trained].float().mean() < 0.6
    torch.testing.assert_close(model.eval().items().bias, torch.where(trained, model.popularity, bias))
    model.attributes.id_dropout = 1.0  # attributes alone
    model.train().eval()
    assert (model.items().bias == bias).all()


def test_an_event_input_is_made_only_where_one_is_named(shop):
    config = LSTIConfig("LSTI", "shop", config_dict=shop | {"input_fields": ["genre"]})
    dataset = create_dataset(config)
    assert EventInputs.of(config, dataset, 8) is None


@pytest.mark.parametrize("times", [*TIMES, {"time_gaps": True, "short_window": 1}])
@torch.no_grad()
def test_a_state_reads_the_fields_of_one_event_at_a_time(shop, times):
    model, loaders = built(shop | ALL | {"time_bias": True} | times)
    batch = next(iter(loaders[0]))
    whole, state = model.forward(batch["item_id_list"], batch).user, model.init_state(len(batch))
    for step in range(int(batch["item_length"].min())):
        fields = {field: batch[f"{field}_list"][:, step] for field in STEP_FIELDS}
        state = model.step(state, batch["item_id_list"][:, step], batch["exact_timestamp_list"][:, step], fields)
        torch.testing.assert_close(state.user, whole[:, step], atol=1e-5, rtol=1e-5)
    unknown = model.step(state.clone(), batch["item_id_list"][:, 0], state.time[:, -1] + 60)
    assert (unknown.user - model.step(state, batch["item_id_list"][:, 0], state.time[:, -1] + 60, fields).user).any()
    with pytest.raises(ValueError, match=r"fields \(genre\) must be of input_fields and of the .inter file"):
        model.step(state, batch["item_id_list"][:, 0], state.time[:, -1], {"genre": batch["item_id_list"][:, 0]})
    with pytest.raises(ValueError, match=r"time \(None\) must be given: .* time_gaps is set"):
        model.step(state, batch["item_id_list"][:, 0])


@torch.no_grad()
def test_whole_histories_in_pieces_are_read_with_their_fields(shop, monkeypatch):
    monkeypatch.setattr(lsti, "WINDOWS", 10**9)  # in one piece, every step is read
    model, loaders = built(shop | ALL | {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 6, "short_window": 3})
    longest = max((batch for batch, *_ in loaders[2]), key=lambda batch: int(batch["item_length"].max()))
    assert int(longest["item_length"].max()) > 6
    in_pieces = model.full_sort_predict(longest)
    model.piece = 100
    torch.testing.assert_close(model.full_sort_predict(longest), in_pieces, atol=1e-5, rtol=1e-5)
    loss = model.train().calculate_loss(next(iter(loaders[0])))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("whole", [{}, {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 12, "short_window": 4}])
@torch.no_grad()
def test_ranges_of_items_are_scored_with_their_attributes(shop, whole):
    model, loaders = built(shop | ALL | whole)
    batch = next(iter(loaders[2]))[0]
    scores = model.full_sort_predict(batch)
    torch.testing.assert_close(model.score_range(model.encode(batch), 3, 17), scores[:, 3:17], atol=1e-5, rtol=1e-5)
