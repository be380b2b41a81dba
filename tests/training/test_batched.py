"""Trials in one batch: each the same experiment as alone, whatever becomes of the others."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from worker import SIGNATURE, run_case

from diffgap.bridge import registry
from diffgap.bridge.siblings import DiffusionLink
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial
from diffgap.training import autotune
from diffgap.training import batched as batch_module
from diffgap.training.autotune import batch_is_faster, batch_pays
from diffgap.training.batched import PackMember, can_batch, run_batched
from diffgap.training.checkpoint import Checkpoints
from diffgap.training.context import TrialContext
from diffgap.training.divergence import DivergedError
from diffgap.training.engine import process_group
from diffgap.training.loop import StoppedError
from diffgap.training.shape import shape_of
from diffgap.training.trial import run_trial

STEPS, EPOCH = 200, 50


def trial(seed=0, train=None, **blocks):
    train = {"steps": STEPS, "epoch_steps": EPOCH, "batch_size": 32, "precision": "fp32"} | (
        train or {}
    )
    return Trial.model_validate(
        {"task": "text-audio", "seed": seed, "denoiser": {"width": 32, "blocks": 2},
         "train": train, "score": {"top_k": 5}, **blocks}
    )  # fmt: skip


VARIED = [
    trial(),
    trial(1, {"lr": 1e-3, "gradient_clipping": 0}, cdm={"prediction": "eps"}),
    trial(2, {"lr": 5e-3, "gradient_clipping": 0.1}, cdm={"prediction": "v", "schedule": "flow"}),
    trial(3, {"lr_schedule": "one_cycle", "warmup": 0.3}, bst={"mode": "alternate"}),
    trial(4, {"weight_decay": 0.5}, bst={"fraction": 0.7}, cdm={"schedule": "edm"}),
    trial(0, {"ema": 0.9}, bst={"enabled": False}, cdm={"t_sampler": {"kind": "uniform"}}),
    trial(6, cdm={"weight": {"kind": "min_snr"}}, loss={"condition_dropout": 0.5}),
    trial(7, loss={"infonce_weight": 0.0, "condition_noise": 0.1}),
]
METHODS = [
    trial(method="deterministic"),
    trial(method="close"),
    trial(method="diffusion_bridge", train={"lr": 1e-3}),
    trial(1),
]


class HostThat(TrialContext):
    """A host that does something at an epoch's end."""

    def __init__(self, record, at=None, does=None):
        super().__init__(record, torch.device("cpu"))
        self.at, self.does = at, does

    def report(self, progress):
        if self.does and progress.step == self.at:
            self.does()


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def kill():
    raise Killed


def name(number):
    return f"{number:012x}"


def alone(trials, store, out):
    ledger = Ledger(out)
    for number, each in enumerate(trials):
        context = HostThat(ledger.trial(name(number)))
        run_trial(each, name(number), str(store), ledger, context)
    return ledger


def members_of(trials, ledger, hosts=None):
    hosts = hosts or {}
    return [
        PackMember(each, name(number), hosts.get(number) or HostThat(ledger.trial(name(number))))
        for number, each in enumerate(trials)
    ]


def batched(members, store, ledger):
    ends = {}

    def ended(member, error):
        assert member.signature not in ends
        ends[member.signature] = error

    run_batched(members, str(store), ledger, ended)
    return ends


@pytest.fixture(scope="module")
def singles(small_store, tmp_path_factory):
    """`VARIED`, each trained alone."""
    return alone(VARIED, small_store, tmp_path_factory.mktemp("alone"))


def losses(record):
    return np.array(
        [p["metrics"]["train/loss"] for p in record.history() if "train/loss" in p["metrics"]]
    )


def recalls(record):
    return {n: v for n, v in record.metrics().items() if "/R" in n}


def assert_same(found, expected):
    """The same experiment: losses at every step, and what the bridge is worth."""
    assert np.abs(losses(found) / losses(expected) - 1).max() < 1e-5
    assert len(losses(found)) == STEPS
    assert recalls(found) == recalls(expected)
    assert found.metrics()["best/step"] == expected.metrics()["best/step"]
    weights = load_file(expected.bridge / "bridge.safetensors")
    for key, value in load_file(found.bridge / "bridge.safetensors").items():
        assert torch.allclose(value, weights[key], atol=1e-4), key


