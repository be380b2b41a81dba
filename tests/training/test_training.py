"""One trial on real DeepSpeed: it learns, resumes exactly, and does not mind its workers."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from diffgap.bridge.model import DiffGAP
from diffgap.errors import UserError
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Train, Trial
from diffgap.store.store import EmbeddingStore
from diffgap.training import loop
from diffgap.training.checkpoint import FILES, Checkpoints, digests
from diffgap.training.context import TrialContext
from diffgap.training.divergence import DivergedError
from diffgap.training.engine import Average, lr_factor, process_group
from diffgap.training.local import LocalTrialContext
from diffgap.training.loop import StoppedError
from diffgap.training.trial import run_trial

TRAIN = {"steps": 12, "batch_size": 32, "epoch_steps": 4, "precision": "fp32"}


def trial(**blocks):
    train = {**TRAIN, **blocks.pop("train", {})}
    return Trial.model_validate(
        {"task": "text-audio", "seed": 3, "denoiser": {"width": 32, "blocks": 2},
         "train": train, "score": {"top_k": 5}, **blocks}
    )  # fmt: skip


def run(spec, store, path, on_epoch=lambda progress: None):
    ledger = Ledger(path)
    record = ledger.trial("0123456789ab")
    run_trial(spec, "0123456789ab", str(store), ledger, LocalTrialContext(record, on_epoch))
    return record


def figures(record):
    """A trial's metrics without its wall-clock."""
    return {n: v for n, v in record.metrics().items() if n != "cost/train_seconds"}


