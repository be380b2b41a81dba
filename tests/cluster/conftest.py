"""Real Ray clusters: each node a `ray start` of its own, with ports and a token of its own."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
MARK = "DIFFGAP_TEST_CLUSTER"
AUTOSCALING = {
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 1,
    "upscaling_speed": 1.0,
    "provider": {"type": "fake_multinode", "disable_node_updaters": True,
                 "disable_launch_config_check": True},
    "auth": {},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1, "object_store_memory": 80000000}, "node_config": {},
                   "min_workers": 0, "max_workers": 2},
    },
    "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
    "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
    "file_mounts": {}, "cluster_synced_files": [], "rsync_exclude": [], "rsync_filter": [],
}  # fmt: skip
"""What Ray's fake provider of machines wants to know."""

GROWING_PORT = 6379
"""Where the nodes that Ray's fake provider starts look for their head, whatever its port."""

SPEC = """\
name: {name}
store: file://{store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: {steps}, batch_size: 32, epoch_steps: 4}}
  score: {{top_k: 5}}
axes:
  cdm.enabled: {cdm}
  bst.enabled: [true]
{more}
"""


def free_port():
    with closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


class Cluster:
    """A cluster of nodes on this machine.

    Args:
        place: where its output and logs go.
        spaces: a network namespace for each node, with the node's address in it; None for all of
            them on loopback.
        grows: whether it begins without a CPU, and an autoscaler starts nodes.
    """

    def __init__(self, place, spaces=(), grows=False):
        self.spaces = list(spaces)
        self.place, self.token, self.mark = place, uuid.uuid4().hex * 2, uuid.uuid4().hex
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "MLFLOW"))}
        self.environment = {
            **clean,
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_TOKEN": self.token,
            "DIFFGAP_OUTPUT": f"file://{place}/runs",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            MARK: self.mark,
        }
        self.port = GROWING_PORT if grows else free_port()
        self.dashboard_port = free_port()
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"
        host = self.spaces[0][1] if self.spaces else "127.0.0.1"
        self.address = f"{host}:{self.port}"
        self.nodes, self.own = [], ExitStack()
        head = ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1",
                f"--dashboard-port={self.dashboard_port}", "--include-dashboard=true",
                f"--ray-client-server-port={free_port()}"]  # fmt: skip
        self.add(*head, *self._autoscaling(grows), cpus=0 if grows else 1)

    def _autoscaling(self, grows):
        """What makes Ray's own autoscaler start nodes of one CPU, as it would in a cloud."""
        if not grows:
            return []
        self.environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        path = self.place / "autoscaling.json"
        path.write_text(json.dumps(AUTOSCALING))
        return [f"--autoscaling-config={path}"]

    def add(self, *arguments, cpus=1):
        """Starts a node, and waits until the cluster knows it."""
        log = self.place / f"node-{len(self.nodes)}.log"
        own = self.own.enter_context(tempfile.TemporaryDirectory(prefix="dg-", dir="/tmp"))
        where = arguments or (f"--address={self.address}",)
        within, address = self._inside(len(self.nodes))
        command = [*within, BIN / "ray", "start", *address, *where, "--block",
                   f"--num-cpus={cpus}", "--num-gpus=0",
                   "--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0",
                   f"--dashboard-agent-listen-port={free_port()}",
                   "--disable-usage-stats", f"--temp-dir={own}"]  # fmt: skip
        environment = {**self.environment, "RAY_AUTH_MODE": "token"}
        with log.open("w") as said:
            process = subprocess.Popen(
                list(map(str, command)), env=environment, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True, cwd=self.place,
            )  # fmt: skip
        self.nodes.append(process)
        until = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        return process

    def _inside(self, number):
        """What comes before a command to run it in a node's network, and its address there."""
        if not self.spaces:
            return [], []
        name, address = self.spaces[number]
        return ["ip", "netns", "exec", name], [f"--node-ip-address={address}"]

    def kill_node(self, process):
        """Ends a node and all that runs on it, without a word."""
        family = [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]
        for member in family:
            member.kill()

    def _command(self, arguments):
        return [*self._inside(0)[0], str(BIN / "diffgap"), *map(str, arguments)]

    def diffgap(self, *arguments, timeout=240, **more):
        return subprocess.run(
            self._command(arguments), env={**self.environment, **more}, cwd=self.place,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def popen(self, *arguments):
        return subprocess.Popen(
            self._command(arguments), env=self.environment, cwd=self.place,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def trials(self, steps=8):
        """The finished trials of so many steps: their specs and losses, by label.

        Sweeps of several tests share the output, and their labels may be the same.
        """
        found = {}
        for path in (self.place / "runs/trials").glob("*/bridge/history.json"):
            facts = json.loads((path.parents[1] / "trial.json").read_text())
            points = [point["metrics"] for point in json.loads(path.read_text())]
            losses = [metrics["train/loss"] for metrics in points if "train/loss" in metrics]
            if facts["trial"]["train"]["steps"] == steps:
                found[facts["label"]] = facts["trial"], losses
        return found

    def ask_for(self, name, store, steps=8, cdm="[false, true]", more=""):
        """Writes a spec; returns its name."""
        path = self.place / f"{name}.yaml"
        path.write_text(SPEC.format(name=name, store=store, steps=steps, cdm=cdm, more=more))
        return path.name

    def close(self):
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    process.kill()
            except (psutil.Error, OSError):
                continue
        self.own.close()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A cluster of three nodes with a CPU each."""
    with ExitStack() as stack:
        made = Cluster(tmp_path_factory.mktemp("three"))
        stack.callback(made.close)
        made.add()
        made.add()
        yield made


@pytest.fixture
def growing(tmp_path):
    """A cluster without a CPU, whose autoscaler starts up to two nodes."""
    with closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", GROWING_PORT)) == 0:
            pytest.skip(f"port {GROWING_PORT} is taken, which Ray's fake provider needs; free it")
    with ExitStack() as stack:
        made = Cluster(tmp_path, grows=True)
        stack.callback(made.close)
        yield made


@pytest.fixture
def hosts(tmp_path, spaces):
    """A cluster of one node, with a second host that may become another."""
    with ExitStack() as stack:
        made = Cluster(tmp_path, spaces)
        stack.callback(made.close)
        yield made
