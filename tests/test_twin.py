"""Two branches of one kind: the control that tells two branches from two kinds of branch."""

from __future__ import annotations

import pytest
import torch
from recbole.data import data_preparation

from recbole_lsti.benchmark.plan import from_dict
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.model.branches import LongBranch, ShortBranch

KEYS = ("hidden_size", "inner_size", "n_layers", "twin")


def built(settings):
    config = LSTIConfig("LSTI", "ml-100k", config_dict={"use_gpu": False, **settings})
    loaders = data_preparation(config, create_dataset(config))
    torch.manual_seed(0)
    return config.model_class(config, loaders[0]._dataset), loaders


@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 32, "inner_size": 96, "n_layers": 1}])
def test_the_controls_have_as_many_parameters_as_the_model(sizes):
    names = ["LSTI-two-LSTMs", "LSTI-two-attentions"]
    plan = from_dict({"models": ["LSTI"], "controls": names, "model_settings": {"LSTI": sizes}})
    lsti, *twins = (
        built({key: cell.settings[key] for key in cell.settings if key in KEYS})[0] for cell in plan.cells()
    )
    whole, embedding = sum(p.numel() for p in lsti.parameters()), lsti.item_embedding.weight.numel()
    for name, twin in zip(names, twins, strict=True):
        count = sum(p.numel() for p in twin.parameters())
        assert abs(count - whole) < 0.01 * (whole - embedding), name


@pytest.mark.parametrize(("twin", "kind"), [("long", LongBranch), ("short", ShortBranch)])
def test_both_branches_are_of_the_kind_and_learn(twin, kind):
    model, loaders = built({"twin": twin, "time_bias": twin == "short"})
    assert type(model.long_branch) is type(model.short_branch) is kind
    batch = next(iter(loaders[0]))
    model.calculate_loss(batch).backward()
    for name, parameter in model.named_parameters():
        if "branch" in name:
            assert parameter.grad.abs().sum() > 0, name
    batch = next(iter(loaders[2]))[0]
    with torch.no_grad():
        parts, interests = model.eval().score_parts(batch)
        torch.testing.assert_close(parts.total, model.full_sort_predict(batch), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(interests.long, interests.short)


def test_a_twin_has_no_state():
    model, _ = built({"twin": "long"})
    with pytest.raises(ValueError, match=r"twin \(long\) must be null for one event at a time"):
        model.init_state()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"twin": "lstm"}, r"twin \(lstm\) must be long, short, or null"),
        ({"twin": "long", "fusion": "short"}, r"twin \(long\) must be null where fusion is short"),
        ({"twin": "short", "carry_state": True}, r"twin \(short\) must be null where carry_state is True"),
    ],
)
def test_what_contradicts_a_twin_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LSTIConfig("LSTI", "ml-100k", config_dict=settings)
