"""cluster/slurm.sbatch, run for real: Slurm's commands are stand-ins, Ray and the sweep are not."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import SCRIPT, Job, write_command

from diffgap.cli.main import sweep as sweep_command

SPEC = """\
name: slurm
store: {store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: 48, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
axes:
  cdm.enabled: [true]
  bst.enabled: [true]
"""

WRAPPER = '#!/bin/sh\nexec "{command}" "$@"\n'
SWEEP_STAND_IN = """\
#!/bin/bash
echo "asked for: $*"
trap 'sleep 0.5; echo ended in order; exit 130' TERM
echo running
for _ in {{1..600}}; do [ -e "{place}/over" ] && exit {status}; sleep 0.05; done
"""


@pytest.fixture
def job(tmp_path):
    """Makes jobs, and ends what they leave."""
    made = []

    def make(nodes=1, **environment):
        made.append(Job(tmp_path, nodes, **environment))
        return made[-1]

    yield make
    for one in made:
        one.kill()
        shutil.rmtree(f"/tmp/ray-{one.number}", ignore_errors=True)


@pytest.fixture
def without_ray(tmp_path, job):
    """Makes jobs whose commands are all stand-ins, for what the script itself decides."""

    def make(status=0, ray="exec sleep 600", **environment):
        commands = tmp_path / "venv/bin"
        write_command(commands / "ray", f"#!/bin/sh\n{ray}\n")
        write_command(commands / "python", "#!/bin/sh\n[ $# -gt 2 ] || echo 127.0.0.1\n")
        text = SWEEP_STAND_IN.format(place=tmp_path, status=status)
        write_command(commands / "diffgap", text)
        return job(DIFFGAP_VENV=str(tmp_path / "venv"), **environment)

    return make


@pytest.fixture
def open_port():
    """Something that listens where a job's head would."""
    held = []

    def listen(job):
        held.append(socket.create_server(("127.0.0.1", job.port)))
        return job

    yield listen
    for one in held:
        one.close()


def test_shellcheck_finds_nothing():
    command = shutil.which("shellcheck", path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")
    if not command:
        pytest.skip('shellcheck is missing: pip install -c constraints.txt -e ".[dev]"')
    done = subprocess.run([command, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_its_directives_and_its_trap_agree():
    text = SCRIPT.read_text()
    (told,) = re.findall(r"^#SBATCH --signal=B:(\w+)@\d+$", text, re.M)
    assert f"trap 'on_signal {told}' {told}" in text
    assert f'$told == "{told}"' in text or f"$told == {told}" in text
    assert "#SBATCH --requeue" in text
    assert not re.search(r"^[^#]*\bray stop", text, re.M)  # it would end other jobs' Ray


def test_the_default_is_a_sweep_that_is_there():
    (default,) = re.findall(r"\|\| set -- (\S+)$", SCRIPT.read_text(), re.M)
    context = sweep_command.make_context("sweep", [default, "--address", "10.0.0.1:1"])
    assert (SCRIPT.parents[1] / context.params["spec"]).is_file()


def test_outside_slurm_it_says_how_to_start_it(job):
    one = job()
    del one.environment["SLURM_JOB_ID"]
    assert one.start().finish() != 0
    assert "start it with sbatch" in one.said


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_exit_status_is_the_sweeps(without_ray, open_port, tmp_path, status):
    (tmp_path / "over").touch()
    one = open_port(without_ray(status)).start("my.yaml", "--set", "seeds=5")
    assert one.finish(20) == status, one.said
    assert f"sweep my.yaml --set seeds=5 --address 127.0.0.1:{one.port}" in one.said
    assert not one.requeued()
    assert one.processes() == []


@pytest.mark.parametrize("number", [3190, 6379, 123456789])
def test_its_ports_are_nobody_elses(without_ray, open_port, tmp_path, number):
    """Neither Ray's workers' (10002 to 19999) nor those that the kernel gives away (from 32768)."""
    ray = f'echo "ray $@"; touch {tmp_path}/over; exec sleep 600'
    one = open_port(without_ray(ray=ray, number=number)).start()
    assert one.finish(20) == 0, one.said
    ports = [int(port) for port in re.findall(r"port=(\d+)", one.said)]
    assert len(set(ports)) == 3
    assert all(20000 <= port < 32768 for port in ports)


@pytest.mark.parametrize(
    ("number", "restarts", "requeued"),
    [(signal.SIGUSR1, 0, True), (signal.SIGUSR1, 3, False), (signal.SIGTERM, 0, False)],
    ids=["time limit", "too often", "scancel"],
)
def test_a_signal_ends_it_in_order(without_ray, open_port, number, restarts, requeued):
    limits = {"SLURM_RESTART_COUNT": str(restarts), "DIFFGAP_REQUEUES": "3"}
    one = open_port(without_ray(**limits)).start().wait_for("running").tell(number)
    assert one.finish(20) == 130, one.said
    assert "ended in order" in one.said
    assert one.requeued() == requeued
    assert one.processes() == []


def test_a_second_signal_does_not_cut_the_first_short(without_ray, open_port):
    one = open_port(without_ray()).start().wait_for("running").tell(signal.SIGTERM)
    one.wait_for("got SIGTERM").tell(signal.SIGTERM)
    assert one.finish(20) == 130, one.said
    assert one.said.count("got SIGTERM") == 2
    assert one.said.count("ended in order") == 1
    assert one.processes() == []


def test_the_time_limit_while_nodes_are_waited_for(without_ray):
    one = without_ray().start().wait_for_step().tell(signal.SIGUSR1)
    assert one.finish(20) == 130, one.said
    assert "asked for" not in one.said
    assert one.requeued()
    assert one.processes() == []


def test_a_ray_that_cannot_start_ends_the_job(without_ray):
    one = without_ray(ray="echo no memory >&2; exit 1").start()
    assert one.finish(20) == 1
    assert "no memory" in one.said
    assert "Ray ended while" in one.said
    assert "asked for" not in one.said


def test_nodes_that_never_come_end_the_job(without_ray):
    one = without_ray(DIFFGAP_JOIN_S="1").start()
    assert one.finish(20) == 1
    assert "all 1 nodes: not there in time" in one.said
    assert one.processes() == []


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_a_sweep_that_meets_its_time_limit_goes_on_where_it_was(job, tmp_path, small_store):
    (tmp_path / "spec.yaml").write_text(SPEC.format(store=small_store))
    one = job().start("spec.yaml")
    one.wait_for("step 10/48").tell(signal.SIGUSR1)
    assert one.finish() == 130, one.said
    assert one.requeued()
    assert "step 2/48" in one.said
    assert one.processes() == []
    assert list((tmp_path / "runs/trials").glob("*/checkpoints/*"))
    one.start("spec.yaml")
    assert one.finish() == 0, one.said
    assert "CDM + BST" in one.said
    assert "step 2/48" not in one.said  # it went on; it did not begin anew
    assert one.processes() == []
    assert not Path(f"/tmp/ray-{one.number}").exists()


PROGRAM = """\
import sys, time, ray
ray.init(address=sys.argv[-1], log_to_driver=False)

@ray.remote(num_cpus=1)
def node():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()

print("nodes that work:", len(set(ray.get([node.remote() for _ in range(2)]))))
"""


@pytest.mark.fault
def test_two_nodes_make_one_cluster(job, tmp_path):
    """A short Ray program in the sweep's place: two tasks of a CPU each need both nodes."""
    (tmp_path / "program.py").write_text(PROGRAM)
    commands = tmp_path / "venv/bin"
    for name in ("python", "ray"):
        write_command(commands / name, WRAPPER.format(command=Path(sys.prefix) / "bin" / name))
    write_command(commands / "diffgap", f'#!/bin/sh\nexec python {tmp_path}/program.py "$@"\n')
    one = job(nodes=2, DIFFGAP_VENV=str(tmp_path / "venv")).start()
    assert one.finish() == 0, one.said
    assert "nodes that work: 2" in one.said
    assert one.processes() == []
