"""Signatures never change by accident: with them, everybody's finished trials would be lost."""

import json
from pathlib import Path

import pytest

from diffgap.spec import load_sweep
from diffgap.sweep.plan import make_plan

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "data" / "signatures.json").read_text())
"""By sweep: each trial's signature and label, on a store of fingerprint 000..., as shipped."""


@pytest.mark.parametrize("name", GOLDEN)
def test_a_shipped_sweep_has_the_signatures_that_it_always_had(name):
    plan = make_plan(load_sweep(ROOT / "sweeps" / f"{name}.yaml"), "somewhere", "0" * 64)
    labels = {trial.signature: trial.label for trial in plan.trials}
    # It may gain trials, such as those of a new method.
    assert GOLDEN[name].items() <= labels.items()


def test_every_shipped_sweep_is_held():
    shipped = {path.relative_to(ROOT / "sweeps") for path in (ROOT / "sweeps").rglob("*.yaml")}
    assert {path.with_suffix("").as_posix() for path in shipped} == set(GOLDEN)
