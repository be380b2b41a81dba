"""What a run would refuse, a dry run refuses too, with the same words; and neither starts a thing.

Through the command itself, in this process, on real stores.
"""

import os

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from diffgap.cli.main import main
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.locks import SweepLock
from diffgap.spec import load_sweep
from diffgap.store.manifest import EncoderInfo
from diffgap.store.schema import vector_column
from diffgap.store.store import EmbeddingStore, write_store
from diffgap.sweep.plan import make_plan

SPEC = """\
name: asked
store: STORE
trial:
  denoiser: {width: 32, blocks: 2}
  train: {steps: 20, batch_size: 8, epoch_steps: 10}
axes:
  cdm.enabled: [false, true]
"""


def unit(rows, seed):
    values = np.random.default_rng(seed).normal(size=(rows, 8))
    return vector_column(values / np.linalg.norm(values, axis=1, keepdims=True))


def make_store(path, train=16, val=4, test=4, silent=(), corpus="audiocaps"):
    """A store with so many clips in each split; the clips of some splits have no caption."""
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    ids = [f"clip {number}" for number in range(len(splits))]
    items = pa.table({"id": ids, "split": splits, "audio": unit(len(ids), 0)})
    told = [name for name, split in zip(ids, splits, strict=True) if split not in silent]
    captions = pa.table({"id": told, "caption": told, "text": unit(len(told), 1)})
    encoder = EncoderInfo(name="hf_clap", checkpoint_hash="unknown")
    write_store(path, items, captions, encoder, corpus)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Runs the command in a place of its own; its exit status, words, and whether it wrote."""
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def ask(*arguments, spec=SPEC):
        (tmp_path / "spec.yaml").write_text(spec)
        result = CliRunner().invoke(main, ["sweep", "spec.yaml", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    return ask


def refused_alike(ask, *sets, spec=SPEC):
    """The problems of a dry run, which are those of the run; neither leaves a file."""
    arguments = [word for value in sets for word in ("--set", value)]
    answers = []
    for command in (["--dry-run", *arguments], arguments):
        code, output = ask(*command, spec=spec)
        assert code == 2, output
        answers.append([line for line in output.splitlines() if line.startswith("error: ")])
        assert "Starting Ray" not in output
    assert answers[0] == answers[1]
    assert not os.path.exists("runs/trials")
    assert not os.path.exists("runs/mlflow.db")
    return answers[0]


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"test": 0}, "has no clip with a caption in its split 'test', and trials are evaluated on "
         "it; use split: val, or a store that has some"),
        ({"val": 0}, "has no clip with a caption in its split 'val', and trials are chosen by it"),
        ({"train": 0}, "has no clip with a caption in its split 'train', and trials are trained"),
        ({"test": 1}, "has one clip with a caption in its split 'test'"),
        ({"silent": ("test",)}, "has no clip with a caption in its split 'test'"),
    ],
)  # fmt: skip
def test_a_store_without_clips_in_a_split(ask, tmp_path, counts, problem):
    make_store(tmp_path / "STORE", **counts)
    (line,) = refused_alike(ask)
    assert problem in line


def test_a_split_that_no_trial_asks_for_may_be_empty(ask, tmp_path):
    make_store(tmp_path / "STORE", test=0)
    code, output = ask("--dry-run", "--set", "split=val")
    assert code == 0, output
    make_store(tmp_path / "frozen", val=0)
    code, output = ask("--dry-run", "--set", "store=frozen", "--set", "axes={}",
                       "--set", "trial.method=none")  # fmt: skip
    assert code == 0, output


def test_a_task_and_a_generator_that_do_not_fit_the_store(ask, tmp_path):
    make_store(tmp_path / "STORE")
    (line,) = refused_alike(ask, "task=video-audio")
    assert "'video-audio' cannot be done on STORE, which serves text-audio" in line
    (line,) = refused_alike(
        ask, "trial.generation.generator=soundscape", "report.tables=[generation]",
        "axes={}", "trial.method=diffgap",
    )  # fmt: skip
    assert "soundscape takes embeddings of soundscape, and these are of hf_clap" in line


SOUND = ("trial.generation.generator=audioldm", "report.tables=[generation]", "axes={}")


def test_what_trials_of_generation_measure_with_is_there_before_they_train(ask, tmp_path):
    make_store(tmp_path / "STORE")
    lines = refused_alike(
        ask, *SOUND, "trial.generation.audio=/no/audio", "trial.generation.encoder=/no/encoder",
        "trial.generation.weights=./no/weights", "trial.generation.extractors=[panns=/no/panns=1]",
    )  # fmt: skip
    for missing in ("/no/audio", "/no/encoder", "./no/weights", "/no/panns=1"):
        assert len([line for line in lines if f" {missing}" in line]) == 1, (missing, lines)
    (line,) = refused_alike(ask, *SOUND, "trial.generation.extractors=[soundscape]")
    assert "generation.audio: is missing; give the directory of the audiocaps corpus" in line
    make_store(tmp_path / "imported", corpus="imported")
    (line,) = refused_alike(ask, *SOUND, "store=imported")
    assert "is of the corpus 'imported', whose sound diffgap cannot read" in line


def test_a_built_in_corpus_is_not_built_for_what_it_cannot_serve(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGAP_CACHE", str(tmp_path / "cache"))
    (line,) = refused_alike(ask, "store=soundscapes", "task=image-audio")
    assert "'image-audio' cannot be done on soundscapes, which serves" in line
    (line,) = refused_alike(
        ask, "store=soundscapes", "trial.generation.generator=audioldm",
        "report.tables=[generation]", "axes={}",
    )  # fmt: skip
    assert "audioldm takes embeddings of laion_clap or hf_clap" in line
    assert not (tmp_path / "cache").exists()


def test_a_sweep_that_another_process_runs(ask, tmp_path):
    make_store(tmp_path / "STORE")
    with SweepLock(Ledger(tmp_path / "runs").output, "asked"):
        (line,) = refused_alike(ask)
    assert "sweep 'asked' is already running" in line


def test_results_are_not_forgotten_while_another_sweep_makes_them(ask, tmp_path):
    make_store(tmp_path / "STORE")
    ledger = Ledger(tmp_path / "runs")
    spec = load_sweep(tmp_path / "spec.yaml") if ask("--dry-run")[0] == 0 else None
    store = EmbeddingStore.open(tmp_path / "STORE")
    first, _ = make_plan(spec, "STORE", store.fingerprint).trials
    with SweepLock(ledger.output, "other") as lock:
        assert lock.claim(ledger.trial(first.signature))
        code, output = ask("--fresh")
        assert ledger.trial(first.signature).path.exists()
    assert code == 2
    assert f"--fresh: {first.label} is run by sweep other (process {os.getpid()}" in output
    assert "Starting Ray" not in output


def test_a_trial_that_does_not_fit_this_machine(ask, tmp_path):
    """By the CPUs that the process may use, not by those of the machine."""
    make_store(tmp_path / "STORE")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        (line,) = refused_alike(ask, "resources.workers=2")
    finally:
        os.sched_setaffinity(0, before)
    assert "2 x 1 CPU and 0 GPU do not fit the cluster's 1 nodes with 1 CPUs" in line


def test_mlflow_has_no_place_on_an_object_store(ask, tmp_path):
    make_store(tmp_path / "STORE")
    for command in (["--dry-run"], []):
        code, output = ask(*command, "--output", "s3://nowhere/runs?region=eu-west-1")
        assert code == 2
        assert "cannot hold MLflow's database; set MLFLOW_TRACKING_URI" in output


def test_a_batch_larger_than_the_training_split_is_remarked_on(ask, tmp_path):
    make_store(tmp_path / "STORE", train=16)
    code, output = ask("--dry-run", "--set", "trial.train.batch_size=32")
    assert code == 0, output
    assert "warning: train.batch_size: 32 is more than the 16 pairs that STORE has" in output
    _, output = ask("--dry-run")
    assert "warning:" not in output
    code, output = ask("--dry-run", "--patience", "nan")
    assert code == 2
    assert "'nan' is not a finite number" in output
