"""Packs: how trials are dealt out, and that what befalls one of them is its own."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from ray.train import WorkerGroupError

from diffgap.ledger.ledger import Ledger
from diffgap.spec import Resources, Trial
from diffgap.sweep import driver
from diffgap.sweep import pack as packs
from diffgap.sweep.messages import JOB, PackJob, TrialEvent, TrialJob, TrialReport
from diffgap.sweep.packing import Packer
from diffgap.sweep.plan import planned_trial
from diffgap.sweep.worker import WorkerContext

TRIAL = {
    "task": "text-audio",
    "denoiser": {"width": 16, "blocks": 1},
    "train": {"steps": 4, "batch_size": 32, "epoch_steps": 2},
    "score": {"kind": "bridge"},
}


@dataclass
class ClusterCapacity:
    """A cluster of some slots."""

    slots: int
    gpus: float = 0.0
    joined: bool = False
    patience: float | None = None
    placement: SimpleNamespace = field(init=False)

    def __post_init__(self):
        self.placement = SimpleNamespace(gpus=self.gpus)

    def trials(self):
        return self.slots


def planned(seed, **blocks):
    return planned_trial(Trial.model_validate({**TRIAL, "seed": seed, **blocks}), {}, "store")


def sizes(packer):
    """The sizes of all packs, until none is left."""
    found = []
    while pack := packer.next():
        found.append(len(pack))
    assert packer.remaining == 0
    return found


def test_packs_get_smaller_towards_the_end_and_hold_every_trial_once():
    trials = [planned(seed) for seed in range(32)]
    packer, dealt = Packer(trials, Resources(), ClusterCapacity(2)), []
    while pack := packer.next():
        dealt.append(pack)
    assert [p.signature for pack in dealt for p in pack] == [p.signature for p in trials]
    lengths = [len(pack) for pack in dealt]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] <= 32 / 3 + 1
    assert lengths[-2:] == [1, 1]


@pytest.mark.parametrize(
    ("resources", "capacity", "expected"),
    [
        ({"pack": "off"}, ClusterCapacity(2), [1] * 8),
        ({"pack": 3}, ClusterCapacity(2), [3, 3, 2]),
        ({}, ClusterCapacity(1), [8]),
        ({}, ClusterCapacity(4, gpus=1.0), [2] * 4),
        ({}, ClusterCapacity(2, joined=True, patience=5.0), [1] * 8),
        ({"pack": 5}, ClusterCapacity(2, joined=True, patience=5.0), [5, 3]),
    ],
)
def test_what_is_asked_for_and_where_decides_how_large_packs_are(resources, capacity, expected):
    trials = [planned(seed) for seed in range(8)]
    packer = Packer(trials, Resources(**resources), capacity)
    assert packer.packs == len(expected)
    assert sizes(packer) == expected


def test_a_joined_cluster_leaves_something_for_a_node_that_comes_by():
    packer = Packer(
        [planned(seed) for seed in range(9)], Resources(), ClusterCapacity(1, joined=True)
    )
    assert sizes(packer)[0] == 3


def test_trials_of_unlike_shapes_are_in_packs_of_their_own():
    wide = {"denoiser": {"width": 32, "blocks": 1}}
    trials = [planned(0), planned(1, **wide), planned(2, method="center"), planned(3)]
    packer = Packer(trials, Resources(pack=4), ClusterCapacity(2))
    assert [[p.trial.seed for p in packer.next()] for _ in range(3)] == [[0, 3], [1], [2]]


class ThreeSeeds:
    """A pack of three seeds, and what it reports."""

    def __init__(self, place, store, retries=2):
        self.ledger, self.reports = Ledger(place), []
        self.trials = [planned(seed) for seed in range(3)]
        self.job = PackJob(
            trials=tuple(TrialJob(p.signature, p.trial) for p in self.trials),
            own_processes=False,
            pack_mode="in_turn",
            store=str(store),
            output=str(place),
            scaling={},
            retries=retries,
            environment={},
        )
        self.records = [self.ledger.trial(p.signature) for p in self.trials]
        for record in self.records:
            record.begin({})

    def run(self):
        packs.run_pack(self.job, WorkerContext(torch.device("cpu"), 0, 1, self.reports.append))

    def count(self, number, event):
        """How often an event of a trial was reported."""
        reports = map(TrialReport.from_result, self.reports)
        events = [r.event for r in reports if r.signature == self.trials[number].signature]
        return events.count(event)


def breaking(monkeypatch, signature, error):
    """Lets one trial run into an error; the others are as they are."""
    real = packs.run_trial

    def run(trial, name, *rest):
        if name == signature:
            raise error
        real(trial, name, *rest)

    monkeypatch.setattr(packs, "run_trial", run)


def test_an_error_that_would_come_again_fails_its_trial_alone(tmp_path, small_store, monkeypatch):
    pack = ThreeSeeds(tmp_path, small_store)
    breaking(monkeypatch, pack.trials[1].signature, ValueError("bad data"))
    pack.run()
    assert [record.finished for record in pack.records] == [True, False, True]
    assert pack.records[1].failure == "bad data"
    assert [pack.count(i, TrialEvent.STARTED) for i in range(3)] == [1, 1, 1]
    assert [pack.count(i, TrialEvent.ENDED) for i in range(3)] == [1, 1, 1]
    assert not list((tmp_path / "trials").glob("*/checkpoints"))


def test_an_error_that_may_get_better_is_tried_again_and_then_given_up(
    tmp_path, small_store, monkeypatch
):
    pack = ThreeSeeds(tmp_path, small_store, retries=1)
    breaking(monkeypatch, pack.trials[1].signature, OSError("connection lost"))
    with pytest.raises(OSError, match="connection lost"):
        pack.run()
    assert [record.ended for record in pack.records] == [True, False, False]
    pack.run()  # as Ray does, in another process
    assert [record.finished for record in pack.records] == [True, False, True]
    assert pack.records[1].failure == "OSError: connection lost (tried 2 times)"
    assert pack.count(0, TrialEvent.STARTED) == 1  # what had ended is not begun again


def test_a_trial_that_takes_its_process_with_it_is_given_up(tmp_path, small_store):
    pack = ThreeSeeds(tmp_path, small_store, retries=2)
    for _ in range(3):
        pack.records[0].record_attempt()  # each ended without a word
    pack.run()
    assert "its process was lost 3 times" in pack.records[0].failure
    assert [record.finished for record in pack.records] == [False, True, True]


def test_each_trial_of_a_pack_has_a_log_of_its_own(tmp_path, small_store):
    pack = ThreeSeeds(tmp_path, small_store)
    pack.run()
    for record in pack.records:
        assert record.log.read_text().count("Finished") == 1


def batched(place, store):
    pack = ThreeSeeds(place, store)
    pack.job = replace(pack.job, pack_mode="batched")
    return pack


def test_trials_that_train_at_once_have_logs_of_their_own_too(tmp_path, small_store):
    pack = batched(tmp_path, small_store)
    pack.run()
    assert [record.finished for record in pack.records] == [True] * 3
    assert [pack.count(i, TrialEvent.ENDED) for i in range(3)] == [1, 1, 1]
    for record in pack.records:
        said = record.log.read_text()
        assert (said.count("Finished"), said.count("R@5 on val")) == (1, 2)


def test_a_batch_that_does_not_fit_a_gpu_is_halved(tmp_path, small_store, monkeypatch):
    pack, sizes, real = batched(tmp_path, small_store), [], packs.run_batched

    def run(members, *rest):
        sizes.append(len(members))
        if len(members) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(members, *rest)

    monkeypatch.setattr(packs, "run_batched", run)
    pack.run()
    assert sizes == [3, 2, 1, 1, 1]
    assert [record.finished for record in pack.records] == [True] * 3
    assert [record.attempts for record in pack.records] == [1, 1, 1]


def test_a_trial_that_does_not_fit_by_itself_fails_and_says_what_helps(
    tmp_path, small_store, monkeypatch
):
    pack = batched(tmp_path, small_store)

    def run(members, *rest):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(packs, "run_batched", run)
    with pytest.raises(torch.OutOfMemoryError):
        pack.run()
    assert "out of GPU memory; raise train.accumulation" in pack.records[0].failure
    assert pack.count(0, TrialEvent.ENDED) == 1


def test_an_error_of_the_whole_batch_is_tried_again(tmp_path, small_store, monkeypatch):
    pack = batched(tmp_path, small_store)
    with monkeypatch.context() as broken:
        broken.setattr(packs, "run_batched", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
        with pytest.raises(OSError, match="no disk"):
            pack.run()
    assert not any(record.ended for record in pack.records)
    pack.run()
    assert [record.finished for record in pack.records] == [True] * 3
    assert [record.attempts for record in pack.records] == [2, 2, 2]


def fitting(monkeypatch, *outcomes):
    """Stands for Ray Train: each job begins its first trial; returns the signatures of each."""
    jobs, remaining = [], list(outcomes)

    def fit(pack):
        jobs.append(pack.signatures)
        Ledger.at(pack.output).trial(jobs[-1][0]).record_attempt()
        if error := remaining.pop(0):
            raise error

    monkeypatch.setattr(driver, "_fit", fit)
    return jobs


def drive_apart(job):
    driver.drive({JOB: replace(job, own_processes=True).to_dict()})


def test_a_pack_apart_whose_trials_pause_is_not_begun_again(tmp_path, small_store, monkeypatch):
    """As population-based training has it, at the end of a generation."""
    pack = ThreeSeeds(tmp_path, small_store)
    jobs = fitting(monkeypatch, None)
    drive_apart(pack.job)
    assert len(jobs) == 1
    assert not any(record.ended for record in pack.records)


def test_a_pack_apart_gives_up_the_trial_that_loses_its_workers(tmp_path, small_store, monkeypatch):
    pack = ThreeSeeds(tmp_path, small_store, retries=1)
    lost = WorkerGroupError("workers died", {0: OSError("connection reset")})
    jobs = fitting(monkeypatch, lost, lost, None)
    drive_apart(pack.job)
    assert [len(signatures) for signatures in jobs] == [3, 3, 2]
    assert pack.records[0].failure == "OSError: connection reset (tried 2 times)"
    assert not any(record.ended for record in pack.records[1:])