def test_eight_trials_at_once_are_each_the_same_as_alone(small_store, tmp_path, singles):
    ledger = Ledger(tmp_path)
    members = members_of(VARIED, ledger)
    assert can_batch(members)
    assert batched(members, small_store, ledger) == dict.fromkeys(map(name, range(8)))
    for number in range(8):
        assert_same(ledger.trial(name(number)), singles.trial(name(number)))
    first = ledger.trial(name(0))
    assert first.history()[0]["metrics"].keys() == singles.trial(name(0)).history()[0][
        "metrics"
    ].keys()  # fmt: skip


def test_methods_may_mix(small_store, tmp_path):
    trials = [*METHODS, trial(2, method="diffusion_link", denoiser={"width": 32})]
    assert shape_of(trials[-1]) != shape_of(trials[0])
    ledger = Ledger(tmp_path / "together")
    members = members_of(METHODS, ledger)
    assert can_batch(members)
    assert not can_batch(members_of(trials, ledger))
    batched(members, small_store, ledger)
    apart = alone(METHODS, small_store, tmp_path / "apart")
    for number in range(len(METHODS)):
        assert_same(ledger.trial(name(number)), apart.trial(name(number)))


def test_what_becomes_of_one_does_not_touch_the_others(small_store, tmp_path, singles, caplog):
    """One diverges, one is stopped at its second epoch; neither's neighbours notice."""
    caplog.set_level("INFO", "diffgap")
    trials = list(VARIED)
    trials[2] = trial(2, {"lr": 1.0, "gradient_clipping": 0}, loss={"condition_noise": 1e30})
    ledger = Ledger(tmp_path)
    stopped = HostThat(ledger.trial(name(5)))
    stopped.until = 2 * EPOCH
    ends = batched(members_of(trials, ledger, {5: stopped}), small_store, ledger)
    assert isinstance(ends.pop(name(2)), DivergedError)
    assert isinstance(ends.pop(name(5)), StoppedError)
    assert set(ends.values()) == {None}
    assert not ledger.trial(name(2)).finished
    assert not ledger.trial(name(5)).finished
    for number in (0, 1, 3, 4, 6, 7):
        assert_same(ledger.trial(name(number)), singles.trial(name(number)))
    said = [(getattr(r, "trial", None), r.getMessage()) for r in caplog.records]
    assert said.count((None, "Training in a batch of 8 trials")) == 1
    assert [what for _, what in said if "continues with" in what] == [
        "The batch continues with 7 trials", "The batch continues with 6 trials",
    ]  # fmt: skip
    for number, steps in ((0, STEPS), (5, 2 * EPOCH), (2, 0)):  # each trial's log is its own
        mine = [what for who, what in said if who == name(number)]
        assert sum(what.startswith("Step ") for what in mine) == steps // EPOCH
    run_trial(VARIED[5], name(5), str(small_store), ledger, HostThat(ledger.trial(name(5))))
    assert_same(ledger.trial(name(5)), singles.trial(name(5)))


@pytest.fixture(scope="module")
def killed(small_store, tmp_path_factory):
    """Three trials killed in one batch, with checkpoints of their second epoch."""
    ledger = Ledger(tmp_path_factory.mktemp("killed"))
    last = HostThat(ledger.trial(name(2)), 2 * EPOCH, kill)
    with pytest.raises(Killed):
        batched(members_of(VARIED[:3], ledger, {2: last}), small_store, ledger)
    return ledger


def copy_of(ledger, path):
    shutil.copytree(ledger.output, path)
    return Ledger(path)


def test_a_killed_batch_goes_on_as_a_batch(small_store, tmp_path, killed, singles):
    ledger = copy_of(killed, tmp_path / "ledger")
    members = members_of(VARIED[:3], ledger)
    assert can_batch(members)
    assert set(batched(members, small_store, ledger).values()) == {None}
    for number in range(3):
        assert_same(ledger.trial(name(number)), singles.trial(name(number)))


def test_trials_of_a_killed_batch_go_on_alone(small_store, tmp_path, killed, singles):
    ledger = copy_of(killed, tmp_path / "ledger")
    for number in range(3):
        context = HostThat(ledger.trial(name(number)))
        run_trial(VARIED[number], name(number), str(small_store), ledger, context)
        assert_same(ledger.trial(name(number)), singles.trial(name(number)))


def test_trials_that_were_alone_go_on_as_a_batch(small_store, tmp_path, singles):
    ledger = Ledger(tmp_path)
    for number in range(3):
        context = HostThat(ledger.trial(name(number)), EPOCH, kill)
        with pytest.raises(Killed):
            run_trial(VARIED[number], name(number), str(small_store), ledger, context)
    batched(members_of(VARIED[:3], ledger), small_store, ledger)
    for number in range(3):
        assert_same(ledger.trial(name(number)), singles.trial(name(number)))


