"""Tables of a search: its trials, the best on val first, and which settings mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffgap.errors import require
from diffgap.evaluation.metrics import METRICS
from diffgap.ledger.states import TrialState
from diffgap.report.tables.compare import UNFINISHED
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.spec import Trial, flatten
from diffgap.spec.sweep import Dimension
from diffgap.sweep.objective import objective
from diffgap.tracking.reader import LoggedSweep, TrialRun

FEW = 8
"""Finished trials below which nothing is said of importance."""


def search_table(sweep: LoggedSweep) -> Table:
    """The trials of a search, finished ones first, the best of them on top."""
    metric = sweep.spec["search"]["metric"]
    title = metric_name(metric)
    fields = searched(sweep)
    trials = [trial for trial in sweep.trials if not trial.final]
    # Values of unfinished trials are points of a curve, which no finished one's compares with.
    trials.sort(key=lambda trial: (not trial.is_complete, -(value_of(trial, metric) or 0.0)))
    best = trials[0] if trials and trials[0].is_complete else None
    return Table(
        f"search-{sweep.name}",
        f"Search {sweep.name}: {title} on val, mean of both directions",
        (title, *fields, "state"),
        tuple(_row(trial, metric, fields, trial is best) for trial in trials),
        (*_notes(best, fields), *sweep.notes),
    )


def searched(sweep: LoggedSweep) -> tuple[str, ...]:
    """The fields in which the trials of a search differ."""
    seeds = ("seed",) if sweep.spec["seeds"] != 1 else ()
    return (*sweep.spec["axes"], *sweep.spec["search"]["space"], *seeds)


def value_of(trial: TrialRun, metric: str) -> float | None:
    """The metric on val, mean of both directions: of the trial's own score where it is finished,
    else of the last point of its curve; None where it has none."""
    return objective(trial.metrics if trial.is_complete else trial.logged, metric)


def metric_name(metric: str) -> str:
    """A metric as people write it: ``R@5``, which MLflow refuses."""
    return METRICS[metric].title


def importance_table(sweep: LoggedSweep) -> Table:
    """The share of the differences on val that each searched field explains.

    PED-ANOVA (Watanabe, Bansal & Hutter, IJCAI 2023, as Optuna has it), over the finished trials:
    how differently the better trials' values of a field are spread. It says nothing beyond the
    ranges that were searched.
    """
    metric, space = sweep.spec["search"]["metric"], sweep.spec["search"]["space"]
    trials = [trial for trial in sweep.trials if trial.is_complete and not trial.final]
    title = f"Hyper-parameter importance on {sweep.spec['task']} (sweep {sweep.name})"
    key, headings = f"importance-{sweep.name}", ("importance %", "best trial's value")
    if len(trials) < FEW:
        note = f"{len(trials)} trials are finished; at least {FEW} are needed to say what mattered."
        return Table(key, title, headings, (), (note,))
    best = max(trials, key=lambda trial: value_of(trial, metric) or -math.inf)
    best_values = values_of(best)
    runs = tuple(trial.signature for trial in trials)
    rows = []
    for field, share in _importances(trials, metric, space).items():
        values = (Value(f"{100 * share:.0f}", share), Value(_short(best_values[field])))
        rows.append(Row(field, values, runs))
    note = f"PED-ANOVA over the {len(trials)} finished trials; it says nothing beyond their ranges."
    return Table(key, title, headings, tuple(rows), (note,))


def _importances(
    trials: Sequence[TrialRun], metric: str, space: Mapping[str, Any]
) -> dict[str, float]:
    optuna = require("optuna", "search", "the importance of hyper-parameters")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else a line a study, between the tables
    study = optuna.create_study(direction="maximize")
    distributions = {}
    for name, dimension in space.items():
        distributions[name] = Dimension(**dimension).distribution()
    for trial in trials:
        values = values_of(trial)
        study.add_trial(
            optuna.trial.create_trial(
                params={name: values[name] for name in space},
                distributions=distributions,
                value=value_of(trial, metric),
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return shares


def values_of(trial: TrialRun) -> dict[str, Any]:
    """The fields of a trial as they were at its end: population-based training changes some."""
    spec = Trial.model_validate(trial.trial)
    return flatten(spec.at(spec.train.steps))


def _row(trial: TrialRun, metric: str, fields: Sequence[str], best: bool) -> Row:
    value = value_of(trial, metric)
    cells = [NOTHING if value is None else Value(f"{value:.2f}", value, best)]
    settings = values_of(trial)
    for field in fields:
        setting = settings[field]
        number = float(setting) if isinstance(setting, int | float) else None
        cells.append(Value(_short(setting), number))
    return Row(trial.signature, (*cells, Value(_state(trial))), (trial.signature,))


def _state(trial: TrialRun) -> str:
    if trial.state == TrialState.STOPPED:
        return f"{trial.state}: {trial.reason}"
    return trial.problem or trial.state


def _notes(best: TrialRun | None, fields: Sequence[str]) -> tuple[str, ...]:
    """How to use the best trial, and what the figures of stopped ones are."""
    if best is None:
        return (UNFINISHED,)
    values = values_of(best)
    settings = ""
    for name in fields:
        if name != "seed":  # a sweep's seeds are no field of its trial
            settings += f" --set trial.{name}={values[name]}"
    return (
        f"To use the best on val, {best.signature}, in any sweep:{settings}",
        "Stopped trials show the last value of their curve, for they have no score of their own.",
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
