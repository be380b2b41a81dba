"""Data-parallel trials on real DeepSpeed: what workers, ZeRO and micro-batches do not change.

All trials of one number of workers run in one group of processes, one after another.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from worker import CONVERTER, SIGNATURE, run_case

from diffgap.bridge.objective import Batch
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Train, Trial
from diffgap.training import engine
from diffgap.training.checkpoint import FILES, Checkpoints, broken, digests, read_progress

STEPS, PAUSE = 12, 6
SAVED_APART = (0, 1, 3)
"""ZeRO stages with checkpoints of their own form; 2 saves as 1 does."""


def case(name, until=None, converter=CONVERTER, **train):
    """One trial for `worker.py`."""
    train = {"steps": STEPS, "epoch_steps": PAUSE, "batch_size": 48, "precision": "fp32", **train}
    trial = Trial(
        task="text-audio", seed=3, denoiser={"width": 32, "blocks": 2}, train=train,
        score={"top_k": 5},
    )  # fmt: skip
    fields = trial.model_dump(mode="json")
    return {"name": name, "until": until, "converter": converter, "trial": fields}


def run_group(store, out, workers, cases):
    """Runs the cases on so many workers, each a process."""
    script = Path(__file__).with_name("worker.py")
    lines = "\n".join(json.dumps(case) for case in cases)
    group = [
        subprocess.Popen(
            [sys.executable, script, store, out, str(rank), str(workers)],
            env={**os.environ, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, text=True,
        )
        for rank in range(workers)
    ]  # fmt: skip
    try:
        for process in group:
            process.stdin.write(lines)
            process.stdin.close()
        assert [process.wait(timeout=200) for process in group] == [0] * workers
    finally:
        for process in group:
            process.kill()


class Runs:
    """Trials that were run, by name."""

    def __init__(self, out):
        self.out = out

    def record(self, name):
        return Ledger(self.out / name).trial(SIGNATURE)

    def values(self, name, metric="train/loss"):
        """A metric's values over the trial."""
        points = [p["metrics"] for p in self.record(name).history()]
        return np.array([p[metric] for p in points if metric in p])

    def apart(self, name, other="alone"):
        """The largest relative difference of two trials' losses."""
        mine, others = self.values(name), self.values(other)
        assert len(mine) == len(others) == STEPS
        return float(np.max(np.abs(mine / others - 1)))

    def log(self, name):
        return self.record(name).log.read_text()

    def weights(self, name):
        return load_file(self.record(name).bridge / "bridge.safetensors")

    def checkpoints(self, name):
        return Checkpoints(self.record(name).checkpoints)


@pytest.fixture(scope="module")
def runs(small_store, tmp_path_factory):
    """Trials from their first step, of one worker and of two."""
    out = tmp_path_factory.mktemp("runs")
    run_case(str(small_store), out, case("alone"))
    pair = [case(f"zero {stage}", zero_stage=stage) for stage in range(4)]
    pair += [case(f"halves, zero {s}", accumulation=2, zero_stage=s) for s in range(4)]
    pair += [case(f"bf16, zero {s}", precision="bf16", zero_stage=s) for s in (1, 3)]
    pair += [
        case(f"again {s}", until=until, zero_stage=s) for s in (1, 3) for until in (PAUSE, None)
    ]
    pair += [case(f"paused {s}", until=PAUSE, zero_stage=s) for s in SAVED_APART]
    run_group(small_store, out, 2, pair)
    return Runs(out)


@pytest.fixture(scope="module")
def continued(runs, small_store):
    """The paused trials of two workers, gone on with one and three; of some the shares are lost."""
    lost = {"lost 1 on 1": "no.such.program", "lost 3 on 1": "this", "lost 1 on 3": CONVERTER}
    for name in [f"kept {s} on {workers}" for s in SAVED_APART for workers in (1, 3)] + [*lost]:
        shutil.copytree(runs.out / f"paused {name.split()[1]}", runs.out / name)
    damage(runs.checkpoints("lost 1 on 3").latest())

    def cases(workers):
        for stage in SAVED_APART:
            yield case(f"kept {stage} on {workers}", zero_stage=stage)
        for name, converter in lost.items():
            if name.endswith(str(workers)):
                yield case(name, converter=converter, zero_stage=int(name.split()[1]))

    for alone in cases(1):
        run_case(str(small_store), runs.out, alone)
    run_group(small_store, runs.out, 3, cases(3))
    return runs


def damage(checkpoint):
    """Spoils a share of the optimiser's state, so that only its reader finds out."""
    (share,) = checkpoint.glob("deepspeed/zero_pp_rank_1_*optim_states.pt")
    torch.save({}, share)
    (checkpoint / FILES).write_text(json.dumps(digests(checkpoint)))
    assert broken(checkpoint) is None


@pytest.mark.parametrize("stage", range(4))
def test_two_workers_train_as_one_does_in_every_zero_stage(runs, stage):
    assert runs.apart(f"zero {stage}") < 1e-4
    assert runs.apart(f"zero {stage}", "zero 0") < 1e-3
    alone = runs.weights("alone")
    for name, value in runs.weights(f"zero {stage}").items():
        assert torch.allclose(value, alone[name], atol=2e-4), name


def test_checkpoints_of_several_workers_are_whole(runs):
    for stage in range(4):
        kept = runs.checkpoints(f"zero {stage}")
        names = [path.name for path in sorted(kept.path.iterdir())]
        assert names == ["step-00000006", "step-00000012"]
        assert broken(kept.latest()) is None


