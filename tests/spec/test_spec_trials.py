"""Trials of a sweep, their cells and signatures."""

import time

import pytest

from diffgap.bridge.registry import METHODS
from diffgap.spec import (
    Score,
    SweepSpec,
    Trial,
    canonical_json,
    flatten,
    signature,
    training_signature,
)

FINGERPRINT = "0" * 64


def sweep(**fields):
    return SweepSpec.model_validate({"name": "try", "store": "soundscapes", **fields})


def test_axes_are_crossed_with_seeds_innermost():
    trials = sweep(axes={"cdm.enabled": [False, True], "bst.enabled": [False, True]}, seeds=2)
    found = [(trial.ablation_cell, trial.seed) for trial in trials.trials()]
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


@pytest.mark.parametrize(
    ("blocks", "method", "cell"),
    [
        ({}, "diffgap", "cdm+bst"),
        ({"cdm": {"enabled": False}}, "deterministic", "bst"),
        ({"bst": {"enabled": False}}, "diffgap", "cdm"),
        ({"method": "none"}, "none", "frozen"),
        ({"method": "deterministic"}, "deterministic", "bst"),
        ({"method": "close"}, "close", None),
    ],
)
def test_method_and_cell_agree_however_they_are_asked_for(blocks, method, cell):
    trial = Trial(task="text-audio", seed=0, **blocks)
    assert (trial.method, trial.ablation_cell) == (method, cell)
    again = Trial.model_validate(trial.model_dump(mode="json"))
    assert again == trial


def test_a_cell_and_its_method_are_one_experiment():
    by_method = Trial(task="text-audio", seed=0, method="deterministic")
    by_cell = Trial(task="text-audio", seed=0, cdm={"enabled": False}, bst={"enabled": True})
    assert signature(by_method, FINGERPRINT) == signature(by_cell, FINGERPRINT)


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("none", "cosine"), ("center", "cosine"), ("mean_shift", "cosine"), ("close", "bridge"),
        ("deterministic", "bridge"), ("diffusion_bridge", "sample"), ("diffusion_link", "sample"),
        ("diffusion_ret", "rerank"), ("diffgap", "rerank"),
    ],
)  # fmt: skip
def test_every_method_scores_with_what_it_has(method, used):
    assert Trial(task="text-audio", seed=0, method=method).effective_score == used


def test_scores_and_splits_share_a_training():
    trial = Trial(task="text-audio", seed=0)
    scored = trial.model_copy(update={"score": Score(kind="bridge"), "split": "val"})
    wider = Trial(task="text-audio", seed=0, denoiser={"width": 64})
    assert training_signature(scored, FINGERPRINT) == training_signature(trial, FINGERPRINT)
    assert signature(scored, FINGERPRINT) != signature(trial, FINGERPRINT)
    assert training_signature(wider, FINGERPRINT) != training_signature(trial, FINGERPRINT)
    assert training_signature(trial, "1" * 64) != training_signature(trial, FINGERPRINT)


def test_a_search_evaluates_on_val_alone():
    spec = sweep(search={"space": {"train.lr": {"low": 1e-4, "high": 1e-2}}})
    assert {trial.split for trial in spec.trials()} == {"val"}


def test_how_workers_talk_to_each_other_is_no_part_of_a_trial():
    values = {"NCCL_SOCKET_IFNAME": "eth0", "NCCL_IB_DISABLE": 1, "FI_EFA_FORK_SAFE": "1"}
    spec = sweep(resources={"environment": values})
    assert spec.resources.environment == {**values, "NCCL_IB_DISABLE": "1"}
    assert spec.trials() == sweep().trials()


