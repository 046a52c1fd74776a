"""What events and items become: gaps in buckets, sums over fields, given vectors."""

from __future__ import annotations

import pytest
import torch

from inputs.conftest import ALL, STEP_FIELDS, built, event_rows, item_rows, preloaded
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.model.inputs import EventInputs, TokenSeqField, _gap_bucket


def test_nothing_is_added_where_nothing_is_named(shop):
    model, _ = built(shop)
    assert model.attributes is None
    assert model.event_inputs is None
    assert model.items().vectors is model.item_embedding.weight


def test_an_event_input_is_made_only_where_one_is_named(shop):
    config = LSTIConfig("LSTI", "shop", config_dict=shop | {"input_fields": ["genre"]})
    dataset = create_dataset(config)
    assert EventInputs.of(config, dataset, 8) is None


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
