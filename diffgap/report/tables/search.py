"""What a search has found: its trials, the best on val first, and which settings mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

from diffgap.errors import require
from diffgap.ledger.states import TrialState
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.spec import Trial, flatten
from diffgap.spec.sweep import Dimension
from diffgap.tracking.reader import LoggedSweep, TrialRun

FEW = 8
"""Finished trials below which nothing is said of importance."""


def search_table(sweep: LoggedSweep) -> Table:
    """The trials of a search, finished ones first, the best of them on top."""
    metric = sweep.spec["search"]["metric"]
    shown = metric_name(metric)
    fields = searched(sweep)
    trials = sorted(
        (trial for trial in sweep.trials if not trial.final),
        key=lambda trial: (not trial.is_complete, -(value_of(trial, metric) or 0.0)),
    )
    best = next((trial for trial in trials if trial.is_complete), None)
    rows = [_row(trial, metric, fields, trial is best) for trial in trials]
    return Table(
        f"search-{sweep.name}",
        f"Search {sweep.name}: {shown} on val, mean of both directions",
        (shown, *fields, "state"),
        tuple(rows),
        (*_notes(best, fields), *sweep.notes),
    )


def searched(sweep: LoggedSweep) -> tuple[str, ...]:
    """The fields in which the trials of a search differ."""
    seeds = ("seed",) if sweep.spec["seeds"] != 1 else ()
    return (*sweep.spec["axes"], *sweep.spec["search"]["space"], *seeds)


def value_of(trial: TrialRun, metric: str) -> float | None:
    """The metric on val, mean of both directions: of the trial's own score where it is finished,
    else of the last point of its curve; None where it has none."""
    return mean_objective(trial.metrics if trial.is_complete else trial.logged, metric)


def mean_objective(metrics: Mapping[str, float], metric: str) -> float | None:
    """A metric on val, mean of both directions; None where there is none."""
    found = [v for n, v in metrics.items() if n.startswith("val/") and n.endswith(f"/{metric}")]
    return mean(found) if found else None


def metric_name(metric: str) -> str:
    """A metric as people write it: ``R@5``, which MLflow refuses."""
    return metric.replace("R", "R@").replace("mAP", "mAP@")


def importance_table(sweep: LoggedSweep) -> Table:
    """How much of the differences on val each searched field explains.

    PED-ANOVA (Watanabe, Bansal & Hutter, IJCAI 2023, as Optuna has it), over the trials that are
    finished: how differently the better trials' values of a field are spread. It tells of the
    ranges that were searched, and of nothing beyond.
    """
    metric, space = sweep.spec["search"]["metric"], sweep.spec["search"]["space"]
    trials = [trial for trial in sweep.trials if trial.is_complete and not trial.final]
    title = f"Hyper-parameter importance on {sweep.spec['task']} (sweep {sweep.name})"
    key, headings = f"importance-{sweep.name}", ("importance %", "best trial's value")
    if len(trials) < FEW:
        said = f"{len(trials)} trials are finished; at least {FEW} are needed to say what mattered."
        return Table(key, title, headings, (), (said,))
    found = _importances(trials, metric, space)
    best = max(trials, key=lambda trial: value_of(trial, metric) or -math.inf)
    values = values_of(best)
    runs = tuple(trial.signature for trial in trials)
    rows = tuple(
        Row(name, (Value(f"{100 * share:.0f}", share), Value(_short(values[name]))), runs)
        for name, share in found.items()
    )
    note = f"PED-ANOVA over the {len(trials)} finished trials; it says nothing beyond their ranges."
    return Table(key, title, headings, rows, (note,))


def _importances(trials: list[TrialRun], metric: str, space: dict[str, Any]) -> dict[str, float]:
    optuna = require("optuna", "search", "the importance of hyper-parameters")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    kinds = {name: Dimension(**found).distribution() for name, found in space.items()}
    for trial in trials:
        values = values_of(trial)
        study.add_trial(
            optuna.trial.create_trial(
                params={name: values[name] for name in space},
                distributions=kinds,
                value=value_of(trial, metric),
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


def values_of(trial: TrialRun) -> dict[str, Any]:
    """The fields of a trial as they were at its end."""
    resolved = Trial.model_validate(trial.trial)
    return flatten(resolved.at(resolved.train.steps))


def _row(trial: TrialRun, metric: str, fields: tuple[str, ...], best: bool) -> Row:
    value = value_of(trial, metric)
    shown = NOTHING if value is None else Value(f"{value:.2f}", value, best)
    values = values_of(trial)
    found = (Value(_short(values[name]), _number(values[name])) for name in fields)
    return Row(trial.signature, (shown, *found, Value(_state(trial))), (trial.signature,))


def _state(trial: TrialRun) -> str:
    if trial.state == TrialState.STOPPED:
        return f"{trial.state}: {trial.reason}"
    return trial.problem or trial.state


def _notes(best: TrialRun | None, fields: tuple[str, ...]) -> tuple[str, ...]:
    """What to do with the best trial."""
    if best is None:
        return ("No trial is finished yet.",)
    values = values_of(best)
    settings = " ".join(f"--set trial.{name}={values[name]}" for name in fields if name != "seed")
    return (
        f"The best on val, {best.signature}, in any sweep: {settings}",
        "Stopped trials show the value of their curve, without the trial's own score.",
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
