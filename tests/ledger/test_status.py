"""What is seen of a sweep from elsewhere, and the ways to end it."""

import fcntl
import threading
import time

import pytest
from click.testing import CliRunner

from diffgap.cli.main import main
from diffgap.errors import UserError
from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.locks import SweepLock
from diffgap.ledger.status import cancel, log_lines, sweep_status

STATES = ("finished", "failed", "stopped", "running", "waiting", "old")


def signature(state):
    return f"{state:0<12}"


@pytest.fixture
def ledger(tmp_path):
    """A sweep with a trial in every state; `old` is one that an earlier process was in."""
    made = Ledger(tmp_path)
    trials = [{"signature": signature(s), "label": f"trial {s}", "trial": {}} for s in STATES]
    made.record_sweep(SweepRecord("s", {}, "store", trials))
    for state in STATES:
        made.trial(signature(state)).begin({})
    done = made.trial(signature("finished"))
    done.bridge.mkdir()
    (done.bridge / "metrics.json").write_text('{"best/val_R5": 61.5}')
    made.trial(signature("failed")).fail("the loss is nan")
    made.trial(signature("stopped")).request_stop("behind the others", 5, 40.0)
    note(made, "old", time.time() - 1000)
    return made


def note(ledger, state, when):
    facts = {"step": 50, "steps": 100, "best": 55.0, "host": "h", "pid": 1, "time": when}
    ledger.trial(signature(state)).record_progress(facts)


def states(ledger):
    return {t.label.removeprefix("trial "): t.state for t in sweep_status(ledger, "s").trials}


def test_every_state_while_the_sweep_is_alive(ledger):
    with SweepLock(ledger.output, "s") as running:
        running.heartbeat({}, force=True)
        note(ledger, "running", time.time())
        assert states(ledger) == {
            "finished": "finished", "failed": "failed", "stopped": "stopped", "running": "running",
            "waiting": "waiting", "old": "waiting",
        }  # fmt: skip
        state = sweep_status(ledger, "s")
        assert state.alive
        assert state.best.best == 61.5
        assert state.counts["waiting"] == 2


def test_what_was_under_way_when_the_sweep_died_is_interrupted(ledger):
    with SweepLock(ledger.output, "s") as running:
        running.heartbeat({}, force=True)
        note(ledger, "running", time.time())
    assert SweepLock(ledger.output, "s").was_interrupted
    found = states(ledger)
    assert (found["running"], found["old"], found["waiting"]) == (
        "interrupted", "interrupted", "not started",
    )  # fmt: skip


def test_a_sweep_is_run_by_one_process_and_a_trial_by_one_sweep(ledger):
    record = ledger.trial(signature("waiting"))
    with SweepLock(ledger.output, "s") as first, SweepLock(ledger.output, "t") as other:
        first.heartbeat({}, force=True)
        with pytest.raises(UserError, match=r"sweep 's' is already running, by process \d+ on"):
            SweepLock(ledger.output, "s").__enter__()
        assert first.claim(record)
        assert first.claim(record)
        assert not other.claim(record)
    with SweepLock(ledger.output, "t") as other:
        assert other.claim(record)


def test_who_only_asks_is_not_taken_for_the_sweep_and_does_not_stop_it(ledger):
    with SweepLock(ledger.output, "s"):
        pass
    asking = (ledger.output / "running/s.lock").open()
    fcntl.flock(asking, fcntl.LOCK_SH)  # as another `diffgap status` does, for a moment
    assert not SweepLock(ledger.output, "s").is_alive()
    threading.Timer(0.05, asking.close).start()
    with SweepLock(ledger.output, "s") as running:
        assert running.is_alive()


def test_status_tells_it_all(ledger):
    run = CliRunner().invoke
    shown = run(main, ["status", "s", "--output", str(ledger.output)])
    assert shown.exit_code == 0
    assert "50/100" in shown.output
    log = ledger.trial(signature("failed")).log
    assert f"{signature('failed')} failed: the loss is nan (log: {log})" in shown.output
    assert (
        "the same command continues" in run(main, ["status", "--output", str(ledger.output)]).output
    )
    unknown = run(main, ["status", "z", "--output", str(ledger.output)])
    assert unknown.exit_code == 2


def test_a_running_sweep_and_a_running_trial_can_be_cancelled(ledger):
    with pytest.raises(UserError, match="sweep 's' is not running"):
        cancel(ledger, "s")
    with SweepLock(ledger.output, "s") as running:
        running.heartbeat({}, force=True)
        note(ledger, "running", time.time())
        assert "stops at its next validation" in cancel(ledger, "running")
        assert ledger.trial(signature("running")).stop["reason"] == "cancelled"
        with pytest.raises(UserError, match="is not running"):
            cancel(ledger, "finished")
        assert not running.cancelled
        cancel(ledger, "s")
        assert running.cancelled
    with SweepLock(ledger.output, "s") as again:
        assert not again.cancelled


def test_a_signature_may_be_short_but_not_ambiguous(ledger):
    assert ledger.find("old").path.name == signature("old")
    ledger.trial("olden0000000").begin({})
    with pytest.raises(UserError, match="give one in full"):
        ledger.find("old")
    with pytest.raises(UserError, match="matches no trial"):
        ledger.find("zzz")


def test_a_log_is_followed_to_its_trials_end_and_cannot_steer_the_terminal(ledger, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "secret-value")
    record = ledger.trial(signature("waiting"))
    record.log.write_text("one\x1b[2J secret-value\n")

    def later():
        time.sleep(0.3)
        with record.log.open("a") as log:
            log.write("two\n")
        record.fail("over")

    threading.Thread(target=later).start()
    assert list(log_lines(ledger, "waiting", follow=True)) == ["one␛[2J ***", "two"]
    assert list(log_lines(ledger, "waiting", follow=False)) == ["one␛[2J ***", "two"]


DAMAGE = {
    "no JSON": "{",
    "other JSON": "[1]",
    "another version": '{"name": "bad", "trials": [], "spec": {}, "store": "s", "planet": 3}',
    "trials without signatures": '{"name": "bad", "trials": [{}], "spec": {}, "store": "s"}',
    "a directory": None,
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_named_and_keeps_no_other_from_being_shown(ledger, content):
    path = ledger.output / "sweeps" / "bad.json"
    path.mkdir() if content is None else path.write_text(content)
    (ledger.output / "sweeps" / ".s.0a1b2c3d.json").write_text("{")  # of a process that was killed
    done = CliRunner().invoke(main, ["status", "--output", str(ledger.output)])
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("s: ")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "bad" in line
    assert "move it away" in line or "give another path" in line
    alone = CliRunner().invoke(main, ["status", "bad", "--output", str(ledger.output)])
    assert (alone.exit_code, alone.stderr) == (2, done.stderr)
    with SweepLock(ledger.output, "s") as running:
        running.heartbeat({}, force=True)
        assert "stops at its next validation" in cancel(ledger, signature("waiting"))


def test_a_damaged_file_of_a_trial_is_named(ledger):
    path = ledger.trial(signature("failed")).path / "failed.json"
    path.write_text("{")
    done = CliRunner().invoke(main, ["logs", "failed", "--output", str(ledger.output)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {path}: is damaged (Expecting property name")
