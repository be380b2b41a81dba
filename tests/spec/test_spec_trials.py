"""Trials of a sweep, their cells and signatures."""

import time

import pytest

from diffgap.spec import SweepSpec, Trial, canonical_json, flatten, signature

FINGERPRINT = "0" * 64


def sweep(**fields):
    return SweepSpec.model_validate({"name": "try", "store": "soundscapes", **fields})


def test_axes_are_crossed_with_seeds_innermost():
    trials = sweep(axes={"cdm.enabled": [False, True], "bst.enabled": [False, True]}, seeds=2)
    found = [(trial.cell, trial.seed) for trial in trials.trials()]
    cells = ["frozen", "bst", "cdm", "cdm+bst"]
    assert found == [(cell, seed) for cell in cells for seed in (0, 1)]


def test_axes_win_over_the_trial_block():
    spec = sweep(
        trial={"train": {"steps": 5}}, axes={"train.steps": [7], "cdm.t_sampler.power": [2]}
    )
    (trial,) = spec.trials()
    assert (trial.train.steps, trial.cdm.t_sampler.power) == (7, 2.0)


@pytest.mark.parametrize(
    ("cdm", "bst", "asked", "used"),
    [
        (False, False, "rerank", "cosine"),
        (False, True, "rerank", "bridge"),
        (False, True, "sample", "bridge"),
        (True, False, "rerank", "rerank"),
        (True, True, "sample", "sample"),
        (True, True, "cosine", "cosine"),
    ],
)
def test_a_cell_scores_with_what_it_has_trained(cdm, bst, asked, used):
    trial = Trial(
        task="text-audio", seed=0, cdm={"enabled": cdm}, bst={"enabled": bst}, score={"kind": asked}
    )
    assert trial.effective_score == used


def test_a_signature_is_stable():
    """Finished trials are found by it: changing this line makes everyone's sweeps run anew."""
    assert signature(Trial(task="text-audio", seed=0), FINGERPRINT) == "f2eeee9cd97a"


def test_defaults_written_out_or_left_out_are_the_same_experiment():
    short = Trial(task="text-audio", seed=0)
    long = Trial.model_validate(short.model_dump(mode="json"))
    whole = Trial(task="text-audio", seed=0, train={"weight_decay": 0.05, "gradient_clipping": 1})
    assert canonical_json(short, FINGERPRINT) == canonical_json(long, FINGERPRINT)
    assert canonical_json(short, FINGERPRINT) == canonical_json(whole, FINGERPRINT)


def _changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    if isinstance(value, float):
        return value / 2 + 0.01
    if isinstance(value, list):
        return value[:-1]
    others = {
        "x0": "eps", "cosine": "linear", "split": "joint", "auto": "fp32", "rerank": "bridge",
        "text-audio": "video-audio",
    }  # fmt: skip
    return "one_cycle" if value == "cosine" else others[value]


@pytest.mark.parametrize("path", flatten(Trial(task="text-audio", seed=0)))
def test_every_field_and_the_store_make_another_experiment(path):
    trial = Trial(task="text-audio", seed=0)
    tree = trial.model_dump(mode="json")
    block = tree
    *blocks, last = path.split(".")
    for name in blocks:
        block = block[name]
    block[last] = "linear" if path == "cdm.schedule" else _changed(block[last])
    other = Trial.model_validate(tree)
    assert signature(other, FINGERPRINT) != signature(trial, FINGERPRINT)
    assert signature(trial, "1" * 64) != signature(trial, FINGERPRINT)


def test_two_thousand_trials_are_planned_within_a_second():
    spec = sweep(
        axes={"train.lr": [i / 1000 for i in range(1, 101)], "cdm.enabled": [False, True]}, seeds=10
    )
    began = time.monotonic()
    signatures = {signature(trial, FINGERPRINT) for trial in spec.trials()}
    assert len(signatures) == 2000
    assert time.monotonic() - began < 2