@pytest.mark.parametrize("stage", [1, 3])
def test_two_workers_go_on_from_their_own_checkpoint(runs, stage):
    assert runs.apart(f"again {stage}") < 1e-4
    assert runs.log(f"again {stage}").count("worker 0 INFO: Training from step 6 to 12") == 1


@pytest.mark.parametrize("stage", [1, 3])
def test_zero_trains_in_bf16(runs, stage):
    assert 0 < runs.apart(f"bf16, zero {stage}") < 1e-2


@pytest.mark.parametrize("stage", range(4))
def test_two_workers_with_micro_batches_train_as_one_does(runs, stage):
    assert runs.apart(f"halves, zero {stage}") < 1e-5


@pytest.mark.parametrize("accumulation", [2, 4])
def test_micro_batches_are_smaller_and_change_nothing(runs, small_store, monkeypatch, accumulation):
    """Not even InfoNCE, whose negatives are those of the whole batch."""
    sizes, shard = [], Batch.shard
    monkeypatch.setattr(
        Batch, "shard", lambda *a: sizes.append(len((part := shard(*a)).target)) or part
    )
    name = f"{accumulation} parts"
    run_case(str(small_store), runs.out, case(name, accumulation=accumulation))
    assert sizes == [48 // accumulation] * (STEPS * accumulation)
    assert runs.apart(name) < 1e-5
    assert np.allclose(runs.values(name, "train/infonce"), runs.values("alone", "train/infonce"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("stage", SAVED_APART)
def test_a_trial_goes_on_with_another_number_of_workers(continued, stage, workers):
    name = f"kept {stage} on {workers}"
    assert continued.apart(name) < 1e-4
    alone = continued.weights("alone")
    for key, value in continued.weights(name).items():
        assert torch.allclose(value, alone[key], atol=2e-4), key
    rates = continued.values(name, "train/lr")
    assert np.allclose(rates, continued.values("alone", "train/lr"))
    said = "optimiser state is converted" if stage else "its whole state is resumed"
    assert continued.log(name).count(said) == 1
    assert "WARNING" not in continued.log(name)
    kept = continued.checkpoints(name)
    assert read_progress(kept.latest()).workers == workers
    assert not list(kept.path.glob(".*"))


LOST = {
    "lost 1 on 1": "RuntimeError: .* No module named 'no'",
    "lost 3 on 1": "AssertionError",
    "lost 1 on 3": "KeyError: 'optimizer_state_dict'",
}
"""Trials whose optimiser state cannot be converted: there is no converter, it gives nothing, and
it is given a share without that state."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LOST)
def test_where_conversion_fails_the_weights_go_on_and_the_log_says_so(continued, name):
    found = continued.values(name) / continued.values("alone") - 1
    assert np.abs(found[: PAUSE + 1]).max() < 1e-4  # the step after the pause has its weights
    assert 1e-3 < continued.apart(name) < 0.1  # what losing the optimiser's state does
    rates = continued.values(name, "train/lr")
    assert np.allclose(rates, continued.values("alone", "train/lr"))
    log = continued.log(name)
    reason = (
        "its weights are resumed, but the optimiser state restarts, because it could not be "
        "converted"
    )
    assert log.count(reason) == 1
    (line,) = [line for line in log.splitlines() if reason in line]
    assert line.startswith("worker 0 WARNING")
    assert re.search(LOST[name], line)


OFFLOADED = [(1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "parameters")]


@pytest.mark.parametrize(("stage", "offload"), OFFLOADED)
def test_deepspeed_takes_the_settings_for_a_gpu_with_offloading(stage, offload):
    """Given to it on a CPU, they need no compiler and train as without."""
    losses = []
    for settings in (Train(zero_stage=stage, batch_size=8),
                     Train(zero_stage=stage, batch_size=8, offload=offload)):  # fmt: skip
        with engine.process_group(torch.device("cpu")):
            losses.append(_fitted(engine.deepspeed_config(settings, 1, torch.device("cuda"))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1][-1] < losses[1][0]
    chosen = engine.deepspeed_config(settings, 1, torch.device("cuda"))["zero_optimization"]
    assert ("offload_param" in chosen) == (offload == "parameters")
    assert chosen["offload_optimizer"]["device"] == "cpu"


def _fitted(config):
    import deepspeed

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    x = torch.randn(8, 8)
    trained, optimizer, *_ = deepspeed.initialize(
        model=model, model_parameters=list(model.parameters()), config=config
    )
    assert type(optimizer.optimizer) is torch.optim.AdamW
    losses = []
    for _ in range(6):
        loss = (trained(x) - x).square().mean()
        trained.backward(loss)
        trained.step()
        losses.append(loss.item())
    trained.destroy()
    return losses


def test_without_a_gpu_offloading_is_left_out_and_the_log_says_so(caplog):
    settings = Train(zero_stage=3, offload="parameters", batch_size=8)
    device = torch.device("cpu")
    assert engine.deepspeed_config(settings, 1, device)["zero_optimization"] == {"stage": 3}
    with caplog.at_level("INFO"), engine.process_group(device):
        engine.make_engine(torch.nn.Linear(2, 2), settings, 1, device).destroy()
    assert "train.offload parameters has no effect here: there is no GPU" in caplog.text
