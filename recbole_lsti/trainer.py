"""What every RecBole trainer gains here: portable checkpoints, exact resuming, one progress bar, exact DDP metrics."""

from __future__ import annotations

import copy
import csv
import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import recbole.trainer
import torch
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, get_trainer, init_seed
from tqdm import tqdm

from recbole_lsti import checkpoint
from recbole_lsti.config import plain_config
from recbole_lsti.evaluation.chunks import Scores, chunk_scores
from recbole_lsti.evaluation.collector import RankingCollector, target_places
from recbole_lsti.evaluation.ranking import Rankings, rank
from recbole_lsti.every_position import EveryPosition
from recbole_lsti.optimisation import AveragedWeights, LazyRows, rate_at


class PortableTrainer(Trainer):
    """A RecBole Trainer that writes portable checkpoints and knows which epoch was best.

    It trains and evaluates as RecBole's does. `saved_model_file` may be set before `fit`; with `saved=False` no
    checkpoint is written and the best weights are kept in memory, so that `evaluate` still tests the best epoch.

    Attributes:
        best_epoch (int): the epoch, from 0, whose weights `evaluate` loads; -1 before the first validation.
        curve (list[dict]): one row an epoch: epoch, train_loss, seconds since `fit` began and, where it was validated,
            valid_score.
        curve_file (Path | None): where the curve is written after each epoch, as CSV.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.eval_collector = RankingCollector(config)
        self.best_epoch = -1
        self.curve: list[dict[str, float]] = []
        self.curve_file: Path | None = None
        self._best_state: dict[str, Any] | None = None
        self._train_data: Any = None
        self._saved = True
        self._bar: tqdm | None = None
        self._began = 0.0
        self._every_position: EveryPosition | None = None

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Any = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train as RecBole's Trainer.fit does, with one progress bar for the whole training.

        Returns:
            tuple: the best validation score and the validation metrics of that epoch, None where no epoch was better
            than the checkpoint that was resumed.
        Raises:
            ValueError: if `valid_metric` has no value on the validation data, the loss is NaN, or a model of RecBole is
                to train from whole sequences and cannot.
        """
        self._train_data, self._saved = train_data, saved
        if saved and self.config["single_spec"]:
            self._best_state = None  # the checkpoint holds it
        self._every_position = self._make_every_position()
        self._began = time.monotonic() - (self.curve[-1]["seconds"] if self.curve else 0.0)  # of a resumed training

        def after_validation(epoch: int, score: float) -> None:
            self.curve[-1].update(valid_score=float(score), seconds=self._elapsed())
            if self.cur_step == 0:  # RecBole's count of validations since the best one
                self.best_epoch = epoch
                if not saved or not self.config["single_spec"]:  # the file is process 0's, maybe on another machine
                    self._best_state = copy.deepcopy(self.model.state_dict())
            self._tell(score)
            self._write_curve()  # a run folder with a curve holds a checkpoint: it stays, whatever the callback raises
            if callback_fn:
                callback_fn(epoch, score)

        total = (self.epochs - self.start_epoch) * len(train_data)
        pace = 0.2 if sys.stderr.isatty() else 10  # seconds between updates; a log file needs few
        with tqdm(total=total, unit="batch", disable=not show_progress, mininterval=pace, leave=False) as self._bar:
            try:
                result = super().fit(train_data, valid_data, verbose, saved, False, after_validation)
            except _OutOfTimeError:
                self.logger.info(f"train_seconds_limit reached after {self._elapsed()} s and {len(self.curve)} epochs")
                result = self.best_valid_score, self.best_valid_result
        validates = valid_data and self.eval_step > 0
        if not validates or not math.isfinite(self.best_valid_score):  # nothing was validated: the last epoch stands
            self.best_epoch = int(self.curve[-1]["epoch"]) if self.curve else self.start_epoch - 1
            self._best_state = None
            pretrained = getattr(self.model, "train_stage", "") == "pretrain"  # which saves at its own steps
            if saved and validates and self.curve and not pretrained:  # RecBole saves with a validation only
                self._save_checkpoint(self.best_epoch, verbose=False)
        if self._best_state is None and (not saved or not self.config["single_spec"]):
            self._best_state = self.model.state_dict()
        self._write_curve()
        return result

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def _out_of_time(self) -> bool:
        limit = self.config["train_seconds_limit"]
        if limit is None or not self.curve:  # one epoch at least: there must be something to test
            return False
        over = self._elapsed() >= limit
        if not self.config["single_spec"]:  # all processes must part with the loop at the same epoch
            decision = torch.tensor([over], dtype=torch.float32, device=self.device)
            torch.distributed.broadcast(decision, 0)
            over = bool(decision.item())
        return over

    def _make_every_position(self) -> EveryPosition | None:
        if self.config["train_mode"] != "sequence" or getattr(self.model, "trains_on_sequences", False):
            return None
        target_field = f"target_{self.model.ITEM_ID}{self.config['LIST_SUFFIX']}"
        every_position = EveryPosition(self.model, target_field, self.config["NEG_PREFIX"] + target_field)
        every_position.check()
        return every_position

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        self._write_curve()
        if self._out_of_time():
            raise _OutOfTimeError
        if hasattr(train_data, "set_epoch"):
            train_data.set_epoch(epoch_idx)
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch_idx + 1}/{self.epochs}")
        loss_func = loss_func or self._every_position
        losses = super()._train_epoch(_Counted(train_data, self._bar), epoch_idx, loss_func, show_progress=False)
        total = sum(losses) if isinstance(losses, tuple) else losses
        mean = float(total) / max(1, len(train_data))
        self.curve.append({"epoch": epoch_idx, "train_loss": mean, "seconds": self._elapsed()})
        return losses

    def _tell(self, score: float) -> None:
        if self._bar is not None:
            best = f"best {self.best_valid_score:.4f} in epoch {self.best_epoch + 1}"
            self._bar.set_postfix_str(
                f"loss {self.curve[-1]['train_loss']:.3f} {self.valid_metric} {score:.4f} ({best})"
            )

    def _write_curve(self) -> None:
        if self.curve_file is not None and self.curve:
            with open(self.curve_file, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["epoch", "train_loss", "seconds", "valid_score"])
                writer.writeheader()
                writer.writerows(self.curve)

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if not self.config["single_spec"] and torch.distributed.get_rank() != 0:
            return
        if epoch < 0 and self.start_epoch > 0:  # RecBole's fit, where a resumed training has no epoch left
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        generator = getattr(self._train_data, "generator", None)
        dataset = self._train_data._dataset
        checkpoint.write(
            path,
            {
                "config": plain_config(self.config),
                "epoch": epoch,
                "cur_step": self.cur_step,
                "best_valid_score": float(self.best_valid_score),
                "state_dict": dict(self.model.state_dict()),
                "other_parameter": checkpoint.other_state(self.model),
                "optimizer": self.optimizer.state_dict(),
                "rng": {**checkpoint.rng_state(), "loader": None if generator is None else generator.get_state()},
                "tokens": checkpoint.token_maps(dataset),
                **self._own_state(),
            },
        )
        if verbose:
            self.logger.info(f"Saved epoch {epoch}: {path}")

    def _own_state(self) -> dict[str, Any]:
        """What a kind of trainer keeps in a checkpoint beside what all keep."""
        return {}

    def _load_own_state(self, content: dict[str, Any]) -> None:
        """Take what `_own_state` has kept from the content of a checkpoint."""

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Write what a pre-training has reached (S3Rec) as a checkpoint like any other."""
        if self._saved:
            self._save_checkpoint(epoch, saved_model_file=saved_model_file)
            self.saved_model_file = saved_model_file

    def resume_checkpoint(self, resume_file: str | Path, train_data: Any = None) -> None:
        """Continue from a checkpoint: weights, optimiser, generators, epoch, and the curve that lies beside it.

        Args:
            resume_file: a checkpoint of the same model, or the folder of its run.
            train_data: the loader that `fit` will be called with; its generator is set too.
        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the checkpoint is of another model, network or data set, or the file is none.
        """
        resume_file = checkpoint.path_of(resume_file)
        content = checkpoint.read(resume_file)
        if content["config"]["model"] != self.config["model"]:
            raise ValueError(f"checkpoint of {content['config']['model']} must be of {self.config['model']}")
        if train_data is not None:
            checkpoint.check_tokens(train_data._dataset, content["tokens"])
        self.saved_model_file = str(resume_file)
        self.start_epoch = content["epoch"] + 1
        self.cur_step, self.best_valid_score = content["cur_step"], content["best_valid_score"]
        self.best_epoch, self._best_state = content["epoch"], content["state_dict"]
        self.curve = _read_curve(Path(resume_file).with_name("learning_curve.csv"), self.start_epoch)
        checkpoint.load_weights(self.model, content["state_dict"], resume_file)
        checkpoint.load_other_state(self.model, content["other_parameter"], self.device)
        self.optimizer.load_state_dict(content["optimizer"])
        checkpoint.set_rng_state(content["rng"])
        if not self.config["single_spec"] and (number := torch.distributed.get_rank()):  # those are process 0's
            init_seed(self.config["seed"] + number + self.start_epoch, self.config["reproducibility"])
        generator = getattr(train_data, "generator", None)
        if generator is not None and content["rng"]["loader"] is not None:
            generator.set_state(content["rng"]["loader"].cpu())
        self._load_own_state(content)

    # ---- evaluation --------------------------------------------------------------------------------------------

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(valid_data, show_progress)
        if math.isnan(score):  # no epoch could be the best one
            raise ValueError(
                f"valid_metric ({self.config['valid_metric']}) must have a value on the validation data: none of its "
                "targets is one that the metric counts, such as a repeated one; choose another, such as NDCG@10"
            )
        return score, result

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> Any:
        """Evaluate as RecBole does: its metrics, its ranking (seen items compete).

        Returns:
            OrderedDict: metric -> value, 0..1; None where there is nothing to evaluate.
        Raises:
            FileNotFoundError, ValueError: as of `load_best`.
        """
        if eval_data and load_best_model:
            self.load_best(model_file)
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    @torch.no_grad()
    def evaluate_rankings(self, eval_data: Any, load_best_model: bool = True) -> Rankings | None:
        """Evaluate both rankings in one pass: `raw`, RecBole's own, and `unseen`, the user's own items masked.

        Among sampled negatives (`uniN`, `popN`) there is `raw` alone, and a row is a user with all targets of the user.

        Returns:
            Rankings: one dict of metrics each and the values of each row; None without data, or where none is ranked.
        """
        mode = str(self.config["eval_args"]["mode"]["test"])
        if not eval_data or self.config["eval_type"] != EvaluatorType.RANKING:
            return None
        if mode != "full" and mode[:3] not in ("uni", "pop"):
            return None
        if load_best_model:
            self.load_best()
        self.model.eval()
        self.tot_item_num = eval_data._dataset.item_num
        if mode != "full":
            return rank(self.config, self.eval_collector, map(self._neg_sample_batch_eval, eval_data), None)
        self.item_tensor = eval_data._dataset.get_item_feature().to(self.device)
        batches = (self._full_sort_batch_eval(batch) for batch in eval_data)
        return rank(self.config, self.eval_collector, batches, eval_data._dataset.seen)

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        """As RecBole's; where a batch's scores are many and the model can tell them by ranges of items, as Scores."""
        interaction, history, row, item = batched_data
        many = len(interaction) * self.tot_item_num > chunk_scores(self.device)
        if not many or history is not None or not hasattr(self.model, "score_range"):
            return super()._full_sort_batch_eval(batched_data)
        encoded = self.model.encode(interaction.to(self.device))
        width = max(1, chunk_scores(self.device) // max(1, len(interaction)))
        scores = Scores(partial(self.model.score_range, encoded), len(interaction), self.tot_item_num, width)
        return interaction, scores, row, item

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        """As RecBole's, whose loader repeats a user's m histories for each sampled item: h1..hm, h1..hm, and so on.

        A model that can score by ranges reads each of them once.
        """
        interaction, row, target_row, target = batched_data
        model, n_items = self.model, self.tot_item_num
        if self.config["eval_type"] != EvaluatorType.RANKING or not hasattr(model, "score_range"):
            return super()._neg_sample_batch_eval(batched_data)
        where = target_places(target_row, len(interaction))  # the first time that each history stands there
        m = torch.bincount(target_row)
        first = m.cumsum(0) - m  # of each user's histories
        of = first[row] + (torch.arange(len(row)) - where[first][row]) % m[row]  # each row's history
        item, histories = interaction[self.config["ITEM_ID_FIELD"]], interaction[where].to(self.device)
        value = torch.empty(len(item), device=self.device)
        size = max(1, min(self.test_batch_size, chunk_scores(self.device) // n_items))
        for start in range(0, len(histories), size):
            here = (of >= start) & (of < start + size)
            found = model.score_range(model.encode(histories[start : start + size]), 0, n_items)
            value[here] = found[of[here] - start, item[here]].float()
        scores = torch.full((len(m), n_items), -torch.inf, device=self.device)
        scores[row, item] = value  # of an item that two targets of a user ask for, the last one, as in RecBole
        return interaction, scores, target_row, target

    def load_best(self, model_file: str | Path | None = None) -> None:
        """Load the best weights: of `model_file`, of memory after `fit(saved=False)`, else of the run's checkpoint.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no checkpoint, or of another network.
        """
        if model_file is None and self._best_state is not None:
            self.model.load_state_dict(self._best_state)
            return
        path = model_file or self.saved_model_file
        content = checkpoint.read(path)
        checkpoint.load_weights(self.model, content["state_dict"], path)
        checkpoint.load_other_state(self.model, content["other_parameter"], self.device)

    def _map_reduce(self, result: dict[str, float], num_sample: int) -> dict[str, float]:
        # every process has ranked every user, see data.loader; one flipped near-tie must not part their ways
        values = torch.tensor(list(result.values()), dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(values, 0)
        return dict(zip(result, values.tolist(), strict=True))


def _read_curve(path: Path, until: int) -> list[dict[str, float]]:
    """Return the rows of a learning curve below an epoch; none where there is no such file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"])} for row in rows if row["epoch"] < until]


