"""The command line: instant help, and mistakes that are told with exit status 2."""

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from diffgap.cli.main import main


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_imports_nothing_heavy():
    script = (
        "import sys; import diffgap.cli.main;"
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


def commands(group=main, path=()):
    """Every command and group by its words, such as ("store", "show")."""
    for name, command in group.commands.items():
        yield (*path, name)
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else ()


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_shows_an_example(words):
    shown = invoke(*words, "--help")
    assert shown.exit_code == 0
    name = "report" if words == ("summary",) else " ".join(words)
    assert f"diffgap {name} " in shown.output.split("Options:")[0]


def options_of_fractions():
    """Every option that takes a number with a decimal point, by command and name."""
    for words in commands():
        command = main
        for word in words:
            command = command.commands[word]
        for option in command.params:
            if isinstance(option.type, click.types.FloatParamType):
                yield pytest.param(option, id=f"{' '.join(words)} {option.opts[0]}")


@pytest.mark.parametrize("option", options_of_fractions())
@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_option_takes_what_is_no_number(option, number):
    with pytest.raises(click.BadParameter):
        option.type.convert(number, option, None)


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
    from diffgap.encoders import EncoderChoice
    from diffgap.encoders.embed import embed

    root = tmp_path / "sounds"
    root.mkdir()
    for name in "abcdef":
        soundfile.write(root / f"{name}.wav", [0.1, -0.1] * 100, 16_000)
    (root / "captions.csv").write_text(
        "file_name,caption\n" + "".join(f"{name}.wav,noise\n" for name in "abcdef")
    )
    embed(FolderCorpus(root), EncoderChoice("soundscape"), tmp_path / "store")
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: s\nstore: {tmp_path / 'store'}\ntask: video-audio\n")
    refused = invoke("sweep", spec, "--output", tmp_path / "runs")
    assert refused.exit_code == 2
    assert "'video-audio' cannot be done on" in refused.output
    assert not (tmp_path / "runs").exists()


def test_embed_lists_what_it_left_out(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 100, 16_000)
    (tmp_path / "captions.csv").write_text(
        "file_name,caption\na.wav,noise\nb [x1] :cat:.wav,gone\n"
    )
    done = invoke("embed", "folder", "--root", tmp_path, "--encoder", "soundscape",
                  "--out", tmp_path / "store")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "left out: b [x1] :cat:.wav (audio): no such file" in done.output
    assert f"{tmp_path}/store: 1 train, 0 val, 0 test clips; 1 left out" in done.output
    assert "warning: no clip for text-audio in val and test; a sweep needs clips" in done.stderr


def test_a_real_file_of_another_kind_is_no_store(tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: s\nstore: {tmp_path}\n")
    refused = invoke("sweep", spec)
    assert refused.exit_code == 2
    assert "is not an embedding store (it has no manifest.json); make one with: diffgap embed" in (
        refused.output
    )


def test_a_corpus_is_checked_with_an_exit_status(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 100, 16_000)
    (tmp_path / "captions.csv").write_text("file_name,caption,split\na.wav,noise,test\n")
    clean = invoke("corpus", "check", "folder", "--root", tmp_path)
    assert (clean.exit_code, "test: 1 of 1 clips are usable" in clean.output) == (0, True)
    (tmp_path / "captions.csv").write_text("file_name,caption,split\nb.wav,noise,test\n")
    dirty = invoke("corpus", "check", "folder", "--root", tmp_path)
    assert dirty.exit_code == 1
    assert "missing: b.wav: no such file" in dirty.output
    assert "1 missing, 0 unreadable, 0 bad lines, 0 duplicated." in dirty.output


def test_too_many_rejected_clips_are_exit_status_one(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 100, 16_000)
    (tmp_path / "captions.csv").write_text("file_name,caption\na.wav,noise\nb.wav,gone\n")
    arguments = ("embed", "folder", "--root", tmp_path, "--encoder", "soundscape", "--out",
                 tmp_path / "store", "--max-rejected")  # fmt: skip
    failed = invoke(*arguments, "10%")
    assert failed.exit_code == 1
    assert "1 of 2 clips (50.0 %) cannot be used, more than --max-rejected 10%" in failed.output
    assert invoke(*arguments, "0.5").exit_code == 0
    refused = invoke(*arguments, "many")
    assert refused.exit_code == 2
    assert "'many' is not a share; give one such as 1% or 0.01" in refused.output


def test_a_store_is_imported_shown_and_evaluated(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    audio, text = rng.normal(size=(2, 20, 8))
    np.savez(tmp_path / "a.npz", audio=audio, text=text, split=["test"] * 20)
    made = invoke("store", "import", tmp_path / "a.npz", "--out", tmp_path / "store")
    assert made.exit_code == 0, made.output
    assert "a: 0 train, 0 val, 20 test clips, 20 captions" in made.output
    assert "warning: no clip for text-audio in train and val; a sweep" in made.stderr
    shown = invoke("store", "show", tmp_path / "store", "--picture", tmp_path / "a.png")
    assert shown.exit_code == 0, shown.output
    assert "distance of the modality means" in shown.output
    assert (tmp_path / "a.png").is_file()
    found = invoke("evaluate", "--baseline", "--store", tmp_path / "store")
    assert found.exit_code == 0, found.output
    assert "Queries: 20 text->audio, 20 audio->text" in found.output
    refused = invoke("evaluate", "--store", tmp_path / "store")
    assert refused.exit_code == 2
    assert "give either a trial's bridge directory or --baseline" in refused.output
