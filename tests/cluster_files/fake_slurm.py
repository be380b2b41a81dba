"""Slurm, as far as cluster/slurm.sbatch needs it: its commands start processes of this machine."""

import getpass
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sbatch"
MARK = "DIFFGAP_TEST"
"""The environment variable by which all processes of a job are found."""

SRUN = """\
#!{python} -S
import signal, subprocess, sys
KNOWN = {{"overlap", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "nodelist", "exclude"}}
options, words = {{}}, sys.argv[1:]
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    if name not in KNOWN:
        sys.exit(f"srun: unrecognized option '--{{name}}'")
    options[name] = value
tasks = int(options.get("ntasks") or options["nodes"])
running = [subprocess.Popen(words) for _ in range(tasks)]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in running])
sys.exit(max(abs(task.wait()) for task in running))
"""

SCONTROL = """\
#!/bin/sh
echo "$@" >> "{calls}"
[ "$1 $2" != "show hostnames" ] || echo "$3" | tr ',' '\\n'
"""


def write_command(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Job:
    """A batch job: the script, its allocation, and what it says."""

    def __init__(self, place, nodes=1, number=None, **environment):
        self.place, self.mark, self.said = place, uuid.uuid4().hex, ""
        self.calls = place / "scontrol.calls"
        self.number = number or os.getpid() * 3 + nodes
        commands = place / "slurm"
        write_command(commands / "srun", SRUN.format(python=sys.executable))
        write_command(commands / "scontrol", SCONTROL.format(calls=self.calls))
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "MLFLOW", "DIFFGAP", "SLURM"))
        }
        self.environment = {
            **clean,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "USER": getpass.getuser(),
            "OMP_NUM_THREADS": "1",
            MARK: self.mark,
            "SLURM_JOB_ID": str(self.number),
            "SLURM_SUBMIT_DIR": str(place),
            "SLURM_JOB_NODELIST": ",".join(f"node{index}" for index in range(nodes)),
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_CPUS_ON_NODE": "1",
            "SLURM_CPUS_PER_TASK": "1",
            "DIFFGAP_VENV": sys.prefix,
            "DIFFGAP_OBJECT_STORE": "100000000",
            **environment,
        }

    @property
    def port(self):
        """Of the head: four ports a job, above those of Ray's workers."""
        return 20000 + self.number % 3190 * 4

    def start(self, *arguments):
        """Starts the script as Slurm would: a copy of it, from another directory."""
        self.said = ""
        script = shutil.copy(SCRIPT, self.place / "slurm_script")
        self.process = subprocess.Popen(
            ["bash", script, *arguments], cwd="/", env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self):
        for line in self.process.stdout:
            self.said += line

    def wait_for(self, words, timeout=180):
        """Waits until the job has said something."""
        until = time.monotonic() + timeout
        while words not in self.said:
            assert time.monotonic() < until, f"no {words!r} in:\n{self.said}"
            assert self._reader.is_alive(), f"it ended before {words!r}:\n{self.said}"
            time.sleep(0.05)
        return self

    def wait_for_step(self, timeout=20):
        """Waits until srun has been called."""
        until = time.monotonic() + timeout
        while not any("srun" in " ".join(found.cmdline()) for found in self.processes()):
            assert time.monotonic() < until, self.said
            time.sleep(0.05)
        return self

    def tell(self, number):
        """What `--signal=B:...` and scancel do: a signal for the script alone."""
        os.kill(self.process.pid, number)
        return self

    def finish(self, timeout=180):
        """Waits for the end; returns the exit status."""
        status = self.process.wait(timeout)
        self._reader.join(10)
        return status

    def requeued(self):
        """Whether Slurm was asked to queue the job again."""
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return f"requeue {self.number}" in calls

    def processes(self):
        """What is left of the job."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def kill(self):
        """Ends whatever a failed test has left."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
