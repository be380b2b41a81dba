"""Processes that die in the middle of a sweep, one kind after another."""

import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import MIDDLE, assert_healed

pytestmark = [pytest.mark.fault, pytest.mark.slow]


APART = ("--set", "resources.pack=off")
"""Trials with processes of their own, beside their drivers."""


def assert_went_on_once(single):
    """Its trial began at its start, and a second time at a checkpoint."""
    log = single.log_of("cdm on, bst on, seed 0")
    first, second = (int(step) for step in re.findall(r"Training from step (\d+)", log))
    assert (first, second >= 8) == (0, True)


def test_a_killed_worker_restarts_within_its_trial(single, undisturbed):
    single.start(*APART).wait_for(MIDDLE)
    single.kill("ray::RayTrainWorker")
    assert single.finish() == 0, single.said
    assert_healed(single, undisturbed)
    assert_went_on_once(single)


def test_a_killed_pack_is_started_again_and_goes_on(single, undisturbed):
    """Its driver's process trains its trials too."""
    single.start().wait_for(MIDDLE)
    single.kill("ray::ImplicitFunc")
    assert single.finish() == 0, single.said
    assert_healed(single, undisturbed)
    assert_went_on_once(single)


def test_a_killed_driver_of_a_trial_is_started_again(sweep, undisturbed):
    """Its placement group, which Ray would keep, is given back: else its next attempt hangs."""
    sweep.start(*APART).wait_for(MIDDLE)
    sweep.kill("ray::ImplicitFunc")
    assert sweep.finish() == 0, sweep.said
    assert_healed(sweep, undisturbed)


def test_a_killed_sweep_leaves_no_process_and_goes_on(sweep, undisturbed):
    """Also from the checkpoint before the newest, where that one is broken."""
    sweep.start().wait_for(MIDDLE)
    sweep.process.kill()
    sweep.finish()
    sweep.wait_until_alone()
    *_, newest = sorted((sweep.place / "runs/trials").glob("*/checkpoints/step-*"))
    weights = max(newest.rglob("*"), key=lambda file: file.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:1000])
    assert sweep.run() == 0, sweep.said
    log = (newest.parents[1] / "log.txt").read_text()
    assert f"Skipping checkpoint {newest.name}" in log
    logs = [path.read_text() for path in (sweep.place / "runs/trials").glob("*/log.txt")]
    assert any(re.search(r"Training from step [1-9]", log) for log in logs)
    assert_healed(sweep, undisturbed)


def test_a_sweep_that_loses_its_raylet_starts_over_by_itself(sweep, undisturbed):
    sweep.start().wait_for(MIDDLE)
    sweep.kill("raylet/raylet")
    assert sweep.finish() == 0, sweep.said
    assert "Ray's raylet died. The sweep resumes on a new one." in sweep.said
    (logs,) = re.findall(r"Its logs: (\S+)/r/session_latest/logs", sweep.said)
    assert list(Path(logs).glob("r/session_*/logs/raylet.out"))
    shutil.rmtree(logs)
    assert_healed(sweep, undisturbed)


def test_two_interrupts_end_it_at_once_and_in_order(sweep, undisturbed):
    sweep.start().wait_for(MIDDLE)
    sweep.process.send_signal(signal.SIGINT)
    sweep.wait_for("Stopping")
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.finish(60) == 130, sweep.said
    assert "Traceback" not in sweep.said
    assert {run.info.status for run in sweep.runs()[1]} == {"KILLED"}
    sweep.wait_until_alone()
    assert sweep.run() == 0, sweep.said
    assert_healed(sweep, undisturbed)