def test_trials_at_different_steps_are_no_batch(small_store, tmp_path, killed):
    ledger = copy_of(killed, tmp_path / "ledger")
    shutil.rmtree(Checkpoints(ledger.trial(name(0)).checkpoints).latest())
    assert not can_batch(members_of(VARIED[:3], ledger))
    assert can_batch(members_of(VARIED[:1], ledger))


SHORT = {"steps": 4, "epoch_steps": 4}


def test_trainings_that_are_known_are_not_repeated(small_store, tmp_path):
    """Neither one that the ledger has, nor one that another member does."""
    trials = [trial(0, SHORT), trial(1, SHORT, score={"kind": "bridge"}), trial(1, SHORT)]
    ledger = Ledger(tmp_path)
    run_trial(trials[0], "f" * 12, str(small_store), ledger, HostThat(ledger.trial("f" * 12)))
    trained = []
    hosts = {
        number: HostThat(ledger.trial(name(number)), 4, lambda n=number: trained.append(n))
        for number in range(3)
    }
    ends = batched(members_of(trials, ledger, hosts), small_store, ledger)
    assert set(ends.values()) == {None}
    assert trained == [1]
    for number, same in ((0, "f" * 12), (2, name(1))):
        assert ledger.trial(name(number)).history() == ledger.trial(same).history()


def test_a_failed_evaluation_is_one_trials_own(small_store, tmp_path, monkeypatch):
    real = batch_module.conclude

    def conclude(trial, signature, *others):
        if signature == name(0):
            raise RuntimeError("no such score")
        real(trial, signature, *others)

    monkeypatch.setattr(batch_module, "conclude", conclude)
    ledger = Ledger(tmp_path)
    ends = batched(members_of([trial(0, SHORT), trial(1, SHORT)], ledger), small_store, ledger)
    assert str(ends[name(0)]) == "no such score"
    assert ends[name(1)] is None
    assert ledger.trial(name(1)).finished


