"""Batches for training from every position of a sequence, and for ranking histories of like length."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from logging import getLogger
from typing import Any

import numpy as np
import psutil
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader, TrainDataLoader
from recbole.data.interaction import Interaction
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from recbole_lsti.data.carry import FEWEST_BATCHES, Chain, earlier_items, shifts
from recbole_lsti.data.dataset import LSTIDataset
from recbole_lsti.data.events import HistoryRows
from recbole_lsti.data.grouping import place_in_group, positions
from recbole_lsti.data.sampler import FixedNegatives


class Batch(Interaction):
    """An Interaction that torch can put into pinned memory, from which a GPU copies while the CPU goes on."""

    def pin_memory(self) -> Batch:
        """Return a copy in pinned memory; torch's loaders call this where they are told to pin."""
        return Batch({field: value.pin_memory() for field, value in self.interaction.items()})

    def to(self, device: Any, selected_field: Any = None) -> Interaction:
        """Copy to a device as RecBole does, without waiting where the memory is pinned."""
        if selected_field is not None:
            return super().to(device, selected_field)
        return Batch({k: value.to(device, non_blocking=value.is_pinned()) for k, value in self.interaction.items()})


class TrainSequences(TorchDataset):
    """The training part of a data set as windows of whole sequences, with a target behind every step.

    A history longer than MAX_ITEM_LIST_LENGTH is cut into windows that overlap by `min_context` steps; the overlap
    carries no targets, so every target is trained once and sees at least `min_context` steps, or all there are.
    With `carries`, the overlap is what the short-term part needs, `short_window`, and a batch says where the state
    lies that each window begins with (`state_from`), where its own goes (`state_to`), and which items came before
    (see `earlier_items`), so that a model sees whole histories.

    Attributes of the wrapped LSTIDataset (`num`, `item_counter`, ...) are found here too: RecBole reads them.
    """

    def __init__(self, dataset: LSTIDataset, min_context: int, carries: bool = False) -> None:
        self.wrapped = dataset
        rows = dataset.inter_feat
        self.events = rows.events
        self.target_field = f"target_{dataset.iid_field}{self.events.list_suffix}"
        self.is_target = rows.target_events()
        targets = positions(self.is_target)
        edges = self.events.edges(targets)
        has_targets = edges[1:] > edges[:-1]
        first, last = self.events.begins[has_targets], targets[edges[1:][has_targets] - 1].astype(np.int64)
        length = dataset.max_item_list_len
        overlap = dataset.config["short_window"] if carries else min(min_context, length // 2)
        self.begin, self.end, self.counted_from = cut_windows(first, last, length, overlap)
        chain = Chain.of_windows(self.events.first[self.begin])
        self.chain = chain if carries and chain.of.max(initial=1) > 1 else None

    def __len__(self) -> int:
        return len(self.begin)

    def __getattr__(self, name: str) -> Any:
        if "wrapped" not in self.__dict__:  # while a copy is being made, in a worker process too
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    @property
    def lengths(self) -> np.ndarray:
        """(windows,) int64, steps of each window."""
        return self.end - self.begin

    def __getitem__(self, windows: np.ndarray) -> Interaction:
        """Return a batch: RecBole's list fields, (B, L), and the target behind each step, 0 where there is none."""
        begin, end = self.begin[windows], self.end[windows]
        width = int((end - begin).max())
        events = self.events
        batch = {
            events.uid_field: events.columns[events.uid_field][torch.from_numpy(begin)],
            events.length_field: torch.from_numpy(end - begin),
        }
        for field in events.columns:
            if field != events.uid_field:
                batch[field + events.list_suffix] = events.window(field, begin, end, width)
        behind = begin[:, None] + 1 + np.arange(width)
        counted = (behind <= end[:, None]) & (behind >= self.counted_from[windows][:, None])
        behind = np.where(counted, behind, 0)
        counted &= self.is_target[behind]
        target = events.columns[self.wrapped.iid_field][torch.from_numpy(behind)]
        batch[self.target_field] = target.masked_fill_(torch.from_numpy(~counted), 0)
        if self.chain is not None:
            batch["state_from"] = torch.from_numpy(self.chain.source[windows])
            batch["state_to"] = torch.from_numpy(self.chain.target[windows])
            batch.update(earlier_items(events.columns[self.wrapped.iid_field].numpy(), events.first[begin], begin))
        return self.wrapped.join(Batch(batch))


def cut_windows(first: np.ndarray, last: np.ndarray, length: int, overlap: int) -> tuple[np.ndarray, ...]:
    """Cut each user's inputs [first, last) into windows of at most `length` steps.

    Returns:
        tuple: begin and end of the inputs of each window, and the first event that counts as a target in it.
    """
    stride = length - overlap
    n_windows = 1 + np.maximum(0, -(-(last - first - length) // stride))
    user = np.repeat(np.arange(len(first)), n_windows)
    nth = place_in_group(n_windows)
    begin = first[user] + nth * stride
    end = np.minimum(begin + length, last[user])
    return begin, end, begin + 1 + np.where(nth > 0, overlap, 0)


class TokenBatches(Sampler):
    """Batches of windows of like length, each of at most `batch_tokens` steps, padding included.

    Args:
        lengths (ndarray): steps of each window.
        batch_tokens (int): rows times longest row of a batch; a single longer window is a batch of its own.
        shuffle (bool): draw other batches, in another order, for each epoch.
        seed (int): the draw depends on it and on the epoch alone.
        rank, world_size (int): the share of the batches this process takes; every process takes as many.
        chain (Chain | None): where given, a user's windows come in order, and in different batches.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_tokens: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        chain: Chain | None = None,
    ) -> None:
        self.lengths, self.batch_tokens, self.shuffle, self.seed = lengths, batch_tokens, shuffle, seed
        self.rank, self.world_size, self.chain = rank, world_size, chain
        self.epoch = 0
        self._drawn: tuple[int, list[np.ndarray]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are drawn."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._batches())

    def __len__(self) -> int:
        return len(self._batches())

    @property
    def padding_share(self) -> float:
        """Share of the epoch's computed steps that are padding, 0..1."""
        computed = sum(len(batch) * int(self.lengths[batch].max()) for batch in self._batches())
        return 1 - sum(int(self.lengths[batch].sum()) for batch in self._batches()) / max(1, computed)

    def _batches(self) -> list[np.ndarray]:
        if self._drawn is None or self._drawn[0] != self.epoch:
            self._drawn = (self.epoch, self._draw())
        return self._drawn[1]

    def _draw(self) -> list[np.ndarray]:
        random = np.random.default_rng((self.seed, self.epoch))
        batches: list[np.ndarray] = []
        if self.chain is None:
            batches = self._pack(self.lengths, random)
        else:
            fitting = max(1, int(self.lengths.sum()) // (FEWEST_BATCHES * self.batch_tokens))
            for windows in self.chain.rounds(fitting, shifts(self.chain, random) if self.shuffle else 0.0):
                batches += [windows[batch] for batch in self._pack(self.lengths[windows], random)]
        share = -(-len(batches) // self.world_size)  # the last ones are given out twice where they do not divide
        return [batches[(self.rank + i * self.world_size) % len(batches)] for i in range(share)]

    def _pack(self, lengths: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        # equal lengths fall in another order each epoch, and lengths within an eighth of each other mix
        jitter = random.uniform(1.0, 1.125, len(lengths)) if self.shuffle else 1.0
        order = np.argsort(-lengths * jitter, kind="stable")
        batches, start = [], 0
        while start < len(order):
            size = max(1, self.batch_tokens // int(lengths[order[start]]))
            longest = int(lengths[order[start : start + size]].max())
            size = max(1, min(size, self.batch_tokens // longest))
            batches.append(order[start : start + size])
            start += size
        return [batches[i] for i in random.permutation(len(batches))] if self.shuffle else batches


class SequenceTrainDataLoader(DataLoader):
    """RecBole's training loader for `train_mode: sequence`: whole sequences, batched by `train_batch_tokens`.

    Args:
        config: the resolved config.
        dataset (LSTIDataset): the training part, as `build()` splits it.
        sampler: RecBole's training sampler, or None where the loss needs no negatives.
        shuffle (bool): draw the batches anew for each epoch.
    Raises:
        ValueError: nothing to train on, rows that are split already (`benchmark_filename`), or `carry_state` on several
            processes, which would not find each other's states.
    """

    def __init__(self, config: Any, dataset: LSTIDataset, sampler: Any, shuffle: bool = False) -> None:
        if config["carry_state"] and not config["single_spec"]:
            raise ValueError("carry_state (True) must be False where several processes train")
        if config["benchmark_filename"]:
            raise ValueError("train_mode (sequence) must be prefix where benchmark_filename gives rows that are split")
        _check_rows(dataset)
        sequences = TrainSequences(dataset, config["min_context"], bool(config["carry_state"]))
        self.config, self._dataset, self._sampler, self.shuffle = config, dataset, sampler, shuffle
        self.negative_field = config["NEG_PREFIX"] + sequences.target_field
        self.sequences = sequences
        single = config["single_spec"]
        self.batches = TokenBatches(
            sequences.lengths,
            config["train_batch_tokens"] if single else max(1, config["train_batch_tokens"] // config["world_size"]),
            shuffle,
            config["seed"],
            0 if single else torch.distributed.get_rank(),
            1 if single else torch.distributed.get_world_size(),
            sequences.chain,
        )
        getLogger().info(
            f"training sequences: {len(sequences)} windows of {sequences.lengths.sum()} steps in {len(self.batches)} "
            f"batches, {100 * self.batches.padding_share:.1f} % padding"
        )
        super().__init__(
            sequences,
            sampler=self.batches,
            batch_size=None,
            num_workers=config["worker"],
            pin_memory=config["device"].type == "cuda",
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Interaction]:  # type: ignore[override]
        for batch in super().__iter__():
            yield batch if self._sampler is None else self._with_negatives(batch)

    def _with_negatives(self, batch: Interaction) -> Interaction:
        target = batch[self.sequences.target_field]
        row, step = target.nonzero(as_tuple=True)
        user = batch[self._dataset.uid_field][row]
        K = self.config["train_neg_sample_args"]["sample_num"]
        drawn = self._sampler.sample_by_user_ids(user.numpy(), target[row, step].numpy(), K)  # (K * T,)
        negative = target.new_zeros(*target.shape, K)
        negative[row, step] = drawn.view(K, -1).T
        batch[self.negative_field] = negative.squeeze(2) if K == 1 else negative  # (B, L), or (B, L, K)
        return batch


class PrefixTrainDataLoader(TrainDataLoader):
    """RecBole's training loader, whose worker processes gather rows and draw nothing.

    Masks and negatives are drawn in the training process, batch after batch, so that they are the same for any number
    of workers, and those of RecBole's loader without workers.

    Raises:
        ValueError: nothing to train on.
    """

    def __init__(self, config: Any, dataset: LSTIDataset, sampler: Any, shuffle: bool = False) -> None:
        _check_rows(dataset)
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        copied = self.neg_sample_args["distribution"] != "none"  # with negatives behind them
        self.pin_memory = config["device"].type == "cuda" and not copied

    def collate_fn(self, index: list[int]) -> Interaction:
        """Gather the rows of a batch."""
        return Batch(self._dataset[np.array(index)].interaction)

    def __iter__(self) -> Iterator[Interaction]:
        for rows in super().__iter__():
            yield self._neg_sampling(self.transform(self._dataset, rows))


class BoundedEvalDataLoader(FullSortEvalDataLoader):
    """RecBole's full-ranking loader with as many rows a batch as their scores of all items fit the free memory.

    `eval_batch_size` is the most; the metrics do not depend on it. RecBole's 4,096 rows of a million items are 16 GB.
    A model that scores a range of items at a time (`score_range`) takes all of them at once.
    """

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["eval_batch_size"]
        if not hasattr(self.config.model_class, "score_range"):
            self.step = min(self.step, rows_that_fit(self._dataset.item_num, self.config["device"]))
        self.set_batch_size(self.step)


def rows_that_fit(n_items: int, device: torch.device) -> int:
    """Return how many rows of float32 scores, with the three copies that ranking makes, fill a quarter of free memory.

    Args:
        n_items (int): columns.
        device: where the scores lie.
    Returns:
        int: rows, 1 or more.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return max(1, free // 4 // (4 * 4 * n_items))


class LengthSortedEvalDataLoader(BoundedEvalDataLoader):
    """Evaluates histories sorted by length, those of a user together: little padding, and much that is read once."""

    def __init__(self, config: Any, dataset: LSTIDataset, sampler: Any, shuffle: bool = False) -> None:
        if isinstance(dataset.inter_feat, HistoryRows):
            dataset.inter_feat.sort_by_history()
        else:  # RecBole's own data set
            dataset.sort(by=dataset.item_list_length_field)
        super().__init__(config, dataset, sampler, shuffle=shuffle)


class FixedNegSampleEvalDataLoader(NegSampleEvalDataLoader):
    """RecBole's loader with sampled negatives, which are the same for every model, seed and epoch."""

    def __init__(self, config: Any, dataset: LSTIDataset, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, None if sampler is None else FixedNegatives(sampler), shuffle=shuffle)


class EqualWidthNegSampleEvalDataLoader(FixedNegSampleEvalDataLoader):
    """RecBole's loader with sampled negatives, which joins rows one by one and needs them to be of one width."""

    def __init__(self, config: Any, dataset: LSTIDataset, sampler: Any, shuffle: bool = False) -> None:
        dataset.inter_feat.width = dataset.inter_feat.longest
        super().__init__(config, dataset, sampler, shuffle=shuffle)


def _check_rows(dataset: LSTIDataset) -> None:
    if not len(dataset):
        raise ValueError(f"dataset ({dataset.dataset_name}) must have a user with two events or more to train on")


def loader_class(config: Any, phase: str) -> Callable[..., Any] | None:
    """What builds the loader for a phase ("train", "valid", "test") where ours differs from RecBole's, else None.

    RecBole's deprecated phase "evaluation" is left to RecBole, which warns.
    """
    if phase == "evaluation":
        return None
    if phase == "train":
        return SequenceTrainDataLoader if config["train_mode"] == "sequence" else PrefixTrainDataLoader
    full = config["eval_args"]["mode"][phase] == "full"
    if config["pad_to_longest"] and config["benchmark_filename"] is None:
        loader = LengthSortedEvalDataLoader if full else EqualWidthNegSampleEvalDataLoader
    else:
        loader = BoundedEvalDataLoader if full else FixedNegSampleEvalDataLoader
    changes: dict[str, Any] = {}
    if not config["single_spec"]:
        # RecBole deals the rows out, repeats some to make the shares even, and averages the shares' rounded metrics;
        # ranking every user in every process gives the metrics of one process, exactly
        changes["single_spec"] = True
    if not full and config["worker"]:
        changes["worker"] = 0  # negatives are drawn where rows are gathered: in one process they are always the same
    return partial(_changed, loader, changes) if changes else loader


def _changed(
    loader: type, changes: dict[str, Any], config: Any, dataset: Any, sampler: Any, shuffle: bool = False
) -> Any:
    """Build a loader under settings that differ a little from the run's."""
    own = copy.copy(config)
    own.final_config_dict = {**config.final_config_dict, **changes}
    return loader(own, dataset, sampler, shuffle=shuffle)
