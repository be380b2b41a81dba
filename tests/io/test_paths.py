import json
import subprocess
import time

import pytest
from object_store import bucket

from diffgap.errors import UserError
from diffgap.io.atomic import new_directory, write_json
from diffgap.io.paths import RemotePath, SharedPath, local_copy, parse_path
from diffgap.ledger import leases
from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.logs import log_file, log_parts, read_from
from diffgap.sweep.optuna_storage import backend
from diffgap.tracking.client import tracking_uri
from diffgap.training.checkpoint import FILES
from diffgap.training.remote_checkpoints import checkpoints_of


@pytest.fixture(scope="module")
def store():
    with bucket() as uri:
        yield uri


@pytest.fixture
def place(store, request):
    return parse_path(store) / request.node.name


def test_kinds_of_places(store, tmp_path):
    assert not isinstance(parse_path(str(tmp_path)), SharedPath)
    shared = parse_path(f"file://{tmp_path}")
    assert isinstance(shared / "a", SharedPath)
    assert shared.absolute() == tmp_path
    remote = parse_path(store) / "a" / "b.json"
    assert isinstance(remote, RemotePath)
    assert parse_path(str(remote)) == remote
    assert (remote.name, remote.stem, remote.parent) == ("b.json", "b", parse_path(store) / "a")
    with pytest.raises(UserError, match="nosuch://x"):
        parse_path("nosuch://x/y")


def test_files_come_and_go(place):
    write_json(place / "a/one.json", {"n": 1})
    write_json(place / "a/two.json", {"n": 2})
    assert [p.name for p in sorted((place / "a").glob("*.json"))] == ["one.json", "two.json"]
    assert (place / "a").is_dir()
    assert not (place / "a").is_file()
    assert json.loads((place / "a/one.json").read_text()) == {"n": 1}
    with pytest.raises(FileNotFoundError):
        (place / "a/none.json").read_text()
    (place / "a/none.json").unlink(missing_ok=True)
    (place / "a").remove()
    assert not list((place / "a").iterdir())


def test_a_directory_is_whole_or_has_no_telling_file(place, monkeypatch):
    with new_directory(place / "bridge", "metrics.json") as local:
        (local / "metrics.json").write_text("{}")
        (local / "weights").mkdir()
        (local / "weights/w").write_bytes(b"w")
    with local_copy(place / "bridge") as copy:
        assert (copy / "weights/w").read_bytes() == b"w"
    written = []
    write = RemotePath.write_bytes

    def fail_at_second(self, content):
        written.append(self.name)
        if len(written) == 2:
            raise OSError("away")
        write(self, content)

    monkeypatch.setattr(RemotePath, "write_bytes", fail_at_second)

    def put():
        with new_directory(place / "bridge", "a") as local:
            for name in "abc":
                (local / name).write_text(name)

    with pytest.raises(OSError, match="away"):
        put()
    assert written == ["b", "c"]
    assert not (place / "bridge/a").exists()


def test_a_ledger_on_an_object_store(place):
    ledger = Ledger(place)
    assert ledger.identity() == Ledger.at(str(place)).identity()
    record = ledger.trial("0123456789ab")
    record.begin({"label": "x"})
    record.fail("why")
    assert ledger.find("0123").failure == "why"
    record.begin({"label": "x"})
    assert record.failure is None
    record.forget()
    assert not record.path.exists()


def test_a_sweep_is_held_once(place, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    monkeypatch.setattr(leases, "SETTLE_S", 0.2)
    record = Ledger(place).trial("0123456789ab")
    with sweep_lock(place, "mine") as first:
        assert first.claim(record)
        assert first.is_alive()
        with pytest.raises(UserError, match="already running, by process"):
            sweep_lock(place, "mine").__enter__()
        with sweep_lock(place, "other") as other:
            assert not other.claim(record)
            assert other.holder(record)["sweep"] == "mine"
            first.release(record)
            assert other.claim(record)
            assert not first.claim(record)
            other.release(record)
            assert first.claim(record)
            other.is_settled = True
        first.is_settled = True
    assert not sweep_lock(place, "mine").is_alive()
    with sweep_lock(place, "other") as other:
        assert other.claim(record)


def test_a_killed_sweeps_lease_runs_out(place, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.6)
    monkeypatch.setattr(leases, "SETTLE_S", 0.1)
    lease = {"host": "gone", "pid": 1, "began": 0.0, "time": time.time(), "counts": {}}
    write_json(place / "running/mine.json", lease)
    said = []
    with sweep_lock(place, "mine", said.append) as taken_over:
        assert taken_over.was_interrupted
    assert "started by process 1 on gone and did not end" in said[0]


def test_a_lease_whose_process_of_this_machine_is_gone_is_free_at_once(place, monkeypatch):
    monkeypatch.setattr(leases, "SETTLE_S", 0.1)
    said = []
    with sweep_lock(place, "mine") as first:
        lease = first.last_heartbeat()
    gone = subprocess.Popen(["true"])
    gone.wait()
    write_json(place / "running/mine.json", {**lease, "pid": gone.pid})
    assert not sweep_lock(place, "mine").is_alive()
    with sweep_lock(place, "mine", said.append) as taken_over:
        assert taken_over.was_interrupted
    assert said == []  # nothing was waited for
    elsewhere = {**lease, "pid": gone.pid, "processes": "another machine's"}
    write_json(place / "running/mine.json", elsewhere)
    assert sweep_lock(place, "mine").is_alive()


def test_checkpoints(place):
    checkpoints = checkpoints_of(place / "checkpoints")
    assert checkpoints.latest() is None
    for step in (1, 2, 3):
        checkpoints.write(step, lambda local, step=step: (local / "w").write_text(str(step)))
    assert sorted(p.name for p in (place / "checkpoints").iterdir()) == [
        "step-00000002", "step-00000003",
    ]  # fmt: skip
    assert (checkpoints.latest() / "w").read_text() == "3"
    (place / "checkpoints/step-00000003/w").write_bytes(b"broken")
    assert (checkpoints.latest() / "w").read_text() == "2"
    (place / "checkpoints/step-00000002" / FILES).unlink()
    assert checkpoints.latest() is None


def test_a_log_is_sent(place):
    with log_file(place / "log.txt", "worker 0") as local:
        local.write_text("said\n")
    (file,) = log_parts(place / "log.txt")
    assert read_from(file, 0) == b"said\n"
    assert read_from(file, 5) == b""


def test_a_journal_is_kept(place):
    optuna = pytest.importorskip("optuna", reason="pip install 'diffgap[search]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def study():
        storage = optuna.storages.JournalStorage(backend(place / "s.journal"))
        return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)

    study().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert [t.value for t in study().trials] == [t.params["x"] for t in study().trials]
    assert len(study().trials) == 3


def test_mlflow_needs_a_server(place, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI to a tracking server"):
        tracking_uri(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(place) == "http://mlflow:5000"
