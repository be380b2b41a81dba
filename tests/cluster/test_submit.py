import http.server
import os
import subprocess
import sys
from threading import Thread

import click.testing
import numpy as np
import pytest

from diffgap.cli.main import main
from diffgap.cluster.submit import Submission, exposed, runtime_environment, submit
from diffgap.cluster.working_directory import excluded
from diffgap.errors import UserError

SPEC = "name: tiny\nstore: soundscapes\n"


def run(*words):
    return click.testing.CliRunner().invoke(main, ["submit", *map(str, words)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def test_mistakes_are_told_before_anything_is_sent(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("other") / "spec.yaml"
    elsewhere.write_text(SPEC)
    found = run(elsewhere, "--output", "runs", "--address", "http://127.0.0.1:9")
    assert found.exit_code == 2
    assert "the directory that is sent; run this from its own" in found.output
    assert "--output runs: a job runs in a copy" in found.output
    (folder / "spec.yaml").write_text("name: tiny\nstore: soundscapes\nsteps: 3\n")
    assert "steps" in run("spec.yaml").output


def test_a_store_beside_the_spec_is_not_sent(folder, small_store):
    (folder / "mine").symlink_to(small_store)
    (folder / "spec.yaml").write_text("name: tiny\nstore: mine\n")
    found = run("spec.yaml")
    assert found.exit_code == 2
    assert "'mine' is a local folder, which is not sent" in found.output


def test_no_cluster_there(folder):
    with pytest.raises(UserError, match="the job was not accepted"):
        submit("http://127.0.0.1:9", ["sweep", "spec.yaml"], folder, {}, print)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (".gitignore", "*.yaml\n", "a .gitignore names it"),
        ("sweeps/.gitignore", "spec.yaml\n", "a .gitignore names it"),
        (".rayignore", "sweeps\n", "a .rayignore names it"),
        ("sweeps/ledger.json", "{}", "its folder is an output"),
        (".gitignore", "*.yaml\n!sweeps/spec.yaml\n", None),
        (".gitignore", "runs\n", None),
    ],
)
def test_a_spec_that_would_not_be_sent_is_refused(folder, file, content, reason):
    (folder / "sweeps").mkdir()
    (folder / "sweeps/spec.yaml").write_text(SPEC)
    (folder / file).write_text(content)
    found = run("sweeps/spec.yaml", "--address", "http://127.0.0.1:9")
    assert found.exit_code == 2
    if reason:
        assert "sweeps/spec.yaml: it is not sent, and the job needs it" in found.output
        assert reason in found.output
    else:
        assert "the job was not accepted" in found.output


def test_constraints_that_would_not_be_sent_are_refused(folder):
    (folder / "constraints.txt").touch()
    (folder / ".gitignore").write_text("*.txt\n")
    assert "constraints.txt: it is not sent" in run("spec.yaml", "--pip").output
    assert "it is not sent" not in run("spec.yaml", "--address", "http://127.0.0.1:9").output


def test_a_directory_that_is_too_large_is_told_with_its_largest_files(folder, monkeypatch):
    monkeypatch.setattr("diffgap.cluster.working_directory.size_limit", lambda: 2**20)
    random = np.random.default_rng(0)
    (folder / "data").mkdir()
    (folder / "data/vectors.npy").write_bytes(random.bytes(2**20))
    (folder / "data/small.npy").write_bytes(random.bytes(2**10))
    found = run("spec.yaml", "--address", "http://127.0.0.1:9")
    assert found.exit_code == 2
    assert "is too large to send: a dashboard accepts 1.0 MiB" in found.output
    assert (
        "its largest files are data/vectors.npy (1.0 MiB), data/small.npy (1.0 KiB)" in found.output
    )
    assert f"{folder}/.rayignore" in found.output
    (folder / ".rayignore").write_text("data/vectors.npy\n")
    (folder / "table.csv").write_bytes(b"0," * 2**20)  # it is sent compressed
    assert "the job was not accepted" in run("spec.yaml", "--address", "http://127.0.0.1:9").output


class Dashboard(http.server.BaseHTTPRequestHandler):
    """A cluster that accepts nobody; it keeps the tokens that it was shown."""

    tokens = ()

    def do_GET(self):
        type(self).tokens += (self.headers.get("Authorization"),)
        self.send_error(401)

    def log_message(self, *_):
        pass


def test_a_cluster_is_shown_the_token(folder):
    """In a process of its own: Ray takes note of it when it is imported."""
    with http.server.HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        clean = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        done = subprocess.run(
            [sys.executable, "-m", "diffgap", "submit", "spec.yaml", "--address", address],
            capture_output=True, text=True, env={**clean, "RAY_AUTH_TOKEN": "ab" * 32},
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 2
    assert "the job was not accepted" in done.stderr
    assert Dashboard.tokens[0] == f"Bearer {'ab' * 32}"


class Starting:
    """A cluster whose head is up before its agents; it accepts the third attempt."""

    def __init__(self, address):
        self.attempts = 0

    def submit_job(self, **_):
        self.attempts += 1
        if self.attempts < 3:
            raise RuntimeError(
                "status code 500: No available agent to submit job, please try again"
            )
        return "job"


def test_a_cluster_that_is_starting_is_waited_for(folder, monkeypatch):
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Starting)
    monkeypatch.setattr("diffgap.cluster.submit.AGENT_POLL_S", 0)
    said = []
    assert submit("http://head:8265", ["sweep"], folder, {}, said.append).job_id == "job"
    assert said == ["The cluster is starting; waiting up to 60 s for its agent."]
    monkeypatch.setattr("diffgap.cluster.submit.AGENT_S", -1)
    with pytest.raises(UserError, match="No available agent"):
        submit("http://head:8265", ["sweep"], folder, {}, said.append)


def test_secrets_that_a_job_would_show_are_named(monkeypatch):
    values = {"AWS_SECRET_ACCESS_KEY": "x", "MLFLOW_TRACKING_URI": "http://me:pa55@host", "N": "1"}
    assert exposed({"env_vars": values}) == ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI"]


def test_what_is_left_out(tmp_path):
    for name in ("runs/ledger.json", "a/store/manifest.json", "venv/pyvenv.cfg", "sweeps/a.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = excluded(tmp_path)
    assert {"/runs/", "/a/store/", "/venv/", ".git"} <= set(found)
    assert not any("sweeps" in pattern for pattern in found)


def test_what_a_job_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.delenv("NOT_SET", raising=False)
    (tmp_path / "constraints.txt").touch()
    found = runtime_environment(tmp_path, True, None, ["MLFLOW_TRACKING_URI"])
    assert found["env_vars"] == {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    assert {"torch", "deepspeed", "mlflow", "optuna"} <= set(found["pip"]["packages"])
    assert "pytest" not in found["pip"]["packages"]
    (option,) = found["pip"]["pip_install_options"]
    assert option.endswith("/constraints.txt")
    assert runtime_environment(tmp_path, False, "diffgap:1", [])["image_uri"] == "diffgap:1"
    with pytest.raises(UserError) as error:
        runtime_environment(tmp_path / "none", True, "diffgap:1", ["NOT_SET"])
    assert len(error.value.problems) == 3


class Lost:
    """A cluster whose connection is lost once, in the middle of a job's log."""

    def __init__(self, status, code=None):
        self.asked, self.status, self.code = 0, status, code

    async def tail_job_logs(self, job):
        self.asked += 1
        yield "one\n"
        if self.asked == 1:
            yield "tw"
            raise RuntimeError("lost")
        yield "two\nthree\n"

    def get_job_info(self, job):
        from ray.job_submission import JobInfo, JobStatus

        status = JobStatus(self.status)
        return JobInfo(status=status, entrypoint="", driver_exit_code=self.code)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 1, 1), ("FAILED", 2, 2), ("STOPPED", None, 130)],
)
def test_a_job_is_followed_to_its_exit_status(status, code, expected, monkeypatch):
    monkeypatch.setattr("diffgap.cluster.submit.RECONNECT_S", 0)
    said = []
    assert Submission(Lost(status, code), "job").follow(said.append) == expected
    assert "".join(said) == "one\ntwo\nthree\n"
