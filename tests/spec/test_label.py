"""Labels name what differs, and points are found in records that were written before there were."""

import pytest

from diffgap.spec import SweepSpec
from diffgap.spec.label import cell_label, recorded_points, rounded, trial_label
from diffgap.spec.trial import Change
from diffgap.sweep.plan import make_plan, planned_trial

GRID = SweepSpec(
    name="s", store="somewhere", seeds=2,
    axes={"cdm.enabled": [False, True], "bst.enabled": [False, True], "train.lr": [1, 0.002]},
)  # fmt: skip
SEARCH = SweepSpec(
    name="s", store="somewhere", axes={"cdm.enabled": [False, True]},
    search={"space": {"train.lr": {"low": 1e-4, "high": 1e-2}}},
)  # fmt: skip
POINT = {"cdm.enabled": True, "train.lr": 0.00123456}


def without_points(entries):
    return [{name: value for name, value in entry.items() if name != "point"} for entry in entries]


def test_a_label_leaves_out_what_makes_no_difference():
    labels = [planned.label for planned in make_plan(GRID, "somewhere", "0" * 64).trials]
    assert labels[:3] == [
        "cdm off, bst off, seed 0", "cdm off, bst off, seed 1",
        "cdm off, bst on, train.lr 1, seed 0",
    ]  # fmt: skip


def test_a_label_says_from_which_step_on_its_values_are():
    trial = SEARCH.trial_at(POINT, 3)
    changed = trial.model_copy(update={"changes": (Change(step=5, values={"train.lr": 0.01}),)})
    assert cell_label(rounded(POINT), trial) == "cdm on, train.lr 0.00123"
    assert trial_label(rounded(POINT), changed) == "cdm on, train.lr 0.00123 from step 5, seed 3"


def test_a_trial_without_a_point_is_its_seed():
    assert trial_label({}, SEARCH.trial_at({}, 3)) == "seed 3"


@pytest.mark.parametrize("as_recorded", [lambda entries: entries, without_points])
def test_the_points_of_a_grid_are_read_back(as_recorded):
    record = make_plan(GRID, "somewhere", "0" * 64).record()
    points = recorded_points(as_recorded(record.trials), record.spec)
    assert points == [entry["point"] for entry in record.trials]


def test_the_points_of_a_search_are_read_back():
    validated = planned_trial(SEARCH.trial_at(POINT, 0), rounded(POINT), "0" * 64)
    winner = validated.trial.model_copy(update={"split": "test"})
    tested = planned_trial(winner, {"cdm.enabled": True}, "0" * 64)
    entries = [validated.entry(), tested.entry()]
    points = recorded_points(without_points(entries), SEARCH.model_dump(mode="json"))
    assert points == [rounded(POINT), {"cdm.enabled": True}]
