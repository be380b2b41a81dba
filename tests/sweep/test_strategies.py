"""Strategies by themselves, with no Ray to run their trials."""

from types import SimpleNamespace

from test_study import plan_of

from diffgap.ledger.ledger import Ledger
from diffgap.sweep import tune
from diffgap.sweep.strategies import make_strategy


def test_a_population_ends_with_a_generation_that_failed_as_a_whole(tmp_path, monkeypatch):
    context = SimpleNamespace(failures={})

    def fail_all(context, trials, pause_at):
        context.failures |= {planned.signature: "the loss is nan" for planned in trials}

    monkeypatch.setattr(tune, "run_wave", fail_all)
    monkeypatch.setattr(tune, "run_trials", lambda context, trials: None)
    plan = plan_of(4, scheduler={"kind": "pbt", "interval": 50})
    strategy = make_strategy(plan, Ledger(tmp_path))
    strategy.run(context, lambda: None)
    (population,) = strategy.searches
    assert len(population.generations) == 1
    assert {planned.signature for planned in strategy.missing} == set(context.failures)
    assert strategy.test_trials == []
