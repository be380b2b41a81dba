"""What runs on the cluster: Tune's driver of a pack of trials, and the Ray Train job it starts.

A pack with one worker trains in its driver's own process, which serves one pack after another; a
pack with several workers, and a trial that is kept apart (`resources.pack: off`), get processes of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffgap.io.paths import RemotePath, remove
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.ledger.logs import log_file, trial_log
from diffgap.training.failures import reason_of

JOB = "job"
"""Tune's one parameter: everything a pack's workers need, as plain data."""

SIGNATURE_KEY, STATE_KEY = "signature", "state"
"""What a worker reports: whose news it is, and whether it is the first or the last of them."""

BEGUN, GOES_ON, ENDED = "begun", "goes on", "ended"

HISTORY_KEY, STEP_KEY = "history", "step"
"""The points since the trial's last report, and the steps done."""


class TrialFailedError(RuntimeError):
    """A trial that failed and could not note why."""


def drive(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: runs one pack as a Ray Train job, and cleans up behind it.

    It needs no state of Ray's: the ledger has the trials' checkpoints, and why they failed. Tune
    restarts it where its process is lost.
    """
    pack = config[JOB]
    if pack["apart"]:
        _fit_apart(pack)
    elif _left(pack):
        _fit(pack)


def train_pack(pack: dict[str, Any]) -> None:
    """Ray Train's training function: one worker of one pack."""
    from diffgap.sweep.pack import run_pack
    from diffgap.sweep.worker import WorkerContext

    run_pack(pack, WorkerContext.of_worker() if pack["apart"] else WorkerContext.of_driver())


def _fit(pack: dict[str, Any]) -> None:
    """Runs a pack's Ray Train job: apart, or with no workers, which is in this very process."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.tune.integration.ray_train import TuneReportCallback

    from diffgap.compat.ray_train import LeanTrainer

    first = Ledger.at(pack["output"]).trial(pack["members"][0]["signature"])
    if pack["apart"]:
        scaling, callbacks = pack["scaling"], [TuneReportCallback()]
    else:  # the callback would start a process, and slow each report down by a fifth of a second
        scaling, callbacks = {**pack["scaling"], "num_workers": 0}, []
    with _scratch(first) as storage:
        LeanTrainer(
            train_pack,
            train_loop_config=pack,
            scaling_config=ScalingConfig(**scaling),
            run_config=RunConfig(
                name="run",
                failure_config=FailureConfig(max_failures=pack["retries"]),
                callbacks=callbacks,
                **storage,
                **_environment(pack),
            ),
        ).fit()


def _fit_apart(pack: dict[str, Any]) -> None:
    """Runs a pack in processes of its own, as often as it takes.

    Ray Train gives a job up after `retries` lost workers. Each loss counts for the trial that was
    under way: one that has had its attempts is failed, and the others go on in another job.
    """
    from ray.train import TrainingFailedError

    while left := _left(pack):
        before = {name: record.attempts for name, record in left.items()}
        try:
            _fit({**pack, "members": [j for j in pack["members"] if j["signature"] in left]})
        except TrainingFailedError as error:
            begun = [name for name, record in left.items() if record.attempts > before[name]]
            spent = [name for name in begun if left[name].attempts > pack["retries"]]
            for name in spent if begun else left:  # it may never have come to a trial
                if not left[name].ended:
                    _note_failure(left[name], error, pack["retries"])
        else:
            return  # what has not ended has paused


def _left(pack: dict[str, Any]) -> dict[str, TrialRecord]:
    """The trials of a pack that have not come to their ends, by signature."""
    ledger = Ledger.at(pack["output"])
    names = [job["signature"] for job in pack["members"] if not job["taken"]]
    return {name: record for name in names if not (record := ledger.trial(name)).ended}


def _environment(pack: dict[str, Any]) -> dict[str, Any]:
    """Variables of the workers' processes; without any, idle processes serve again."""
    if not (pack["environment"] and pack["apart"]):
        return {}
    return {"worker_runtime_env": {"env_vars": pack["environment"]}}


@contextmanager
def _scratch(record: TrialRecord) -> Iterator[dict[str, Any]]:
    """A place for Ray Train's own notes, which every worker looks for and nobody reads."""
    place = record.path / "ray"
    remove(place)
    if isinstance(place, RemotePath):
        yield {"storage_path": place.key, "storage_filesystem": place.filesystem}
    else:
        yield {"storage_path": str(place)}
    remove(place)


def _note_failure(record: TrialRecord, error: Exception, retries: int) -> None:
    """Keeps why Ray Train gave a trial up, unless a worker has said so itself."""
    from ray.exceptions import RayActorError

    with log_file(record.log, "driver") as said, trial_log(said, "driver") as log:
        log.error("Ray Train gives up: %s", error)
    causes = list(getattr(error, "worker_failures", {}).values())
    if early := getattr(error, "controller_failure", None):  # while the workers were set up
        causes.append(getattr(early, "cause", None) or early)
    cause = next((c for c in causes if not isinstance(c, RayActorError)), None)
    reason = f"{reason_of(cause or error)} (tried {retries + 1} times)"
    if cause is None and causes:
        reason = f"lost its workers {retries + 1} times, the last time: {reason_of(causes[0])}"
    try:
        record.fail(reason)
    except OSError:  # a full disk, say
        raise TrialFailedError(reason) from error
