"""Choose between designs of LSTI: each user's last ten events before the test item held out, all ranked in one pass.

    python benchmarks/held_out.py --dataset ml-100k --seeds 2
    python benchmarks/held_out.py --dataset steam --data_path=dataset --epochs=8 --hidden_dropout_prob=0.5 --fusion=long
    python benchmarks/held_out.py --dataset ml-100k --keep base.npz --fusion=long --against gate.npz

Ten targets a user tell designs apart that one target cannot: on ml-100k the standard error falls from 0.008 to 0.002.
The test item of the published protocol is in none of it. Users with few events hold out a third of them, at least one.
Both rankings, NDCG@10, after each epoch of LSTI's own schedule: nothing is chosen by what is held out. The unseen one
masks the items that are read, the last MAX_ITEM_LIST_LENGTH of a history: compare it at one length. --keep writes
each target's value, --against compares with a file written so: mean difference and its standard error over users. Other
settings of LSTI may follow as --key=value.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from machine import describe_machine

from recbole_lsti.cli import parse_settings
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.data.cooccurrence import item_vectors
from recbole_lsti.data.loader import TokenBatches, cut_windows
from recbole_lsti.memory import keep_freed_memory
from recbole_lsti.model.lsti import LSTI
from recbole_lsti.optimisation import LazyRows, rate_at

CUTOFF = 10
CHUNK = 1024  # targets ranked at a time
# what the loop of this program does; any other setting of LSTI may be tried
DOES = {"train_mode": "sequence", "carry_state": False, "ema_decay": None, "learner": "adamw", "compile": False}
DOES |= {"input_fields": None, "preload_weight": None}


class HeldOut:
    """The events of a data set, split: of a user [begin, split) is trained, [split, end) held out, one more left alone.

    Attributes:
        items, time, gap: (E,) columns of the events, in the order of users and time.
        windows: (windows, 3) begin and end of the inputs of what is trained, and the first event that is a target.
    """

    def __init__(self, config: Any, most: int) -> None:
        self.dataset = create_dataset(config)
        self.dataset._change_feat_format()
        self.list_suffix, self.time_field = config["LIST_SUFFIX"], config["TIME_FIELD"]
        events = self.dataset.inter_feat.events
        self.items = events.columns["item_id"].numpy().astype(np.int64)
        self.time, self.gap = np.asarray(events.time, dtype=np.float64), events.gaps()
        begins = events.begins
        ends = np.r_[begins[1:], len(self.items)]
        kept = ends - begins >= 4  # two to train, one held out, the test item
        self.begin, self.end = begins[kept], ends[kept] - 1
        self.split = self.end - np.clip((self.end - self.begin) // 3, 1, most)
        self.longest = config["MAX_ITEM_LIST_LENGTH"]
        self.device = config["device"]
        overlap = min(config["min_context"], self.longest // 2)
        self.windows = np.stack(cut_windows(self.begin, self.split - 1, self.longest, overlap), axis=1)

    def trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Items of the events that are trained, and where among them those of each one's user begin."""
        length = self.split - self.begin
        first = np.repeat(np.cumsum(length) - length, length)
        return self.items[np.arange(len(first)) - first + np.repeat(self.begin, length)], first

    def stand_in(self) -> Any:
        """What LSTI asks of a data set, of the training part alone."""
        items = torch.from_numpy(self.trained()[0])
        return SimpleNamespace(inter_feat={"item_id": items}, num=self.dataset.num)

    def batch(self, windows: np.ndarray) -> dict[str, torch.Tensor]:
        """What LSTI reads of (B, 3) windows: right-padded inputs and the target behind each step."""
        begin, end, first = (column[:, None] for column in windows.T)
        at = begin + np.arange(int((end - begin).max()))
        inside = at < end
        at = np.where(inside, at, begin)
        columns = {"item_id": self.items, f"exact_{self.time_field}": self.time, f"gap_{self.time_field}": self.gap}
        batch = {name + self.list_suffix: np.where(inside, column[at], 0) for name, column in columns.items()}
        target = np.where(inside & (at + 1 >= first), self.items[at + 1], 0)
        batch |= {"item_length": (end - begin)[:, 0], f"target_item_id{self.list_suffix}": target}
        return {name: torch.from_numpy(column).to(self.device) for name, column in batch.items()}

    def evaluate(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """NDCG of each held-out target, raw and unseen, in the order of users and time."""
        begin = np.maximum(self.begin, self.end - 1 - self.longest)
        windows = np.stack([begin, self.end - 1, self.split], axis=1)
        items = model.items()
        found, events = [], []
        for rows in TokenBatches(windows[:, 1] - windows[:, 0], 8192, shuffle=False, seed=0):
            batch = self.batch(windows[rows])
            item_seq, targets = batch["item_id_list"], batch["target_item_id_list"]
            row, step = targets.nonzero(as_tuple=True)
            interests = model(item_seq, batch, items)
            for cut in torch.arange(len(row)).split(CHUNK):
                r, t = row[cut], step[cut]
                scores = model.score_all(interests.at(r, t).user, item_seq, r, t, items)
                found.append(_ndcg(scores, targets[r, t], item_seq[r], t))
                events.append(torch.from_numpy(windows[rows, 0]).to(self.device)[r] + t)
        order = torch.cat(events).argsort()
        raw, unseen = (torch.cat(part)[order].cpu().numpy() for part in zip(*found, strict=True))
        return raw, unseen


def _ndcg(
    scores: torch.Tensor, target: torch.Tensor, history: torch.Tensor, step: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(T,) NDCG of targets by (T, N) scores, with and without the items of (T, L) histories up to a step."""
    scores[:, 0] = -torch.inf
    values = []
    seen = torch.zeros_like(scores, dtype=torch.bool)
    seen.scatter_(1, history.masked_fill(torch.arange(history.shape[1], device=step.device) > step[:, None], 0), True)
    for hidden in (torch.zeros_like(seen), seen):
        left = scores.masked_fill(hidden, -torch.inf)
        own = left.gather(1, target[:, None])
        rank = (~(left < own)).sum(1) - 1  # of equal scores the last place: nothing is won by scores that say nothing
        hit = (rank < CUTOFF) & ~hidden.gather(1, target[:, None]).squeeze(1)  # a repeat is a miss among the unseen
        values.append(torch.where(hit, 1 / torch.log2(rank + 2.0), 0.0))
    return values[0], values[1]


def train(data: HeldOut, config: Any) -> Iterator[tuple[int, float, tuple[np.ndarray, np.ndarray]]]:
    """Train LSTI and yield after each epoch: its number from 1, the seconds of training so far, the values held out."""
    torch.manual_seed(config["seed"])
    model = LSTI(config, data.stand_in())
    seconds = -time.monotonic()
    if config["item_init"] == "cooccurrence":
        items, first = data.trained()
        vectors = item_vectors(items, first, model.n_items, config["hidden_size"], config["seed"])
        model.start_items(torch.from_numpy(vectors))
    model.to(data.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"] or 0.0
    )
    clip = config["clip_grad_norm"]
    if model.sparse_gradients:
        optimizer.register_step_pre_hook(LazyRows(clip))
    length = data.windows[:, 1] - data.windows[:, 0]
    batches = TokenBatches(length, config["train_batch_tokens"], shuffle=True, seed=config["seed"])
    for epoch in range(config["epochs"]):
        batches.set_epoch(epoch)
        for number, rows in enumerate(batches):
            end, warmup = config["learning_rate_end"], config["warmup_share"]
            share = rate_at(epoch, number, len(batches), config["epochs"], end, warmup)
            for group in optimizer.param_groups:
                group["lr"] = share * config["learning_rate"]
            optimizer.zero_grad(set_to_none=True)
            model.calculate_loss(data.batch(data.windows[rows])).backward()
            if clip and not model.sparse_gradients:
                torch.nn.utils.clip_grad_norm_(model.parameters(), **clip)
            optimizer.step()
        seconds += time.monotonic()
        model.eval()
        with torch.no_grad():
            yield epoch + 1, seconds, data.evaluate(model)
        model.train()
        seconds -= time.monotonic()


def checked(config: Any, most: int) -> Any:
    """Return the config.

    Raises:
        ValueError: it asks for what this program does not do.
    """
    for key, value in DOES.items():
        if config[key] != value:
            raise ValueError(f"{key} ({config[key]}) must be {value} here")
    if config["loss_type"] not in ("CE", "SSM"):
        raise ValueError(f"loss_type ({config['loss_type']}) must be CE or SSM here")
    if config["MAX_ITEM_LIST_LENGTH"] <= most:
        raise ValueError(f"MAX_ITEM_LIST_LENGTH ({config['MAX_ITEM_LIST_LENGTH']}) must be above --most ({most})")
    return config


def main() -> int:
    """Train with each seed and print both rankings epoch by epoch, and the mean over the seeds at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 2020 on (default: 1)")
    parser.add_argument("--most", type=int, default=10, help="events held out of a user at most (default: 10)")
    parser.add_argument("--keep", type=Path, help="write the values after the last epoch, as .npz")
    parser.add_argument("--against", type=Path, help="compare with a file written by --keep, same data set and --most")
    known, rest = parser.parse_known_args()
    keep_freed_memory()
    try:
        report(known, parse_settings(rest))
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"held_out: {error}", file=sys.stderr)
        return 2
    return 0


def report(known: argparse.Namespace, given: dict[str, Any]) -> None:
    """Train with each seed, and print and write what has come of it."""
    if "seed" in given:
        raise ValueError(f"seed ({given['seed']}) must be left to --seeds, which says how many, from 2020 on")
    base = None
    if known.against is not None:
        base = np.load(known.against)
        if (str(base["dataset"]), int(base["most"])) != (known.dataset, known.most):
            raise ValueError(f"against ({known.against}) must be of {known.dataset} with --most {known.most}")
    values = []
    for seed in range(2020, 2020 + known.seeds):
        settings = {"use_gpu": False, "show_progress": False, **given, "seed": seed}
        config = checked(LSTIConfig("LSTI", known.dataset, config_dict=settings), known.most)
        data = HeldOut(config, known.most)
        for epoch, seconds, (raw, unseen) in train(data, config):
            print(
                f"seed {seed}, epoch {epoch:>2}: raw {raw.mean():.4f}  unseen {unseen.mean():.4f}  {seconds:.0f} s",
                flush=True,
            )
        values.append((raw, unseen))
    mean = np.mean(values, axis=0)  # (2, targets): each target's mean over the seeds
    user = np.repeat(np.arange(len(data.begin)), data.end - data.split)
    said = " ".join(f"{key}={value}" for key, value in given.items()) or "default settings"
    print(f"\n{known.dataset}, {said}; {describe_machine()}")
    print(f"{len(user)} targets of {len(data.begin)} users, {known.seeds} seeds")
    for name, found in zip(("raw", "unseen"), mean, strict=True):
        line = f"{name:<7} {found.mean():.4f} ± {_error(found, user):.4f}"
        if base is not None:
            difference = found - base[name]
            line += f"   against {known.against.name}: {difference.mean():+.4f} ± {_error(difference, user):.4f}"
        print(line)
    if known.keep:
        np.savez(known.keep, raw=mean[0], unseen=mean[1], dataset=known.dataset, most=known.most)


def _error(values: np.ndarray, user: np.ndarray) -> float:
    """Standard error of a mean over targets, those of one user taken together."""
    sums = np.bincount(user, weights=values - values.mean())
    return float(np.sqrt(np.square(sums).sum()) / len(values))


if __name__ == "__main__":
    sys.exit(main())