def test_a_signature_is_stable():
    """Finished trials are found by it: changing this line makes everyone's sweeps run anew."""
    assert signature(Trial(task="text-audio", seed=0), FINGERPRINT) == "9f99e086831f"


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
        return 0.75 * value + 0.01
    if isinstance(value, list):
        return value[:-1]
    others = {
        "x0": "eps", "cosine": "linear", "split": "joint", "auto": "fp32", "rerank": "bridge",
        "text-audio": "video-audio", "noise": "query", "test": "val", "diffgap": "close",
        "power": "uniform", "uniform": "snr", "ddim": "heun", "sample": "cosine",
        "diffusion_link": "close", "center": "close", "none": "optimizer", "bridge": "sample",
    }  # fmt: skip
    return "one_cycle" if value == "cosine" else others[value]


OTHER = {
    "diffusion_bridge.timesteps": 500,
    "cdm.schedule": "linear",
    "score.normalise": "dn",
    "score.normalise_strength": 0.5,
    "score.normalise_neighbours": 7,
    "score.normalise_pool": 0.5,
    "generation.generator": "audioldm",
    "generation.condition": "query",
    "generation.weights": "weights",
    "generation.audio": "clips",
    "generation.encoder": "checkpoint",
    "generation.extractors": ["vggish=weights"],
}


def _with(trial, path):
    """The trial with another value of a field."""
    tree = trial.model_dump(mode="json")
    block = tree
    *blocks, last = path.split(".")
    for name in blocks:
        block = block[name]
    block[last] = OTHER[path] if path in OTHER else _changed(block[last])
    return Trial.model_validate(tree)


WHOLE = Trial(task="text-audio", seed=0)
SAMPLED = Trial(task="text-audio", seed=0, score={"kind": "sample"})
CORRECTED = Trial(task="text-audio", seed=0, method="center", score={"normalise": "nnn"})
CONVOLVED = Trial(task="text-audio", seed=0, method="center", score={"normalise": "invgc"})
LINKED = Trial(task="text-audio", seed=0, method="diffusion_link")
MADE = Trial(task="text-audio", seed=0, generation={"generator": "soundscape"})


@pytest.mark.parametrize("path", sorted(set(flatten(WHOLE)) - {"changes"}))
def test_every_field_in_use_and_the_store_make_another_experiment(path):
    for trial in (WHOLE, SAMPLED, CORRECTED, CONVOLVED, LINKED, MADE):
        other = _with(trial, path)
        decided = trial.ablation_cell is None and path.endswith(".enabled")
        same = decided or path.startswith(tuple(trial.inactive_fields()))
        assert (signature(other, FINGERPRINT) == signature(trial, FINGERPRINT)) == same, trial
    assert signature(WHOLE, "1" * 64) != signature(WHOLE, FINGERPRINT)


def test_changes_on_the_way_make_another_experiment():
    changes = [{"step": 4, "values": {"train.lr": 0.02}}, {"step": 8, "values": {"train.lr": 0.03}}]
    changed = Trial(task="text-audio", seed=0, changes=changes)
    assert signature(changed, FINGERPRINT) != signature(WHOLE, FINGERPRINT)
    assert [changed.at(step).train.lr for step in (0, 4, 7, 9)] == [0.002, 0.02, 0.02, 0.03]


def test_every_field_is_of_use_to_some_trial():
    trials = [Trial(task="text-audio", seed=0, method=method) for method in METHODS]
    trials += [SAMPLED, CORRECTED, CONVOLVED, MADE]
    idle = [set(trial.inactive_fields()) for trial in trials]
    never = {path for path in flatten(WHOLE) if all(path.startswith(tuple(i)) for i in idle)}
    assert never == set()


def test_what_a_trial_has_no_use_for_does_not_make_another():
    frozen = Trial(task="text-audio", seed=0, method="none")
    longer = Trial(task="text-audio", seed=0, method="none", train={"steps": 7})
    assert signature(frozen, FINGERPRINT) == signature(longer, FINGERPRINT)


def test_two_thousand_trials_are_planned_within_a_second():
    spec = sweep(
        axes={"train.lr": [i / 1000 for i in range(1, 101)], "cdm.enabled": [False, True]}, seeds=10
    )
    began = time.monotonic()
    signatures = {signature(trial, FINGERPRINT) for trial in spec.trials()}
    assert len(signatures) == 2000
    assert time.monotonic() - began < 2
