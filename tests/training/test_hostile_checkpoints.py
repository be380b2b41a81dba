"""A checkpoint that somebody changed, digests included: nothing in it runs, and the trial goes on.

The payloads are real: loaded as pickles, each would create a file.
"""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from test_training import killed_at, run, trial, weights

from diffgap.compat.deepspeed import loading_problem, plain_loading
from diffgap.training import resume
from diffgap.training.checkpoint import FILES, TAG, broken, digests

ZERO_2 = {"train": {"zero_stage": 2}}


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def poison(checkpoint, trace):
    """Adds a payload to the optimiser's state, which otherwise stays as it was."""
    (share,) = checkpoint.glob(f"{TAG}/*optim_states.pt")
    state = torch.load(share, weights_only=False)
    torch.save({**state, "note": Payload(trace)}, share)
    seal(checkpoint)


def seal(checkpoint):
    """Makes the digests those of the files as they are."""
    (checkpoint / FILES).write_text(json.dumps(digests(checkpoint)))


@pytest.fixture
def killed(tmp_path, small_store):
    """The two checkpoints of a ZeRO-2 trial that was killed at step 8 of 12, oldest first."""
    newest = killed_at(8, trial(**ZERO_2), small_store, tmp_path / "killed")
    return sorted(newest.parent.glob("step-*"))


def test_the_payload_is_real(killed, tmp_path):
    poison(killed[1], tmp_path / "trace")
    (share,) = killed[1].glob(f"{TAG}/*optim_states.pt")
    torch.load(share, weights_only=False)
    assert (tmp_path / "trace").exists()


def test_a_trial_resumes_from_the_checkpoint_before_one_that_would_run_code(
    killed, tmp_path, small_store, caplog
):
    poison(killed[1], tmp_path / "trace")
    with caplog.at_level("INFO"):
        resumed = run(trial(**ZERO_2), small_store, tmp_path / "killed")
    assert not (tmp_path / "trace").exists()
    (line,) = [text for text in caplog.messages if "Skipping checkpoint step-00000008" in text]
    assert "optim_states.pt: it names builtins.getattr, pathlib.Path" in line
    assert "Training from step 4 to 12" in caplog.messages
    whole = weights(run(trial(**ZERO_2), small_store, tmp_path / "whole"))
    assert all(weights(resumed)[name].equal(value) for name, value in whole.items())


def test_a_trial_starts_anew_where_every_checkpoint_would_run_code(
    killed, tmp_path, small_store, caplog
):
    for number, checkpoint in enumerate(killed):
        poison(checkpoint, tmp_path / f"trace {number}")
    with caplog.at_level("INFO"):
        assert run(trial(**ZERO_2), small_store, tmp_path / "killed").finished
    assert not list(tmp_path.glob("trace*"))
    assert "Training from step 0 to 12" in caplog.messages


def test_deepspeeds_own_way_of_loading_runs_nothing_either(killed, tmp_path):
    """Whatever the check before it misses."""
    poison(killed[1], tmp_path / "trace")
    (share,) = killed[1].glob(f"{TAG}/*optim_states.pt")
    with plain_loading(), pytest.raises(pickle.UnpicklingError):
        torch.load(share, weights_only=False)
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_its_converter_runs_nothing_either(killed, tmp_path):
    poison(killed[1], tmp_path / "trace")
    with pytest.raises(RuntimeError):
        resume._convert(killed[1] / TAG, tmp_path / "converted")
    assert not (tmp_path / "trace").exists()


def test_the_switch_is_undone_and_overrides_its_opposite(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with plain_loading():
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


FORMS = {
    "bare": lambda path, payload: path.write_bytes(pickle.dumps(payload)),
    "legacy": lambda path, payload: torch.save(
        payload, path, _use_new_zipfile_serialization=False
    ),
    "script": lambda path, payload: torch.jit.script(torch.nn.Identity()).save(str(path)),
    "no pickle": lambda path, payload: zipfile.ZipFile(path, "w").close(),
    "truncated": lambda path, payload: (
        torch.save({}, path), path.write_bytes(path.read_bytes()[:200])
    ),
    "a folder": lambda path, payload: path.mkdir(),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_are_refused_too(tmp_path, form):
    FORMS[form](tmp_path / "x.pt", Payload(tmp_path / "trace"))
    assert "no file of plain tensors" in loading_problem(tmp_path / "x.pt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", ["[]", "null", "3", "[" * 50_000, "{", '{"a": 1}'])
def test_a_list_of_digests_that_is_none_makes_a_broken_checkpoint(tmp_path, content):
    (tmp_path / FILES).write_text(content)
    assert broken(tmp_path)
