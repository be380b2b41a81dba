"""Trials that two sweeps in one output ask for: each is run once, and every table is whole.

The other sweep is a process that claims trials and trains them as a sweep's worker does, on order.
"""

import json
import re
import subprocess
import sys

import pytest
from conftest import Sweep

from diffgap.ledger.ledger import Ledger
from diffgap.spec import load_sweep
from diffgap.store.store import EmbeddingStore
from diffgap.sweep.plan import make_plan

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RATES = (0.001, 0.002, 0.003, 0.004)
SPEC = """\
name: {name}
store: {store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: 8, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
axes:
  train.lr: [0.001, 0.002, 0.003, 0.004]
"""

OTHER = """\
import json, sys
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.locks import SweepLock
from diffgap.spec import Trial
from diffgap.training.local import train_here

name, output, store = sys.argv[1:]
ledger = Ledger.at(output)

def wait_on_the_way(step, steps):
    if step >= 4:
        print("on the way", flush=True)
        sys.stdin.read()

with SweepLock(ledger.output, name) as lock:
    for line in sys.stdin:
        order, entry = json.loads(line)
        trial, signature = Trial.model_validate(entry["trial"]), entry["signature"]
        record = ledger.trial(signature)
        if order == "claim":
            assert lock.claim(record)
            record.begin({**entry, "sweep": name})
        elif order == "train half":
            train_here(trial, signature, store, ledger, wait_on_the_way)
        elif order == "train":  # it keeps the trial, as a sweep does until the pack ends
            train_here(trial, signature, store, ledger)
        else:
            if order == "fail":
                record.fail("the loss is nan")
            elif order == "stop":
                record.request_stop("cancelled with sweep other")
            lock.release(record)
        print("done", flush=True)
"""


class OtherSweep:
    def __init__(self, name, place, store):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, name, str(place / "runs"), str(store)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def order(self, what, planned, answer="done"):
        self.process.stdin.write(json.dumps([what, planned.entry()]) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{answer}\n"

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def others(tmp_path, small_store):
    made = [OtherSweep(name, tmp_path, small_store) for name in ("other", "dying")]
    yield made
    for other in made:
        other.kill()


def test_a_sweep_waits_for_what_another_runs_and_takes_over_what_it_leaves(
    tmp_path, small_store, others
):
    sweep, (other, dying) = Sweep(tmp_path, small_store, "mine", SPEC), others
    spec = load_sweep(tmp_path / "spec.yaml")
    fingerprint = EmbeddingStore.open(small_store).fingerprint
    trials = make_plan(spec, str(small_store), fingerprint).trials
    trained, failed, stopped, abandoned = trials
    for planned in (trained, failed, stopped):
        other.order("claim", planned)
    dying.order("claim", abandoned)
    dying.order("train half", abandoned, answer="on the way")

    sweep.start().wait_for(r"Waiting for what sweep dying \(process \d+ on .*\) runs: train.lr")
    assert re.search(
        r"Waiting for what sweep other .*: train.lr 0.001.*; train.lr 0.002", sweep.said
    )
    dying.kill()
    other.order("train", trained)
    other.order("fail", failed)
    other.order("stop", stopped)
    assert sweep.finish() == 1, sweep.said
    assert f"{failed.label}: the loss is nan (in sweep other; log: " in sweep.said
    assert "interrupted" not in sweep.said
    ledger = Ledger(tmp_path / "runs")
    assert [ledger.trial(t.signature).finished for t in trials] == [True, False, True, True]
    assert ledger.trial(trained.signature).facts["sweep"] == "other"
    assert ledger.trial(stopped.signature).facts["sweep"] == "mine"
    # Of what was killed on its way, the rest alone is trained.
    (step,) = re.findall(
        r"Training from step (\d+)", ledger.trial(abandoned.signature).log.read_text()
    )
    assert int(step) >= 4

    # Everything that is missing is another's: nothing is left to run here, and the table is whole.
    other.order("claim", failed)
    sweep.start().wait_for("Waiting for what sweep other ")
    other.order("train", failed)
    assert sweep.finish() == 0, sweep.said
    assert sweep.said.count("(train.lr") == len(RATES)
    assert {run.info.status for run in sweep.runs()[1]} == {"FINISHED"}
    assert not list((tmp_path / "runs/trials").glob("*/checkpoints"))
    sweep.wait_until_alone()
