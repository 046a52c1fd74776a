"""How LSTI's weights move: sparse rows, the rate, averages, branch dropout, compiled and mixed-precision steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import make_trainer, run_epochs
from test_model import make_model, random_sequences, sequence_batch, times_of

import recbole_lsti
from recbole_lsti import checkpoint
from recbole_lsti.model.lsti import LSTI
from recbole_lsti.optimisation import AveragedWeights, LazyRows, rate_share

CLIP = {"max_norm": 0.5}


@pytest.fixture
def settings(tiny, tmp_path, monkeypatch, small) -> dict:
    """Settings of a small run on `tiny`, in an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return {**small, "data_path": str(tiny), "eval_step": 0}


def table_and_optimizer(sparse: bool, clip: dict | None = None, **adam) -> tuple:
    """A clip is the hook's, as in LSTI's training."""
    torch.manual_seed(0)
    table = torch.nn.Embedding(9, 3, sparse=sparse)
    bias = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([*table.parameters(), bias], lr=0.1, weight_decay=0.0, **adam)
    optimizer.register_step_pre_hook(LazyRows(clip))
    return table, bias, optimizer


def take_step(table, bias, optimizer, rows: list[int], clip: dict | None = None, scaler=None) -> None:
    """A clip is RecBole's, before the step."""
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    optimizer.zero_grad()
    weight = torch.arange(3.0 * len(rows)).view(-1, 3)
    scaler.scale(((table(torch.tensor(rows)) * bias).sin() * weight).sum()).backward()
    if clip:
        torch.nn.utils.clip_grad_norm_([table.weight, bias], **clip)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("clip", [None, CLIP])
def test_rows_that_all_have_gradients_move_as_adamw_moves_them(clip):
    lazy, dense = table_and_optimizer(sparse=True, clip=clip), table_and_optimizer(sparse=False)
    for _ in range(4):
        rows = [*range(9), 4, 4, 7]  # some twice, whose gradients add up
        take_step(*lazy, rows)
        take_step(*dense, rows, clip)
    torch.testing.assert_close(lazy[0].weight, dense[0].weight)
    torch.testing.assert_close(lazy[1], dense[1])


@pytest.mark.parametrize("sparse", [False, True])
def test_scaled_gradients_are_clipped_as_they_are_without_a_scale(sparse):
    plain = table_and_optimizer(sparse=False)
    scaled = table_and_optimizer(sparse=sparse, clip=CLIP)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(4):
        take_step(*plain, list(range(9)), CLIP)
        take_step(*scaled, list(range(9)), scaler=scaler)
    torch.testing.assert_close(scaled[0].weight, plain[0].weight)
    torch.testing.assert_close(scaled[1], plain[1])


@pytest.mark.parametrize("loss_type", ["CE", "SSM"])
def test_a_training_clips_its_gradients(settings, loss_type):
    moved = []
    for norm in (1e-9, 5.0):
        changes = {"loss_type": loss_type, "clip_grad_norm": {"max_norm": norm}, "learner": "sgd", "epochs": 1}
        trainer, model = make_trainer({**settings, **changes, "item_init": "random"})
        before = [parameter.detach().clone() for parameter in model.parameters()]
        trainer.fit(trainer._train_data, None, saved=False)
        moved.append(max(float((new - old).abs().max()) for new, old in zip(model.parameters(), before, strict=True)))
    assert moved[0] < 1e-9 < moved[1]


def test_rows_without_gradients_keep_their_values_and_moments():
    lazy = table_and_optimizer(sparse=True, eps=1e-12)
    torch.manual_seed(0)
    table = torch.nn.Embedding(9, 3, sparse=True)
    reference = table, torch.ones(3), torch.optim.SparseAdam(table.parameters(), lr=0.1, eps=1e-12)
    lazy[1].requires_grad_(False)
    take_step(*lazy, list(range(9)))
    take_step(*reference, list(range(9)))
    state = lazy[2].state[lazy[0].weight]
    before = [x.clone() for x in (lazy[0].weight, state["exp_avg"], state["exp_avg_sq"])]
    for _ in range(3):
        take_step(*lazy, [1, 5])
        take_step(*reference, [1, 5])
    idle = [0, 2, 3, 4, 6, 7, 8]
    for old, new in zip(before, (lazy[0].weight, state["exp_avg"], state["exp_avg_sq"]), strict=True):
        assert torch.equal(old[idle], new[idle])
        assert (old[[1, 5]] != new[[1, 5]]).all()
    torch.testing.assert_close(lazy[0].weight, table.weight)


