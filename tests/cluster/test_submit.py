import click.testing
import pytest

from diffgap.cli.main import main
from diffgap.cluster.submit import Submission, excluded, runtime_environment, submit
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
        submit("http://127.0.0.1:9", ["sweep", "spec.yaml"], folder, {})


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
