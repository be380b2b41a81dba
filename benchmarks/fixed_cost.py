"""What a trial costs that hardly trains, by phase, and beside Ray's defaults.

    python benchmarks/fixed_cost.py

Trials of one optimiser step on the embedded corpus, one after another: with Ray Tune's and Ray
Train's defaults (`simple_way.py`), each in processes of its own (`resources.pack: off`), and in one
warm process (`resources.pack: 1`). The first trial is
from the command to its end; a further one is the difference of runs with 1 and with 1 + N trials.
"""

from __future__ import annotations

import re
from statistics import median
from typing import Any

import common
from simple_way import simple_seconds

SETS = ["name=fixed", "axes={}", "trial.train.steps=1", "trial.score.kind=bridge"]

PHASES = {
    "imports, store": r"Starting Ray",
    "Ray, MLflow": r"trials to run",
    "first process": r": started",
    "trial": r": done in",
    "MLflow, table": r"MLflow: ",
    "end": r"^$",
}
"""What ends each phase of a sweep, as it says."""


def phases(lines: list[tuple[float, str]]) -> dict[str, float]:
    """Seconds of each phase, from what a sweep of one trial has said and when."""
    found, before = {}, 0.0
    for name, pattern in PHASES.items():
        at = next(when for when, line in lines if when >= before and re.search(pattern, line))
        found[name], before = at - before, at
    return found


def one_round(more: int) -> dict[str, Any]:
    """First trial's and a further trial's seconds by way, and the warm way's phases."""
    found: dict[str, Any] = {}
    first, all_of_them = (simple_seconds(*SETS, f"seeds={n}") for n in (1, 1 + more))
    found["Ray's defaults"] = first, (all_of_them - first) / more
    for way, pack in (("processes of its own", "off"), ("one warm process", "1")):
        alone = ("--max-concurrent", "1")
        sets = (*SETS, f"resources.pack={pack}")
        lines = common.sweep_lines(*sets, "seeds=1", options=alone)
        many = common.sweep_seconds(*sets, f"seeds={1 + more}", options=alone)
        found[way] = lines[-1][0], (many - lines[-1][0]) / more
    found["phases"] = phases(lines)
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--more", type=int, default=4, help="further trials (default %(default)s)")
    options = parser.parse_args()
    rounds = [one_round(options.more) for _ in range(options.rounds)]
    simple = "Ray's defaults"
    rows = []
    for way in (name for name in rounds[0] if name != "phases"):
        row: dict[str, object] = {"way": way}
        for i, what in enumerate(("first trial", "a further trial")):
            row[f"{what}, s"] = common.spread([found[way][i] for found in rounds], 1)
            row[f"{what}: ratio"] = common.spread(
                [found[way][i] / found[simple][i] for found in rounds]
            )
        rows.append(row)
    common.show("Trials of one step, one after another", rows, options.json)
    names = rounds[0]["phases"]
    common.show(
        "The first trial in a warm process, by phase",
        [{"phase": n, "s": round(median(r["phases"][n] for r in rounds), 2)} for n in names],
        options.json,
    )


if __name__ == "__main__":
    main()
