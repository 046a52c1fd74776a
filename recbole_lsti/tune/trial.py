"""A search, and a trial of it that is under way: what it tries, what it has scored, what the study is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from optuna.study import Study
from optuna.trial import Trial, TrialState

from recbole_lsti.config import LSTIConfig, external_settings, plain_settings
from recbole_lsti.tune import study as studies
from recbole_lsti.tune.attempt import Job, Outcome
from recbole_lsti.tune.output import Lines, best_trial, values_of, write_best, write_failure, write_trials
from recbole_lsti.tune.space import Space

OUT_OF_TIME, BELOW_MEDIAN = "ended by the budget of minutes", "below the median"


class Search(NamedTuple):
    """One model's search: its base settings, its space, its budget."""

    model: str
    dataset: str
    files: list[str]
    given: dict[str, Any]
    space: Space
    config: LSTIConfig
    n_trials: int
    minutes: float | None
    folder: Path

    @property
    def metric(self) -> str:
        """The metric of the scores, as results spell it."""
        return str(self.config["valid_metric"]).lower()

    def write(self, study: Study) -> None:
        """Write trials.csv and, where a trial has come to a score, best.yaml."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_trials(self.folder / "trials.csv", study, self.space)
        best = best_trial(study)
        if best is not None:
            settings = self.settings(values_of(best, self.space))
            write_best(self.folder / "best.yaml", settings, study.study_name, best, self.metric)

    def settings(self, values: dict[str, Any]) -> dict[str, Any]:
        """What a training run needs to repeat a trial: names, files' and given settings, and the values tried."""
        given = {key: value for key, value in self.given.items() if key != "show_progress"}
        return {
            **external_settings(self.files, {**given, **plain_settings(values)}),
            "model": self.model,
            "dataset": self.dataset,
        }


class UnderWay:
    """A trial under way.

    Attributes:
        values: the settings that it tries.
        seconds: how long it took until its last validation.
        worker: who trains it, where that is not this process.
    """

    def __init__(self, search: Search, study: Study, trial: Trial, lines: Lines) -> None:
        self._search, self._study, self._trial, self._lines = search, study, trial, lines
        self._scores: dict[int, float] = {}  # by epoch
        self._stopped_by: str | None = None
        self.seconds = 0.0
        self.worker: str | None = None
        self.values = {key: search.space[key].value(drawn) for key, drawn in trial.params.items()}

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return self._trial.number

    @property
    def job(self) -> Job:
        """What is to be trained."""
        search = self._search
        return Job(search.model, search.dataset, search.files, {**search.given, **self.values})

    def validated(self, epoch: int, score: float, seconds: float) -> bool:
        """Tell the study of a validation; return whether the trial must end there.

        Args:
            epoch (int): from 0; one that is known, from a worker that was lost, is passed over, and so is one
                behind the validation that the trial was to end at.
            score (float): of the validation items.
            seconds (float): since the trial began.
        """
        if self._stopped_by is None and epoch not in self._scores:
            self._scores[epoch], self.seconds = score, seconds
            self._trial.report(score, epoch)
            self._trial.set_user_attr("seconds", round(seconds, 2))
            self._lines.under_way(self.number, self.values, epoch, score)
            if studies.is_out_of_time(self._study, self._search.minutes):
                self._stopped_by = OUT_OF_TIME
            elif self._trial.should_prune():
                self._stopped_by = BELOW_MEDIAN
        return self._stopped_by is not None

    def end(self, outcome: Outcome | None = None) -> None:
        """Tell the study what came of the trial, write the results and a line; None: it was ended at a validation."""
        outcome = outcome or Outcome(None, self.seconds)
        state, best, reason = self._verdict(outcome)
        if state is TrialState.FAIL and outcome.traceback:
            write_failure(self._search.folder, self.number, outcome.traceback)
        self._trial.set_user_attr("seconds", round(outcome.seconds, 2))
        if self._scores:
            choose = max if self._search.config["valid_metric_bigger"] else min
            self._trial.set_user_attr("epochs", max(self._scores) + 1)
            self._trial.set_user_attr("best_epoch", choose(self._scores, key=self._scores.__getitem__) + 1)
        for name, value in (("reason", reason), ("process", self.worker)):
            if value:
                self._trial.set_user_attr(name, value)
        self._study.tell(self._trial, best, state=state)
        self._search.write(self._study)
        frozen = self._study.get_trials(deepcopy=False)[self.number]
        self._lines.done(self._study, frozen, self.values, len(studies.counted(self._study)))

    def _verdict(self, outcome: Outcome) -> tuple[TrialState, float | None, str | None]:
        """State, score and reason."""
        if self._stopped_by == OUT_OF_TIME:
            known = [score for score in self._scores.values() if math.isfinite(score)]
            best = (max if self._search.config["valid_metric_bigger"] else min)(known, default=None)
            return (TrialState.COMPLETE if known else TrialState.FAIL), best, OUT_OF_TIME
        if self._stopped_by:
            return TrialState.PRUNED, None, self._stopped_by
        if outcome.reason:
            return TrialState.FAIL, None, outcome.reason
        if not self._scores:
            return TrialState.FAIL, None, "no validation score: the split must have validation items"
        if outcome.best is None:
            return TrialState.FAIL, None, "no validation score: valid_metric must be defined for a row of them"
        return TrialState.COMPLETE, outcome.best, None

    def give_up(self, reason: str) -> None:
        """End the trial without a result: it does not count."""
        studies.give_up(self._study, self._trial, reason)


def begin(search: Search, study: Study, lines: Lines) -> UnderWay | None:
    """Ask the study for a trial; None where no budget is left."""
    if not studies.has_budget(study, search.n_trials, search.minutes):
        return None
    trial = study.ask({key: domain.distribution for key, domain in search.space.items()})
    trial.set_user_attr("process", studies.this_process())
    if studies.is_beyond(study, trial, search.n_trials):
        studies.give_up(study, trial, "no budget was left")
        return None
    return UnderWay(search, study, trial, lines)
