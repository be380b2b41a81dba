"""What runs on the cluster: a Tune driver a trial, and the Ray Train workers it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffgap.ledger import Ledger, TrialRecord
from diffgap.places import RemotePath, remove
from diffgap.spec import Trial
from diffgap.training.faults import is_hopeless, reason_of
from diffgap.training.trial_log import capture_output, log_file, trial_log

JOB = "job"
"""Tune's one parameter: everything a trial's worker needs, as plain data."""

HISTORY_KEY, STEP_KEY = "history", "step"
"""What a worker reports: the points since its last report, and the steps done."""


class TrialFailedError(RuntimeError):
    """A trial that failed and could not note why."""


def train_worker(job: dict[str, Any]) -> None:
    """Ray Train's training function: one worker of one trial.

    An error that would come again ends the trial with a note in the ledger: with one worker at
    once, with several by an error, on which Ray ends the others, and an attempt that reads the
    note. Other errors are Ray's to try again.
    """
    from diffgap.sweep.host import RayHost
    from diffgap.training.loop import StoppedError
    from diffgap.training.trial import run_trial

    ledger = Ledger.at(job["output"])
    record = ledger.trial(job["signature"])
    host = RayHost(record, job)
    speaker = f"worker {host.rank}"
    with log_file(record.log, speaker) as said, trial_log(said, speaker) as log:
        capture_output(said)
        if record.failure:
            return
        try:
            trial = Trial.model_validate(job["trial"])
            run_trial(trial, job["signature"], job["store"], ledger, host)
            log.info("Finished")
        except StoppedError as stop:
            log.info("%s", stop)
        except Exception as error:
            log.exception("The attempt ends in an error")
            if not is_hopeless(error):
                raise
            record.fail(reason_of(error))
            if host.workers > 1:
                raise


def drive(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: runs one trial as a Ray Train job, and cleans up behind it.

    It needs no state of Ray's: the ledger has the trial's checkpoints, and why it failed. Tune
    restarts it where its process is lost.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    from diffgap.sweep.lean import LeanTrainer

    job = config[JOB]
    record = Ledger.at(job["output"]).trial(job["signature"])
    if job["taken"] or record.finished or record.stop or record.failure:
        return
    with _scratch(record) as storage:
        trainer = LeanTrainer(
            train_worker,
            train_loop_config=job,
            scaling_config=ScalingConfig(**job["scaling"]),
            run_config=RunConfig(
                name="run",
                failure_config=FailureConfig(max_failures=job["retries"]),
                callbacks=[TuneReportCallback()],
                **storage,
                **_environment(job),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            _note_failure(record, error, job["retries"])
    if record.finished:
        remove(record.checkpoints)


def _environment(job: dict[str, Any]) -> dict[str, Any]:
    """Variables of the workers' processes; without any, idle processes serve again."""
    if not job["environment"]:
        return {}
    return {"worker_runtime_env": {"env_vars": job["environment"]}}


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
    if record.failure:
        return
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
