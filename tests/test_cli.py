"""The command line: instant help, and mistakes that are told with exit status 2."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffgap.cli import main


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_imports_nothing_heavy():
    script = (
        "import sys; import diffgap.cli;"
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow', 'numpy', 'pydantic', 'rich'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_help_is_there_within_half_a_second():
    command = [str(Path(sys.executable).parent / "diffgap"), "--help"]
    took = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.monotonic() - began)
    assert min(took) < 0.5


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_shows_an_example(command):
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    assert f"diffgap {main.commands[command].name} " in shown.output


def test_four_mistakes_are_told_at_once_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFGAP_CACHE", str(tmp_path / "cache"))
    Path("bad.yaml").write_text(
        """\
name: bad
store: soundscape
trial:
  cdm: {enabeld: true}
  train:
    steps: many
    batch_size: 65
resources: {workers: 2}
"""
    )
    done = subprocess.run(
        [str(Path(sys.executable).parent / "diffgap"), "sweep", "bad.yaml"],
        capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(
        "error: store (line 2): unknown store 'soundscape'; did you mean sou"
    )
    assert lines[1].startswith(
        "error: trial.cdm.enabeld (line 4): unknown key; did you mean enabled"
    )
    assert lines[2].startswith("error: trial.train.steps (line 6): 'many' is not an integer")
    assert lines[3].startswith("error: trial.train.batch_size (line 7): 65 cannot be shared evenly")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_dry_run_starts_and_writes_nothing(tmp_path, monkeypatch, small_store):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(
        f"name: s\nstore: {small_store}\naxes: {{cdm.enabled: [true, false]}}\n"
    )
    shown = invoke("sweep", "s.yaml", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "2 of 2 trials to run" in shown.output
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_train_refuses_more_than_one_trial(tmp_path, small_store):
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: s\nstore: {small_store}\nseeds: 2\n")
    refused = invoke("train", spec)
    assert refused.exit_code == 2
    assert "makes 2 trials, and train runs one; add --set axes={} --set seeds=1" in refused.output


def test_a_task_that_the_store_cannot_serve_is_refused(tmp_path):
    import soundfile

    from diffgap.corpora.folder import FolderCorpus
    from diffgap.encoders.embed import embed

    root = tmp_path / "sounds"
    root.mkdir()
    for name in "abcdef":
        soundfile.write(root / f"{name}.wav", [0.1, -0.1] * 100, 16_000)
    (root / "captions.csv").write_text(
        "file_name,caption\n" + "".join(f"{name}.wav,noise\n" for name in "abcdef")
    )
    embed(FolderCorpus(root), "soundscape", tmp_path / "store")
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: s\nstore: {tmp_path / 'store'}\ntask: video-audio\n")
    refused = invoke("sweep", spec, "--output", tmp_path / "runs")
    assert refused.exit_code == 2
    assert "'video-audio' cannot be done on" in refused.output
    assert not (tmp_path / "runs").exists()


def test_embed_lists_what_it_left_out(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 100, 16_000)
    (tmp_path / "captions.csv").write_text("file_name,caption\na.wav,noise\nb.wav,gone\n")
    done = invoke("embed", "folder", "--root", tmp_path, "--encoder", "soundscape",
                  "--out", tmp_path / "store")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "left out: b.wav (audio): no such file" in done.output
    assert "1 left out" in done.output


def test_a_real_file_of_another_kind_is_no_store(tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: s\nstore: {tmp_path}\n")
    refused = invoke("sweep", spec)
    assert refused.exit_code == 2
    assert "is no embedding store (it has no manifest.json); make one with: diffgap embed" in (
        refused.output
    )
