"""Sweeps on clusters of several nodes: typed by hand, submitted, losing a node, waiting for one."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial
from diffgap.training.local import train_here

pytestmark = pytest.mark.fault

README = Path(__file__).parents[2] / "README.md"


def losses_alone(trial, store, place):
    """The losses of a trial in this process, with one worker and without Ray."""
    ledger = Ledger(place)
    train_here(Trial.model_validate(trial), "alone", str(store), ledger)
    points = [point["metrics"] for point in ledger.trial("alone").history()]
    ledger.trial("alone").forget()
    for note in (place / "trained").glob("*.json"):
        note.unlink()
    return [metrics["train/loss"] for metrics in points if "train/loss" in metrics]


def wait_for(process, pattern, timeout=90):
    """Reads what a command says until a line matches; returns it."""
    said, until = "", time.monotonic() + timeout
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
        assert time.monotonic() < until, said
    raise AssertionError(said)


def test_ray_job_submit_as_in_the_readme(three, small_store):
    """The command that the README prints, with a smaller sweep in place of the shipped one."""
    (line,) = re.findall(r"^    (ray job submit .*)$", README.read_text(), re.M)
    words = shlex.split(line)
    assert words[-4:] == ["--", "diffgap", "sweep", "sweeps/ablation.yaml"]
    (three.place / "sweeps").mkdir()
    spec = three.ask_for("hand", small_store)
    (three.place / spec).rename(three.place / "sweeps/ablation.yaml")
    environment = {**three.environment, "RAY_AUTH_MODE": "token"}
    environment["RAY_API_SERVER_ADDRESS"] = three.dashboard
    words[0] = str(Path(sys.executable).parent / "ray")
    done = subprocess.run(
        words, cwd=three.place, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 trials at once, each 1 worker x 1 CPU" in done.stdout
    assert "CDM x BST ablation" in done.stdout
    assert set(three.trials()) == {"cdm off, bst on, seed 0", "cdm on, bst on, seed 0"}


def test_a_submitted_sweep_loses_a_node_and_nothing_else(three, small_store, tmp_path):
    """A node is killed with the trials that run there: all losses are those of a quiet place."""
    spec = three.ask_for("submitted", small_store, steps=300, more="seeds: 2")
    job = three.popen("submit", spec, "--address", three.dashboard, "--wait")
    said = wait_for(job, "step 20/300")
    three.kill_node(three.nodes[-1])
    three.add()
    said += job.communicate(timeout=240)[0]
    assert job.returncode == 0, said
    assert re.search("^raysubmit_", said, re.M)
    assert "CDM x BST ablation" in said
    found = three.trials(steps=300)
    assert len(found) == 4
    for trial, losses in found.values():
        assert losses == pytest.approx(losses_alone(trial, small_store, tmp_path), rel=1e-5)


@pytest.mark.timeout(600)
def test_twenty_trials_on_room_for_three(three, small_store):
    # Long enough that the first two have not ended them before the third has its process.
    more = "seeds: 20\nresources: {pack_mode: in_turn}"
    spec = three.ask_for("twenty", small_store, steps=100, cdm="[true]", more=more)
    done = three.diffgap("sweep", spec, "--address", three.address, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 of 20 trials to run, 3 trials at once, each 1 worker x 1 CPU; 17 wait" in done.stdout
    at_once, most = 0, 0
    for line in done.stdout.splitlines():
        at_once += line.endswith(": started") - (": finished in" in line)
        most = max(most, at_once)
    assert most == 3
    assert at_once == 0


def test_trials_of_two_workers_on_room_for_three(three, small_store):
    """One at once: the third CPU stays free, and nobody waits for ever."""
    more = "seeds: [30, 31]\nresources: {workers: 2}"
    spec = three.ask_for("pairs", small_store, cdm="[true]", more=more)
    done = three.diffgap("sweep", spec, "--address", three.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 trial at once, each 2 workers x 1 CPU" in done.stdout


def test_a_path_of_one_machine_is_refused(three, small_store, tmp_path):
    spec = three.ask_for("local", small_store, more="seeds: [40]")
    done = three.diffgap("sweep", spec, "--address", three.address, "--output", tmp_path / "own")
    assert done.returncode == 2
    assert f"--output: {tmp_path}/own is a path of this machine" in done.stderr
    assert f"file://{tmp_path}/own" in done.stderr
    assert not (tmp_path / "own/trials").exists()


def test_a_trial_across_two_hosts_waits_for_the_second(hosts, small_store, tmp_path):
    """Two network namespaces: the sweep waits for the second, then a trial spans both, and comes
    to what one worker comes to."""
    more = "resources: {workers: 2, environment: {GLOO_SOCKET_IFNAME: diffgap0}}"
    spec = hosts.ask_for("across", small_store, steps=24, cdm="[true]", more=more)
    sweep = hosts.popen("sweep", spec, "--address", hosts.address)
    said = wait_for(sweep, "Waiting for room")
    assert "a trial needs 2 x (1 CPU); the cluster has 1 CPU" in said
    hosts.add()
    said += sweep.communicate(timeout=200)[0]
    assert sweep.returncode == 0, said
    assert "1 trial at once, each 2 workers" in said  # a CPU a worker, and a CPU a host
    ((trial, losses),) = hosts.trials(steps=24).values()
    assert losses == pytest.approx(losses_alone(trial, small_store, tmp_path), rel=1e-4)


def test_an_autoscaler_is_asked_for_what_trials_wait_for(growing, small_store):
    """The cluster begins empty; its autoscaler starts a node for each of the two trials.

    They would train for minutes, however long a node takes to start, and are stopped once both run.
    """
    more = "resources: {gpus_per_worker: 0}"
    spec = growing.ask_for("grown", small_store, steps=100_000, more=more)
    sweep = growing.popen("sweep", spec, "--address", growing.address, "--patience", 2)
    said = wait_for(sweep, "seed 0: started")
    assert "a trial needs 1 x (1 CPU); the cluster has 0 CPU" in said
    said = wait_for(sweep, "seed 0: started")
    assert ": finished in" not in said  # both at once, on a node each
    sweep.send_signal(signal.SIGINT)
    said, _ = sweep.communicate(timeout=90)
    assert sweep.returncode == 130, said


def test_gpus_that_never_come_are_given_up(three, small_store):
    """A patience over, trials run on CPUs, and that is said."""
    spec = three.ask_for("nogpu", small_store, cdm="[true]", more="seeds: [50]")
    done = three.diffgap("sweep", spec, "--address", three.address, "--patience", 0.05)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 trials to run" in done.stdout  # no test before it has finished this one
    assert "a trial needs 1 x (1 CPU + 1 GPU)" in done.stdout
    assert "No GPU in this cluster: trials run on CPUs." in done.stdout
