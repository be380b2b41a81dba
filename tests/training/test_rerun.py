"""A recorded trial can be repeated, and what differs is told."""

import shutil

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from diffgap.cli.main import main
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial, signature
from diffgap.store.store import EmbeddingStore
from diffgap.training.local import train_here

TRIAL = Trial.model_validate(
    {"task": "text-audio", "seed": 3, "denoiser": {"width": 32, "blocks": 1},
     "train": {"steps": 8, "batch_size": 32, "epoch_steps": 4}, "score": {"kind": "bridge"}}
)  # fmt: skip


@pytest.fixture
def recorded(tmp_path, small_store):
    """A finished trial on a store of its own: its ledger, record and store."""
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    fingerprint = EmbeddingStore.open(store).fingerprint
    ledger = Ledger(tmp_path / "runs")
    record = ledger.trial(signature(TRIAL, fingerprint))
    facts = {"trial": TRIAL.model_dump(mode="json"), "store": str(store)}
    record.begin({**facts, "fingerprint": fingerprint})
    train_here(TRIAL, record.path.name, str(store), ledger)
    return ledger, record, store


def rerun(ledger, record, *arguments):
    words = ["rerun", record.path.name, "--output", str(ledger.output), *arguments]
    return CliRunner().invoke(main, words)


def test_the_same_trial_gives_the_same_weights(recorded):
    ledger, record, _ = recorded
    for _ in range(2):
        done = rerun(ledger, record)
        assert done.exit_code == 0, done.output
        assert "Same weights, bit for bit" in done.output
    assert (ledger.output / "reruns/trials" / record.path.name / "bridge").is_dir()


def test_what_differs_is_told(recorded):
    ledger, record, _ = recorded
    path = record.bridge / "bridge.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 0.5}, path)
    done = rerun(ledger, record)
    assert done.exit_code == 1, done.output
    assert "Largest difference of weights: 0.5" in done.output


def test_another_content_of_the_store_is_refused(recorded, tmp_path):
    ledger, record, store = recorded
    moved = store.rename(tmp_path / "moved")
    gone = rerun(ledger, record)
    assert gone.exit_code == 2
    assert "give --store PATH" in gone.stderr
    assert rerun(ledger, record, "--store", str(moved)).exit_code == 0
