"""What goes through Ray arrives as it was sent."""

import json
from dataclasses import replace

from diffgap.spec import Trial
from diffgap.sweep.messages import PackJob, TrialEvent, TrialJob, TrialReport

TRIAL = Trial.model_validate({"task": "text-audio", "seed": 0, "train": {"steps": 4}})
PACK = PackJob(
    trials=(
        TrialJob("a", TRIAL, study="s", rungs=(2, 4), pause_at=2),
        TrialJob("b", TRIAL.model_copy(update={"seed": 1})),
    ),
    own_processes=True,
    pack_mode="auto",
    store="somewhere",
    output="s3://bucket/runs",
    scaling={"num_workers": 2, "resources_per_worker": {"CPU": 1}},
    retries=2,
    environment={"NCCL_SOCKET_IFNAME": "eth0"},
)


def test_a_pack_is_plain_data_on_its_way():
    assert PackJob.from_dict(json.loads(json.dumps(PACK.to_dict()))) == PACK


def test_a_part_of_a_pack_has_its_trials_only():
    assert replace(PACK, trials=PACK.trials[1:]).signatures == ["b"]


def test_a_report_is_told_from_what_tune_adds_to_it():
    report = TrialReport("a", TrialEvent.PROGRESS, 4, ({"step": 4, "metrics": {"loss": 0.5}},))
    result = {**report.to_dict(), "training_iteration": 1, "trial_id": "x"}
    assert TrialReport.from_result(result) == report
    assert TrialReport.from_result({"training_iteration": 1, "done": True}) is None