def test_what_concerns_all_ends_the_batch(small_store, tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    ledger = Ledger(tmp_path)
    members = members_of([trial(0, SHORT), trial(1, SHORT)], ledger)
    members[1].context.does, members[1].context.at = full, 4
    with pytest.raises(OSError, match="No space"):
        batched(members, small_store, ledger)


def test_a_batch_takes_micro_batches_and_joint_examples(small_store, tmp_path):
    joint = {"mode": "joint"}
    train = {**SHORT, "accumulation": 2, "steps": 20}
    trials = [trial(n, {**train, "lr": 1e-3 * (n + 1)}, bst=joint) for n in range(2)]
    ledger = Ledger(tmp_path / "together")
    batched(members_of(trials, ledger), small_store, ledger)
    apart = alone(trials, small_store, tmp_path / "apart")
    for number in range(2):
        found = losses(ledger.trial(name(number))), losses(apart.trial(name(number)))
        assert np.abs(found[0] / found[1] - 1).max() < 1e-5


UNLIKE = {
    "seed": ({"seed": 5}, True),
    "lr": ({"train": {"lr": 0.1}}, True),
    "method": ({"method": "close"}, True),
    "the score": ({"score": {"kind": "bridge"}}, True),
    "width": ({"denoiser": {"width": 64, "blocks": 2}}, False),
    "steps": ({"train": {"steps": 100}}, False),
    "batch": ({"train": {"batch_size": 64}}, False),
    "joint, twice the examples": ({"bst": {"mode": "joint"}}, False),
    "no network": ({"method": "center"}, False),
    "changes": ({"changes": [{"step": 4, "values": {"train.lr": 0.02}}]}, False),
    "zero 1": ({"train": {"zero_stage": 1}}, False),
}


@pytest.mark.parametrize(("blocks", "same"), UNLIKE.values(), ids=UNLIKE.keys())
def test_shapes(blocks, same):
    other = shape_of(trial(**blocks))
    assert (other == shape_of(trial())) == same
    assert hash(other) is not None


def test_a_shape_knows_every_networks_depth():
    assert DiffusionLink.blocks == registry.METHODS["diffusion_link"].blocks
    assert shape_of(trial(method="diffusion_link")).blocks == DiffusionLink.blocks


def test_shapes_need_no_torch():
    code = "import sys, diffgap.training.shape; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_faster_way_is_measured_without_a_trace(small_store, tmp_path):
    ledger = Ledger(tmp_path)
    members = members_of(VARIED[:2], ledger)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    assert batch_is_faster(members, str(small_store), torch.device("cpu")) in (True, False)
    assert torch.get_rng_state().equal(before)
    assert not list(tmp_path.iterdir())


def test_in_turn_is_bitwise_as_in_fresh_processes(small_store, tmp_path):
    """The third trial of a process, with one that failed before it."""
    bad = trial(2, {"lr": 1.0, "gradient_clipping": 0}, loss={"condition_noise": 1e30})
    ledger = Ledger(tmp_path / "turn")
    with process_group(torch.device("cpu")):
        alone([trial(0, SHORT)], small_store, ledger.output)
        with pytest.raises(DivergedError):
            run_trial(bad, name(1), str(small_store), ledger, HostThat(ledger.trial(name(1))))
        run_case(str(small_store), tmp_path, CASE | {"name": "turn"})
    script = Path(__file__).with_name("worker.py")
    subprocess.run(
        [sys.executable, script, small_store, tmp_path, "0", "1"], check=True, text=True,
        input=json.dumps(CASE | {"name": "fresh"}), env={**os.environ, "LOCAL_RANK": "0"},
    )  # fmt: skip
    turn, fresh = (Ledger(tmp_path / n).trial(SIGNATURE) for n in ("turn", "fresh"))
    weights = load_file(fresh.bridge / "bridge.safetensors")
    for key, value in load_file(turn.bridge / "bridge.safetensors").items():
        assert value.equal(weights[key]), key
    assert turn.history() == fresh.history()


CASE = {"trial": trial(3, {"steps": 12, "epoch_steps": 4}).model_dump(mode="json")}


def test_two_workers_batch_as_one_does(small_store, tmp_path):
    trials = [trial(0, SHORT), trial(1, {**SHORT, "lr": 1e-4}), trial(2, SHORT)]
    trials[2] = trial(2, {**SHORT, "lr": 1.0}, loss={"condition_noise": 1e30})
    fields = [each.model_dump(mode="json") for each in trials]
    script = Path(__file__).with_name("worker.py")
    group = [
        subprocess.Popen(
            [sys.executable, script, small_store, tmp_path, str(rank), "2"], text=True,
            stdin=subprocess.PIPE,
            env={**os.environ, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in group:
            process.stdin.write(json.dumps({"name": "pair", "batch": fields}))
            process.stdin.close()
        assert [process.wait(timeout=200) for process in group] == [0, 0]
    finally:
        for process in group:
            process.kill()
    pair, single = Ledger(tmp_path / "pair"), Ledger(tmp_path / "single")
    assert "step 0: the loss is" in (tmp_path / "pair" / "ends-1.txt").read_text()
    assert not pair.trial(name(2)).finished
    alone(trials[:2], small_store, single.output)
    for number in range(2):
        found = losses(pair.trial(name(number))), losses(single.trial(name(number)))
        assert np.abs(found[0] / found[1] - 1).max() < 1e-5


def test_a_process_of_many_trials_keeps_nothing_of_them(small_store, tmp_path):
    """Not even until the garbage collector comes by: on a GPU that would be too late."""
    alive = []
    gc.collect()
    gc.disable()
    try:
        with process_group(torch.device("cpu")):
            for number in range(3):
                alone([trial(number, SHORT)], small_store, tmp_path / str(number))
                batched(
                    members_of([trial(number + 10, SHORT), trial(number + 20, SHORT)],
                               ledger := Ledger(tmp_path / f"batch {number}")),
                    small_store, ledger,
                )  # fmt: skip
                kinds = map(type, gc.get_objects())  # for some are references to what is gone
                alive.append(sum(issubclass(kind, torch.nn.Parameter) for kind in kinds))
    finally:
        gc.enable()
    assert alive[0] == alive[2]


def test_a_cpu_takes_trials_in_turn_without_measuring(small_store, tmp_path, monkeypatch):
    monkeypatch.setattr(autotune, "batch_is_faster", None)
    assert not batch_pays(members_of(VARIED[:2], Ledger(tmp_path)), str(small_store))


@pytest.mark.parametrize("faster", [True, False])
def test_a_gpu_measures_once_a_shape_and_size(tmp_path, monkeypatch, faster):
    measured = []
    monkeypatch.setattr(autotune, "_decisions", {})
    monkeypatch.setattr(
        autotune, "batch_is_faster", lambda members, *_: measured.append(len(members)) or faster
    )
    members = members_of(VARIED, Ledger(tmp_path))
    for member in members:
        member.context.device = torch.device("cuda")
    for size in (2, 8, 4, 2, 5):  # of four and more, four are measured
        assert batch_pays(members[:size], "store") == faster
    assert measured == [2, 8]
