"""Trials that two sweeps want: one has it, its name is known, and nobody keeps it for longer."""

import signal
import subprocess
import sys

import pytest

from diffgap.errors import UserError
from diffgap.io.paths import remove
from diffgap.ledger.leases import claimed
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.locks import SweepLock, described

CLAIM = """\
import sys
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.locks import SweepLock
ledger = Ledger.at(sys.argv[1])
with SweepLock(ledger.output, "killed") as lock:
    print(lock.claim(ledger.trial("abc")), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def test_a_claim_names_its_sweep_and_ends_with_its_release(ledger):
    trial = ledger.trial("abc")
    with SweepLock(ledger.output, "one") as one, SweepLock(ledger.output, "two") as two:
        assert one.claim(trial)
        assert not two.claim(trial)
        assert described(two.holder(trial)).startswith("sweep one (process ")
        one.release(trial)
        assert two.claim(trial)
        assert not one.claim(trial)


def test_a_killed_process_leaves_its_trial_free(ledger):
    trial = ledger.trial("abc")
    command = [sys.executable, "-c", CLAIM, str(ledger.output)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    with SweepLock(ledger.output, "mine") as lock:
        assert not lock.claim(trial)
        other.send_signal(signal.SIGKILL)
        other.communicate()
        assert lock.claim(trial)


def test_a_trial_whose_directory_was_removed_has_one_owner_all_the_same(ledger):
    """--fresh takes the locked file away; an old one that still is open must not count."""
    trial = ledger.trial("abc")
    with SweepLock(ledger.output, "one") as one, SweepLock(ledger.output, "two") as two:
        assert one.claim(trial)
        remove(trial.path)
        one.release(trial)
        assert two.claim(trial)
        assert not one.claim(trial)


def test_one_trial_by_itself_is_not_run_beside_a_sweep(ledger):
    trial = ledger.trial("abc")
    with SweepLock(ledger.output, "s") as lock:
        lock.claim(trial)
        with pytest.raises(UserError, match="'s' is already running"):
            claimed(ledger.output, "s", trial, print).__enter__()
        with pytest.raises(UserError, match=r"abc is run by sweep s .* wait for it"):
            claimed(ledger.output, "another", trial, print).__enter__()


def test_two_first_uses_of_an_output_agree_on_its_identity(ledger):
    program = (
        "import sys; from diffgap.ledger.ledger import Ledger; ledger = Ledger.at(sys.argv[1])\n"
        "print('ready', flush=True); sys.stdin.readline(); print(ledger.identity())"
    )
    command = [sys.executable, "-c", program, str(ledger.output / "new")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    identities = {process.communicate()[0] for process in processes}
    assert identities == {Ledger(ledger.output / "new").identity() + "\n"}
