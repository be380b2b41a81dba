"""A study by itself: what it suggests, what it hears, and what it still knows afterwards."""

import json

import pytest

from diffgap.errors import UserError
from diffgap.ledger.ledger import Ledger
from diffgap.spec import SweepSpec
from diffgap.sweep.plan import make_plan
from diffgap.sweep.strategies import make_strategy, points_of
from diffgap.sweep.study import Study

SPACE = {
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "denoiser.width": {"choices": [64, 128]},
    "denoiser.blocks": {"low": 1, "high": 3},
}


def plan_of(trials=4, space=SPACE, scheduler=None, seeds=1, axes=None, **search):
    spec = SweepSpec.model_validate(
        {
            "name": "s",
            "store": "somewhere",
            "trial": {
                "denoiser": {"width": 128, "blocks": 2},
                "train": {"steps": 100, "epoch_steps": 10},
            },
            "seeds": seeds,
            "axes": axes or {},
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
    assert again.remaining == 3
    back = [again.next() for _ in range(2)]
    assert {p.signature for p in back} == {p.signature for p in half_done}
    fresh = [again.next() for _ in range(3)]
    assert again.next() is None
    assert len({p.trial.train.lr for p in (*back, *fresh)}) == 5
    assert len(again.suggestions) == 6


def test_a_longer_search_goes_on_and_another_space_begins_anew(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(1), ledger)
    finish(ledger, study, study.next(), 50.0)
    assert Study(plan_of(1), ledger).remaining == 0
    assert Study(plan_of(3), ledger).remaining == 2
    narrower = {**SPACE, "denoiser.blocks": {"low": 1, "high": 2}}
    assert Study(plan_of(1, narrower), ledger).remaining == 1


def test_a_space_that_is_searched_through_ends_the_search(tmp_path):
    study = Study(plan_of(9, {"denoiser.width": {"choices": [64, 128]}}), Ledger(tmp_path))
    assert {study.next().trial.denoiser.width for _ in range(2)} == {64, 128}
    assert study.next() is None


def report(study, planned, step, value):
    study.report(planned.signature, [{"step": step, "metrics": metrics(value)}])


def test_who_falls_behind_at_a_rung_is_told_to_stop(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(8, scheduler={"min_steps": 10, "reduction": 2}), ledger)
    planned = [study.next() for _ in range(4)]
    assert study.rungs(planned[0]) == (10, 20, 40, 80)
    for one, value in zip(planned, (40.0, 50.0, 60.0, 10.0), strict=True):
        report(study, one, 10, value)
    stop = ledger.trial(planned[3].signature).stop
    assert (stop["step"], stop["value"]) == (10, 10.0)
    assert "ASHA" in stop["reason"]
    assert ledger.trial(planned[2].signature).stop is None
    study.finish(planned[3].signature)
    assert planned[3].signature not in study.open


def test_rungs_and_verdicts_outlive_the_study(tmp_path):
    """A search killed at a rung decides there as it would have; one already decided stays so."""
    ledger = Ledger(tmp_path)
    plan = plan_of(8, scheduler={"min_steps": 10, "reduction": 2})
    study = Study(plan, ledger)
    first, second, third = (study.next() for _ in range(3))
    report(study, first, 10, 50.0)
    report(study, second, 10, 40.0)

    again = Study(plan, ledger)
    assert second.signature not in again.open  # its end was never told, but its rung says so
    assert [p.signature for p in (again.next(), again.next())] == [
        first.signature, third.signature,
    ]  # fmt: skip
    report(again, first, 10, 50.0)  # told again, as after any restart
    report(again, third, 10, 45.0)
    assert ledger.trial(third.signature).stop["value"] == 45.0
    assert ledger.trial(first.signature).stop is None


def test_a_search_that_was_killed_draws_what_it_would_have_drawn(tmp_path):
    def draws(output, kills):
        found, ledger = [], Ledger(output)
        study = Study(plan_of(14), ledger)
        for number in range(14):
            if number in kills:
                study = Study(plan_of(14), ledger)
            planned = study.next()
            finish(ledger, study, planned, 10.0 + planned.trial.train.lr * 1e3)
            found.append(planned.signature)
        return found

    assert draws(tmp_path / "whole", ()) == draws(tmp_path / "killed", (1, 5, 12))


def test_other_seeds_are_tried_once_the_first_speaks_for_them(tmp_path):
    ledger = Ledger(tmp_path)
    plan = plan_of(2, seeds=3, scheduler={"min_steps": 10, "reduction": 2})
    study = Study(plan, ledger)
    first, second = study.next(), study.next()
    assert {first.trial.seed, second.trial.seed} == {0}
    assert study.next() is None
    report(study, first, 10, 60.0)
    report(study, second, 10, 40.0)
    study.finish(second.signature)
    finish(ledger, study, first, 60.0)
    others = [study.next(), study.next()]
    assert [p.trial.seed for p in others] == [1, 2]
    assert all(p.trial.train.lr == first.trial.train.lr for p in others)
    assert study.next() is None
    finish(ledger, study, others[0], 50.0)
    assert not study.is_finished
    again = Study(plan, ledger)
    assert again.next().signature == others[1].signature
    finish(ledger, again, others[1], 40.0)
    assert again.is_finished
    assert again.value(again.best()) == pytest.approx(50.0)


def test_each_point_of_the_axes_is_searched_by_itself(tmp_path):
    plan = plan_of(2, axes={"bst.enabled": [True, False]})
    assert points_of(plan) == [{"bst.enabled": True}, {"bst.enabled": False}]
    idle = plan_of(2, axes={"score.kind": ["bridge"], "score.top_k": [5, 10]})
    assert len(points_of(idle)) == 1  # a bridge score has no use for top_k
    studies = [Study(plan, Ledger(tmp_path), point) for point in points_of(plan)]
    trials = [study.next().trial for study in studies]
    assert [trial.bst.enabled for trial in trials] == [True, False]
    assert studies[0].identity != studies[1].identity


def test_without_a_scheduler_nobody_is_stopped(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(3), ledger)
    planned = [study.next() for _ in range(3)]
    for value, one in enumerate(planned):
        report(study, one, 10, 50.0 - 10 * value)
    assert not any(ledger.trial(one.signature).stop for one in planned)


def test_what_another_sweep_has_finished_is_not_run_again(tmp_path):
    ledger = Ledger(tmp_path / "one")
    study = Study(plan_of(2), ledger)
    first = study.next()
    finish(ledger, study, first, 50.0)
    (tmp_path / "one/search/s.journal").unlink()
    assert Study(plan_of(2), ledger).next().signature != first.signature


def test_a_search_that_another_sweep_has_finished_draws_no_more_than_its_trials(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(1), ledger)
    finish(ledger, study, study.next(), 50.0)
    (tmp_path / "search/s.journal").unlink()
    again = Study(plan_of(1), ledger)
    assert again.next() is None
    assert again.is_finished
    assert len(again.suggestions) == 1


def test_forgetting_begins_anew(tmp_path):
    ledger = Ledger(tmp_path)
    study = Study(plan_of(2), ledger)
    first = study.next()
    finish(ledger, study, first, 50.0)
    make_strategy(plan_of(2), ledger).forget()
    assert not ledger.trial(first.signature).finished
    assert Study(plan_of(2), ledger).remaining == 2


def test_a_journal_whose_last_line_was_cut_off_by_a_kill_stays_readable(tmp_path):
    """Also its lock, which is held for the moment of a write."""
    ledger = Ledger(tmp_path)
    journal = tmp_path / "search" / f"{plan_of(6).spec.name}.journal"
    study = Study(plan_of(6), ledger)
    first = study.next()
    finish(ledger, study, first, 50.0)
    with journal.open("a") as file:
        file.write('{"op_code":4,"worker_')
    journal.with_name(f"{journal.name}.lock").symlink_to(journal)
    again = Study(plan_of(6), ledger)
    second = again.next()  # writes
    last = Study(plan_of(6), ledger)
    assert [s.first.signature for s in last.suggestions] == [first.signature, second.signature]
    assert all(map(json.loads, journal.read_text().splitlines()))


def test_a_damaged_journal_is_told_and_its_trials_are_drawn_again(tmp_path):
    ledger = Ledger(tmp_path)
    journal = tmp_path / "search" / f"{plan_of(3).spec.name}.journal"
    study = Study(plan_of(3), ledger)
    first = study.next()
    journal.write_bytes(b"\x80 no journal\n" + journal.read_bytes())
    with pytest.raises(UserError, match=r"s.journal: cannot be read .* delete it"):
        Study(plan_of(3), ledger)
    journal.unlink()
    assert Study(plan_of(3), ledger).next().signature == first.signature