def weights(record):
    return load_file(record.bridge / "bridge.safetensors")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the trial may catch it."""


CELLS = {
    "cdm+bst": {},
    "cdm": {"bst": {"enabled": False}},
    "bst": {"cdm": {"enabled": False}},
    "bf16": {"train": {"precision": "bf16"}},
    "zero 2": {"train": {"zero_stage": 2}},
    "zero 3": {"train": {"zero_stage": 3}},
    "diffusion_ret": {"method": "diffusion_ret"},
}


@pytest.mark.parametrize("blocks", CELLS.values(), ids=CELLS.keys())
def test_a_killed_and_resumed_trial_equals_an_uninterrupted_one(tmp_path, small_store, blocks):
    spec = trial(**blocks)
    whole = run(spec, small_store, tmp_path / "whole")

    def kill(progress):
        if progress.step == 8:
            raise Killed

    with pytest.raises(Killed):
        run(spec, small_store, tmp_path / "killed", kill)
    resumed = run(spec, small_store, tmp_path / "killed")

    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    assert figures(resumed) == figures(whole)
    assert resumed.metrics()["cost/train_seconds"] > 0
    assert resumed.history() == whole.history()


def test_a_trial_leaves_a_whole_bridge_checkpoint(tmp_path, small_store):
    record = run(trial(), small_store, tmp_path)
    assert record.finished
    config = json.loads((record.bridge / "config.json").read_text())
    assert config["signature"] == "0123456789ab"
    assert config["trial"]["train"]["steps"] == 12
    assert config["packages"]["deepspeed"] != "not installed"
    ranks = pq.read_table(record.bridge / "ranks.parquet")
    pairs = EmbeddingStore.open(small_store).pairs("text-audio", "test")
    assert len(ranks) == len(pairs.x) + len(pairs.a)
    assert len(pq.read_table(record.bridge / "gap.parquet")) == len(pairs.x)  # few enough for all
    hits = ranks.filter(np.array(ranks["direction"].to_pylist()) == "text_to_audio")["rank"]
    assert record.metrics()["test/text_to_audio/R5"] == pytest.approx(
        100 * np.mean(hits.to_numpy() <= 5)
    )
    assert DiffGAP.from_pretrained(record.bridge).directions == (0, 1)
    steps = [p["step"] for p in record.history() if "train/loss" in p["metrics"]]
    assert steps == list(range(1, 13))


def test_training_learns_what_it_is_asked_to(tmp_path, small_store):
    spec = trial(train={"steps": 150, "epoch_steps": 150, "ema": 0.9})
    losses = [
        p["metrics"]["train/loss"]
        for p in run(spec, small_store, tmp_path).history()
        if "train/loss" in p["metrics"]
    ]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])


def test_the_frozen_baseline_scores_by_cosine(tmp_path, small_store):
    record = run(trial(cdm={"enabled": False}, bst={"enabled": False}), small_store, tmp_path)
    pairs = EmbeddingStore.open(small_store).pairs("text-audio", "test")
    scores = pairs.x @ pairs.a.T
    ranks = 1 + (scores > scores[np.arange(len(pairs.x)), pairs.owner][:, None]).sum(1)
    assert record.metrics()["test/text_to_audio/R1"] == pytest.approx(100 * np.mean(ranks == 1))
    assert record.history() == []


def test_seeds_differ_and_repeat(tmp_path, small_store):
    one = weights(run(trial(), small_store, tmp_path / "1"))
    again = weights(run(trial(), small_store, tmp_path / "2"))
    other = weights(run(trial().model_copy(update={"seed": 4}), small_store, tmp_path / "3"))
    assert all(again[name].equal(value) for name, value in one.items())
    assert not other["denoiser.output.weight"].equal(one["denoiser.output.weight"])


def test_a_diverging_trial_ends_with_step_loss_and_cause_and_leaves_nothing(tmp_path, small_store):
    spec = trial(train={"lr": 1.0, "gradient_clipping": 0}, loss={"condition_noise": 1e30})
    with pytest.raises(
        DivergedError, match=r"step \d+: the loss is .*; loss\.condition_noise 1e\+30"
    ):
        run(spec, small_store, tmp_path)
    assert not Ledger(tmp_path).trial("0123456789ab").finished


def test_a_trial_that_differs_in_its_score_is_not_trained_again(tmp_path, small_store):
    first = run(trial(score={"kind": "rerank", "top_k": 5}), small_store, tmp_path)
    ledger, other = Ledger(tmp_path), trial(score={"kind": "bridge"})
    record = ledger.trial("ba9876543210")

    def trains(progress):
        raise AssertionError("it trained")

    run_trial(other, "ba9876543210", str(small_store), ledger, LocalTrialContext(record, trains))
    assert all(weights(record)[name].equal(value) for name, value in weights(first).items())
    assert record.history() == first.history()
    assert record.metrics()["cost/train_seconds"] == first.metrics()["cost/train_seconds"]
    assert DiffGAP.from_pretrained(record.bridge).config.score.kind == "bridge"
    alone = run(other, small_store, tmp_path / "alone")
    assert figures(alone) == figures(record)


@pytest.mark.parametrize(
    "method", ["none", "center", "mean_shift", "close", "diffusion_bridge", "diffusion_link"]
)
def test_every_sibling_is_a_trial_like_others(tmp_path, small_store, method):
    record = run(trial(method=method, train={"steps": 4}), small_store, tmp_path)
    metrics = record.metrics()
    assert 0 <= metrics["test/text_to_audio/R5"] <= 100
    assert ("gap/after/mean_distance" in metrics) == (method != "none")
    assert (metrics["cost/parameters"] > 0) == (method in ("close", "diffusion_bridge",
                                                           "diffusion_link"))  # fmt: skip
    names = {name for point in record.history() for name in point["metrics"]}
    assert ("train/topology" in names) == (method == "diffusion_link")


def test_any_two_columns_can_be_bridged(tmp_path, small_store):
    spec = trial(train={"steps": 4}).model_copy(update={"task": "text-video"})
    assert run(spec, small_store, tmp_path).metrics()["test/video_to_text/R5"] >= 0


def test_a_bridge_can_be_evaluated_on_val(tmp_path, small_store):
    metrics = run(trial(train={"steps": 4}).model_copy(update={"split": "val"}), small_store,
                  tmp_path).metrics()  # fmt: skip
    assert any(name.startswith("val/") for name in metrics)
    assert not any(name.startswith("test/") for name in metrics)


def test_a_trial_that_pauses_goes_on_to_the_same_weights(tmp_path, small_store):
    whole = run(trial(), small_store, tmp_path / "whole")
    ledger = Ledger(tmp_path / "paused")
    record = ledger.trial("0123456789ab")
    context = TrialContext(record, torch.device("cpu"), until=8)
    with pytest.raises(StoppedError, match="stopped after step 8"):
        run_trial(trial(), "0123456789ab", str(small_store), ledger, context)
    assert not record.finished
    assert record.progress["step"] == 8
    resumed = run(trial(), small_store, tmp_path / "paused")
    assert all(weights(resumed)[name].equal(value) for name, value in weights(whole).items())


def test_the_weights_that_were_best_on_val_are_evaluated(tmp_path, small_store, monkeypatch):
    """Whatever the last epoch is worth, and across a restart."""
    values = iter([40.0, 60.0, 50.0])
    monkeypatch.setattr(loop, "selection_score", lambda metrics: next(values))
    seen = {}

    def keep(progress):
        path = Checkpoints(Ledger(tmp_path).trial("0123456789ab").checkpoints).latest()
        seen[progress.step] = load_file(path / "average.safetensors")
        if progress.step == 8 and len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(trial(), small_store, tmp_path, keep)
    record = run(trial(), small_store, tmp_path, keep)
    assert {n: v for n, v in record.metrics().items() if n.startswith("best/")} == {
        "best/step": 8, "best/val_R5": 60.0,
    }  # fmt: skip
    assert all(weights(record)[name].equal(value) for name, value in seen[8].items())
    assert not all(weights(record)[name].equal(value) for name, value in seen[12].items())


def killed_at(step, spec, store, path):
    """The latest checkpoint of a trial that was killed there."""

    def kill(progress):
        if progress.step == step:
            raise Killed

    with pytest.raises(Killed):
        run(spec, store, path, kill)
    return Checkpoints(Ledger(path).trial("0123456789ab").checkpoints).latest()


def test_a_checkpoint_is_plain_tensors(tmp_path, small_store):
    path = killed_at(8, trial(), small_store, tmp_path)
    assert sorted(file.name for file in path.iterdir()) == [
        "average.safetensors", "best.safetensors", "files.json", "optimizer.safetensors",
        "progress.json", "weights.safetensors",
    ]  # fmt: skip
    found, moments = (load_file(path / f"{n}.safetensors") for n in ("weights", "optimizer"))
    assert {f"{n}.{m}" for n in found for m in ("exp_avg", "exp_avg_sq")} == moments.keys()
    assert all(moments[f"{name}.exp_avg"].shape == value.shape for name, value in found.items())


@pytest.mark.parametrize("part", ["weights.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_without_weights_or_moments_is_refused(tmp_path, small_store, part):
    path = killed_at(8, trial(), small_store, tmp_path)
    (path / part).unlink()
    (path / FILES).write_text(json.dumps(digests(path)))  # as if it had been written so
    with pytest.raises(UserError, match="weights or moments are missing; use --fresh"):
        run(trial(), small_store, tmp_path)


CHANGED = {
    "changes": [
        {"step": 4, "values": {"train.lr": 0.02, "loss.condition_noise": 0.1}},
        {"step": 8, "values": {"train.lr": 0.001, "bst.fraction": 0.7}},
    ]
}


def test_hyperparameters_may_change_on_the_way(tmp_path, small_store):
    """Each change is in force from its step on, also after a restart, and before it nothing is."""
    spec = trial(**CHANGED)
    plain, changed = (
        run(trial(), small_store, tmp_path / "a"),
        run(spec, small_store, tmp_path / "b"),
    )

    def points(record, name):
        return [p["metrics"][name] for p in record.history() if name in p["metrics"]]

    assert points(plain, "train/loss")[:4] == points(changed, "train/loss")[:4]
    assert points(plain, "train/loss")[4:] != points(changed, "train/loss")[4:]
    rates = np.divide(points(changed, "train/lr"), points(plain, "train/lr"))
    assert rates == pytest.approx([1] * 4 + [10] * 4 + [0.5] * 4)

    def kill(progress):
        if progress.step == 8:
            raise Killed

    with pytest.raises(Killed):
        run(spec, small_store, tmp_path / "c", kill)
    resumed = run(spec, small_store, tmp_path / "c")
    assert all(weights(resumed)[name].equal(value) for name, value in weights(changed).items())


def test_learning_rate_schedules():
    for schedule in ("cosine", "one_cycle"):
        train = Train(steps=100, warmup=0.1, lr_schedule=schedule)
        factors = [lr_factor(train, step) for step in range(101)]
        assert max(factors) == pytest.approx(1)
        assert factors.index(max(factors)) == 10
        assert factors[0] < 0.15
        assert factors[100] == pytest.approx(0)
        assert factors[55] == pytest.approx(0.5)


def test_the_average_follows_its_formula():
    model, twin = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    twin.load_state_dict(model.state_dict())
    average = Average(twin, decay=0.8)
    expected = model.weight.item()
    for step in range(100):
        with torch.no_grad():
            model.weight += 0.1
        decay = min(0.8, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * model.weight.item()
        average.update(model, step, zero_stage=0)
    assert twin.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_process_group_of_one_is_closed_again():
    with process_group(torch.device("cpu")):
        assert torch.distributed.get_world_size() == 1
    assert not torch.distributed.is_initialized()