@pytest.mark.parametrize("earlier", [False, True])  # events before the window, with carry_state
@pytest.mark.parametrize("loss_type", ["SSM", "BPR", "gBCE"])
def test_a_first_step_is_the_same_with_sparse_and_dense_gradients(loss_type, earlier):
    # Adam's first step moves nothing that has no gradient
    after = []
    for sparse in (True, False):
        model = make_model(loss_type=loss_type, sparse_gradients=sparse, n_negatives=15)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
        item_seq = torch.nn.functional.pad(random_sequences(3, 6, n_items=20), (0, 2))
        batch = sequence_batch(item_seq, times_of(item_seq), loss_type)
        if earlier:
            batch["earlier_item"] = torch.tensor([[2, 30], [31, 0], [0, 0]])
            batch["earlier_distance"] = torch.tensor([[1, 3], [2, 0], [0, 0]])
            batch["earlier_counts"] = torch.tensor([[1, 2], [1, 0], [0, 0]])
        torch.manual_seed(5)
        model.calculate_loss(batch).backward()
        kinds = {name for name, p in model.named_parameters() if p.grad.is_sparse}
        assert kinds == ({"item_embedding.weight", "popularity"} if sparse else set())
        if sparse:
            optimizer.register_step_pre_hook(LazyRows(CLIP))
        else:
            torch.nn.utils.clip_grad_norm_(model.parameters(), **CLIP)
        optimizer.step()
        after.append(model.state_dict())
    for name, value in after[0].items():
        torch.testing.assert_close(value, after[1][name], atol=1e-4, rtol=1e-4, msg=name)


def test_sparse_gradients_come_with_ssm_where_they_can():
    assert make_model(loss_type="SSM").sparse_gradients
    assert not make_model(loss_type="SSM", sparse_gradients=False).sparse_gradients
    assert not make_model(loss_type="SSM", weight_decay=0.1).sparse_gradients
    assert not make_model(loss_type="SSM", learner="sgd").sparse_gradients
    assert not make_model(loss_type="SSM", compile=True).sparse_gradients
    assert not make_model().sparse_gradients
    assert make_model(loss_type="BPR", sparse_gradients=True).sparse_gradients


@pytest.mark.parametrize(
    "more",
    [
        {"loss_type": "SSM", "warmup_share": 0.3, "n_negatives": 8, "train_branches": "apart"},
        {"ema_decay": 0.8, "branch_dropout": 0.3},
    ],
)
def test_continuing_equals_training_through(settings, more):
    settings = {**settings, **more, "epochs": 4}
    straight, model = make_trainer(settings)
    straight.fit(straight._train_data, None, saved=False)
    first, first_model = make_trainer(settings)
    run_epochs(first, first_model, until=2, path=Path("half.pth"))
    second, resumed = make_trainer(settings)
    torch.manual_seed(99)
    second.resume_checkpoint("half.pth", second._train_data)
    second.fit(second._train_data, None, saved=False)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_the_averaged_weights_are_kept_and_tested(settings):
    trainer, model = make_trainer({**settings, "ema_decay": 0.8})
    trained: list[dict] = []
    trainer.optimizer.register_step_post_hook(lambda *_: trained.append({k: v.clone() for k, v in state(model)}))
    trainer.fit(trainer._train_data, None, saved=True)
    average = trained[0]
    for weights in trained[1:]:
        average = {name: 0.8 * average[name] + 0.2 * weights[name] for name in average}
    for name, value in state(model):
        torch.testing.assert_close(value, average[name], msg=name)
    content = checkpoint.read(trainer.saved_model_file)
    torch.testing.assert_close(content["state_dict"]["popularity"], average["popularity"])
    torch.testing.assert_close(content["averaged"]["weights"]["popularity"], trained[-1]["popularity"])
    without, raw = make_trainer(settings)  # goes on from the weights in training
    without.resume_checkpoint(trainer.saved_model_file)
    torch.testing.assert_close(raw.popularity, trained[-1]["popularity"])


