"""Driver of a pack of trials: Ray Tune's trainable, and the Ray Train job that it starts.

A pack with one worker trains in its driver's process, which serves one pack after another. A pack
with several workers, and a trial with `resources.pack: off`, get processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from diffgap.io.paths import RemotePath, remove
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.ledger.logs import log_file, trial_log
from diffgap.sweep.messages import JOB, PackJob, TrialJob
from diffgap.training.failures import reason_of


class TrialFailedError(RuntimeError):
    """A trial failed, and the reason could not be written to the ledger."""


def drive(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: runs one pack, resuming from the ledger where Tune restarts it."""
    pack = PackJob.from_dict(config[JOB])
    if pack.own_processes:
        _fit_in_own_processes(pack)
    elif _remaining(pack):
        _fit(pack)


def train_pack(config: dict[str, Any]) -> None:
    """Ray Train's training function: one worker of one pack."""
    from diffgap.sweep.pack import run_pack  # torch, which not every driver needs
    from diffgap.sweep.worker import WorkerContext

    pack = PackJob.from_dict(config)
    run_pack(pack, WorkerContext.of_worker() if pack.own_processes else WorkerContext.of_driver())


def _fit(pack: PackJob) -> None:
    """Runs a pack's Ray Train job; without workers, it runs in this very process."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.tune.integration.ray_train import TuneReportCallback

    from diffgap.cluster.guard import local_folder
    from diffgap.compat.ray_train import LeanTrainer, OneMachineConfig

    first = Ledger.at(pack.output).trial(pack.trials[0].signature)
    scaling, callbacks, environment = pack.scaling, [TuneReportCallback()], pack.environment
    if not pack.own_processes:
        # The callback would start a process, and slow each report down by a fifth of a second.
        scaling, callbacks, environment = {**scaling, "num_workers": 0}, [], {}
    folder = local_folder()
    if folder:  # which has chosen the network already: loopback
        environment = {n: v for n, v in environment.items() if not n.endswith("_SOCKET_IFNAME")}
    with _scratch(first) as storage:
        LeanTrainer(
            train_pack,
            train_loop_config=pack.to_dict(),
            torch_config=OneMachineConfig(folder) if folder else None,
            scaling_config=ScalingConfig(**scaling),
            run_config=RunConfig(
                name="run",
                failure_config=FailureConfig(max_failures=pack.retries),
                callbacks=callbacks,
                # Without a runtime environment, Ray reuses idle processes.
                worker_runtime_env={"env_vars": environment} if environment else None,
                **storage,
            ),
        ).fit()


def _fit_in_own_processes(pack: PackJob) -> None:
    """Runs a pack in processes of its own, in as many jobs as it takes.

    Where Ray Train gives one up, the trial that used up its attempts fails, and the others continue
    in another.
    """
    from ray.train import TrainingFailedError

    ledger = Ledger.at(pack.output)
    while jobs := _remaining(pack):
        records = [ledger.trial(job.signature) for job in jobs]
        attempts = [record.attempts for record in records]
        try:
            _fit(replace(pack, trials=jobs))
        except TrainingFailedError as error:
            started = [r for r, count in zip(records, attempts, strict=True) if r.attempts > count]
            # A job that never came as far as a trial would not the next time either.
            for record in started or records:
                if not record.ended and not (started and record.attempts <= pack.retries):
                    _note_failure(record, error, pack.retries)
        else:
            return  # a trial that has not ended has paused


def _remaining(pack: PackJob) -> tuple[TrialJob, ...]:
    """The trials of a pack that have not ended."""
    ledger = Ledger.at(pack.output)
    return tuple(job for job in pack.trials if not ledger.trial(job.signature).ended)


@contextmanager
def _scratch(record: TrialRecord) -> Iterator[dict[str, Any]]:
    """Storage for Ray Train's own state, which every worker insists on and nobody reads."""
    path = record.path / "ray"
    remove(path)  # state of a killed attempt, from which Ray Train would restore itself
    if isinstance(path, RemotePath):
        yield {"storage_path": path.key, "storage_filesystem": path.filesystem}
    else:
        yield {"storage_path": str(path)}
    remove(path)


def _note_failure(record: TrialRecord, error: Exception, retries: int) -> None:
    """Keeps why Ray Train gave a trial up; raises it where the ledger cannot be written."""
    with log_file(record.log, "driver") as file, trial_log(file, "driver") as log:
        log.error("Ray Train gives up: %s", error)
    reason = _reason(error, retries + 1)
    try:
        record.fail(reason)
    except OSError:  # a full disk, say
        raise TrialFailedError(reason) from error


def _reason(error: Exception, attempts: int) -> str:
    """Why a Ray Train job was given up; an exception of a trial says more than a lost worker."""
    from ray.exceptions import RayActorError

    causes = list(getattr(error, "worker_failures", {}).values())
    if early := getattr(error, "controller_failure", None):  # while the workers were set up
        causes.append(getattr(early, "cause", None) or early)
    for cause in causes:
        if not isinstance(cause, RayActorError):
            return f"{reason_of(cause)} (tried {attempts} times)"
    if causes:
        return f"lost its workers {attempts} times, the last time: {reason_of(causes[0])}"
    return f"{reason_of(error)} (tried {attempts} times)"