class _OutOfTimeError(Exception):
    """Leaves RecBole's loop over the epochs at the end of one of them."""


class LSTITrainer(PortableTrainer):
    """Trains LSTI: RecBole's loop with a learning rate that rises over `warmup_share` of the steps and then falls.

    It falls linearly to `learning_rate_end`. The rate depends on the epoch and the place in it alone, so that a resumed
    run goes on with the same one. With `item_init: cooccurrence` the first epoch begins by counting where the items'
    vectors start, see data.cooccurrence; that is part of the training's time. Gradients are clipped as the optimiser
    gets them, unscaled; sparse ones are followed lazily, see optimisation.LazyRows. With `ema_decay` the model holds
    its averaged weights whenever no epoch is running. With `compile` the loss is compiled.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.optimizer.register_step_pre_hook(LazyRows(config["clip_grad_norm"]))
        self.clip_grad_norm = None  # RecBole would clip gradients that a GradScaler has scaled
        if self.enable_amp and self.device.type == "cuda":
            self.enable_scaler = True  # float16 there, in which small gradients are zero
        if not config["single_spec"]:
            self.distributed_model.broadcast_buffers = False  # they stay, the same in every process
        decay = config["ema_decay"]
        self.averaged = None if decay is None else AveragedWeights(model, decay)
        self._compiled = torch.compile(model.calculate_loss, dynamic=True) if config["compile"] else None

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        if epoch_idx == 0 and self.config["item_init"] == "cooccurrence":
            self._start_items(train_data._dataset)
        done = 0

        def after_step(*_: Any) -> None:
            nonlocal done
            done += 1  # of as many batches as this epoch has, which may be more or fewer than the last one had
            self._set_rate(epoch_idx, done, len(train_data))
            if self.averaged is not None:
                self.averaged.update(self.model)

        if hasattr(train_data, "set_epoch"):
            train_data.set_epoch(epoch_idx)  # which settles how many batches there are
        self._set_rate(epoch_idx, 0, len(train_data))
        self._exchange_weights()
        hook = self.optimizer.register_step_post_hook(after_step)
        try:
            return super()._train_epoch(train_data, epoch_idx, loss_func or self._compiled, show_progress)
        finally:
            hook.remove()
            self._exchange_weights()

    def _start_items(self, dataset: Any) -> None:
        began = time.monotonic()
        vectors = dataset.item_vectors(self.config["hidden_size"], self.config["seed"]).to(self.device)
        if not self.config["single_spec"]:  # machines may differ in the last digit, and weights must not
            torch.distributed.broadcast(vectors, 0)
        self.model.start_items(vectors)
        self.logger.info(f"items start from their co-occurrence, counted in {time.monotonic() - began:.2f} s")

    def _exchange_weights(self) -> None:
        if self.averaged is not None:
            self.averaged.exchange(self.model)

    def _set_rate(self, epoch: int, done: int, steps: int) -> None:
        end, warmup = self.config["learning_rate_end"], self.config["warmup_share"]
        share = rate_at(epoch, done, steps, self.epochs, end, warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * share

    def _own_state(self) -> dict[str, Any]:
        return {} if self.averaged is None else {"averaged": self.averaged.state()}

    def _load_own_state(self, content: dict[str, Any]) -> None:
        training = content.get("averaged")
        if self.averaged is not None and training is not None:
            self.averaged.put_back(training)
        elif training is not None:  # from here on without an average: the weights that the optimiser knows
            self.model.load_state_dict(training["weights"], strict=False)  # parameters alone, no buffers


class _Counted:
    """A loader that moves the progress bar; everything else is the loader's own."""

    def __init__(self, loader: Any, bar: tqdm | None) -> None:
        self._loader, self._bar = loader, bar

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            yield batch
            if self._bar is not None:
                self._bar.update()

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def trainer_class(config: Any) -> type[PortableTrainer]:
    """The trainer for a model: RecBole's own for it or for the model it is derived from, with what all gain here."""
    names = [cls.__name__ for cls in config.model_class.__mro__ if hasattr(recbole.trainer, f"{cls.__name__}Trainer")]
    base = get_trainer(config["MODEL_TYPE"], names[0] if names else config["model"])
    if issubclass(base, PortableTrainer):
        return base
    return type(base.__name__, (PortableTrainer, base), {})