def state(model: LSTI) -> list[tuple[str, torch.Tensor]]:
    return list(model.named_parameters())


def test_a_run_with_all_options_tests_the_checkpoint_that_it_wrote(settings):
    more = {"loss_type": "SSM", "ema_decay": 0.9, "warmup_share": 0.2, "enable_amp": True, "eval_step": 1}
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**settings, **more})
    loaded = recbole_lsti.load(result["checkpoint_file"])
    trainer = recbole_lsti.trainer.trainer_class(loaded.config)(loaded.config, loaded.model)
    trainer.eval_collector.data_collect(loaded.train_data)
    found = trainer.evaluate(loaded.test_data, load_best_model=False)
    assert {key: float(value) for key, value in found.items()} == result["test_result"]


def test_no_average_is_no_change():
    model = make_model()
    averaged = AveragedWeights(model, 0.9)
    with torch.no_grad():
        model.popularity += 1  # weights loaded after the trainer was made
    before = model.popularity.clone()
    averaged.exchange(model)
    assert torch.equal(model.popularity, before)


def test_the_rate_rises_and_falls():
    assert [rate_share(p, 0.1) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.55, 0.1])
    assert [rate_share(p, 0.0, 0.2) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_the_rate_of_each_step(settings):
    trainer, _ = make_trainer({**settings, "warmup_share": 0.5, "learning_rate": 1e-3, "learning_rate_end": 0.0})
    rates = []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.fit(trainer._train_data, None, saved=False)
    n = len(rates) // 2
    assert n >= 1
    assert rates[:n] == pytest.approx([1e-3 * (k + 1) / n for k in range(n)])
    assert rates[n:] == pytest.approx([1e-3 * (n - k) / n for k in range(n)])


def test_branch_dropout_leaves_one_branch_out_for_its_share_of_the_rows():
    torch.manual_seed(0)
    model = make_model(branch_dropout=0.4, hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    item_seq = random_sequences(1, 4).expand(4000, 4)
    exact = model.forward(item_seq, {})
    found = model.train().forward(item_seq, {})
    gone = [(part == 0).flatten(1).all(1) for part in (found.long, found.short)]
    assert not (gone[0] & gone[1]).any()
    for dropped, part, whole in zip(gone, found, exact, strict=False):
        assert dropped.float().mean().item() == pytest.approx(0.2, abs=0.03)
        torch.testing.assert_close(part[~dropped], whole[~dropped] / 0.8, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.eval().forward(item_seq, {}).long, exact.long)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_training_compiles_its_loss_where_asked(settings, monkeypatch, compiled):
    calls = []

    def compile_loss(calculate_loss, **options):
        return lambda batch: calls.append(options) or calculate_loss(batch)

    monkeypatch.setattr(torch, "compile", compile_loss)
    recbole_lsti.run(model="LSTI", dataset="tiny", config_dict={**settings, "epochs": 1, "compile": compiled})
    assert bool(calls) == compiled
    assert all(options == {"dynamic": True} for options in calls)


# code is generated for one of them; that the graphs of the other can be made and followed, aot_eager shows sooner
@pytest.mark.parametrize(("loss_type", "backend"), [("CE", "inductor"), ("SSM", "aot_eager")])
def test_a_compiled_loss_is_the_loss(loss_type, backend):
    try:
        torch.compile(torch.sin, backend=backend)(torch.ones(2))
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"no compiler that works: {str(error).splitlines()[0]}")
    model = make_model(loss_type=loss_type, n_layers=1, n_negatives=15, compile=True)
    compiled = torch.compile(model.calculate_loss, dynamic=True, backend=backend)
    for length in (9, 14):  # no batch is as wide as the one before
        item_seq = random_sequences(4, length)
        batch = sequence_batch(item_seq, times_of(item_seq), loss_type)
        losses, gradients = [], []
        for calculate_loss in (model.calculate_loss, compiled):
            model.zero_grad()
            torch.manual_seed(3)
            loss = calculate_loss(batch)
            loss.backward()
            losses.append(loss.detach())
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        torch.testing.assert_close(losses[1], losses[0], atol=1e-4, rtol=1e-4)
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4, msg=name)
