"""A study by itself: what it suggests, what it hears, and what it still knows afterwards."""

import json

import pytest

from diffgap.ledger import Ledger
from diffgap.spec import SweepSpec
from diffgap.sweep.plan import make_plan
from diffgap.sweep.search import Study

SPACE = {
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "denoiser.width": {"choices": [64, 128]},
    "denoiser.blocks": {"low": 1, "high": 3},
}


def plan_of(trials=4, space=SPACE, scheduler=None, **search):
    spec = SweepSpec.model_validate(
        {
            "name": "s",
            "store": "somewhere",
            "trial": {"denoiser": {"width": 128, "blocks": 2}, "train": {"steps": 100}},
            "search": {"trials": trials, "space": space, **search},
            "scheduler": scheduler,
        }
    )
    return make_plan(spec, "somewhere", "0" * 64)


def finish(ledger, study, planned, value):
    record = ledger.trial(planned.signature)
    record.bridge.mkdir(parents=True)
    metrics = {"val/text_to_audio/R5": value - 2, "val/audio_to_text/R5": value + 2}
    (record.bridge / "metrics.json").write_text(json.dumps({**metrics, "val/audio_to_text/R1": 1}))
    study.finish(planned.signature)


def metrics(value):
    return {"val/text_to_audio/R5": value, "val/audio_to_text/R5": value}


@pytest.mark.parametrize("kind", ["optuna", "random"])
def test_the_default_is_tried_first_then_other_points_of_the_space(tmp_path, kind):
    study = Study(plan_of(6, kind=kind), Ledger(tmp_path))
    trials = [study.next().trial for _ in range(6)]
    assert study.next() is None
    assert (trials[0].train.lr, trials[0].denoiser.width, trials[0].denoiser.blocks) == (
        0.002, 128, 2,
    )  # fmt: skip
    assert len({trial.train.lr for trial in trials}) == 6
    for trial in trials:
        assert 1e-4 <= trial.train.lr <= 1e-2
        assert trial.denoiser.width in (64, 128)
        assert 1 <= trial.denoiser.blocks <= 3
        assert trial.split == "val"


def test_a_study_that_goes_on_has_its_open_trials_first_and_draws_none_again(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(6), ledger)
    finish(ledger, study, study.next(), 50.0)
    half_done = [study.next() for _ in range(2)]

    again = Study(plan_of(6), ledger)
    assert len(again.open) == 2
    assert again.left == 3
    back = [again.next() for _ in range(2)]
    assert {p.signature for p in back} == {p.signature for p in half_done}
    fresh = [again.next() for _ in range(3)]
    assert again.next() is None
    assert len({p.trial.train.lr for p in (*back, *fresh)}) == 5
    assert len(again.seen) == 6


def test_a_longer_search_goes_on_and_another_space_begins_anew(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(1), ledger)
    finish(ledger, study, study.next(), 50.0)
    assert Study(plan_of(1), ledger).left == 0
    assert Study(plan_of(3), ledger).left == 2
    narrower = {**SPACE, "denoiser.blocks": {"low": 1, "high": 2}}
    assert Study(plan_of(1, narrower), ledger).left == 1


def test_a_space_that_is_searched_through_ends_the_search(tmp_path):
    study = Study(plan_of(9, {"denoiser.width": {"choices": [64, 128]}}), Ledger(tmp_path))
    assert {study.next().trial.denoiser.width for _ in range(2)} == {64, 128}
    assert study.next() is None


def test_who_falls_behind_at_a_rung_is_told_to_stop(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(8, scheduler={"min_steps": 10, "reduction": 2}), ledger)
    planned = [study.next() for _ in range(4)]
    for one, value in zip(planned, (40.0, 50.0, 60.0, 10.0), strict=True):
        study.report(one.signature, 10, metrics(value))
    stop = ledger.trial(planned[3].signature).stop
    assert (stop["step"], stop["value"]) == (10, 10.0)
    assert "ASHA" in stop["reason"]
    assert ledger.trial(planned[2].signature).stop is None
    study.finish(planned[3].signature)
    assert planned[3].signature not in Study(plan_of(8), ledger).open


def test_without_a_scheduler_nobody_is_stopped(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(3), ledger)
    planned = [study.next() for _ in range(3)]
    for value, one in enumerate(planned):
        study.report(one.signature, 10, metrics(50.0 - 10 * value))
    assert not any(ledger.trial(one.signature).stop for one in planned)


def test_what_another_sweep_has_finished_is_not_run_again(tmp_path):
    ledger = Ledger(tmp_path / "one")
    study = Study(plan_of(2), ledger)
    first = study.next()
    finish(ledger, study, first, 50.0)
    (tmp_path / "one/search/s.journal").unlink()
    assert Study(plan_of(2), ledger).next().signature != first.signature


def test_forgetting_begins_anew(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(2), ledger)
    first = study.next()
    finish(ledger, study, first, 50.0)
    study.forget()
    assert not ledger.trial(first.signature).finished
    assert Study(plan_of(2), ledger).left == 2
