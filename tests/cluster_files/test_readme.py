"""cluster/README.md and the heads of the files beside it: commands parse, files exist."""

import re
from pathlib import Path

import click
import pytest
from places import CLUSTER, ROOT, commands, parse

from diffgap.cli.main import main

README = (CLUSTER / "README.md").read_text()
HEADED = ["aws.yaml", "kuberay-rayjob.yaml", "slurm.sbatch", "Dockerfile"]


def named_commands():
    found = [("README.md", words) for words in commands(README, "    ")]
    for name in HEADED:
        found += [(name, words) for words in commands((CLUSTER / name).read_text(), "#   ")]
    return found


def of(program):
    """The commands of one program, wherever it is installed."""
    chosen = [(file, w) for file, w in named_commands() if Path(w[0]).name == program]
    return [pytest.param(w, id=f"{file}: {' '.join(w)}"[:90]) for file, w in chosen]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("words", of("diffgap"))
def test_commands_of_diffgap(words):
    params = parse(main, words)
    if spec := params.get("spec"):
        assert spec.is_file()


@pytest.mark.parametrize("words", of("sbatch"))
def test_commands_of_sbatch(words):
    own = [word for word in words[1:] if word.startswith("--")]
    script = next(word for word in words[1:] if not word.startswith("--"))
    assert Path(script).is_file()
    arguments = words[words.index(script) + 1 :] or ["sweeps/ablation.yaml"]
    assert parse(main, ["diffgap", "sweep", *arguments])["spec"].is_file()
    before = words[1 : words.index(script)]
    directives = re.findall(r"^#SBATCH (--[a-z-]+)", Path(script).read_text(), re.M)
    assert {option.partition("=")[0] for option in own if option in before} <= set(directives)


@pytest.mark.parametrize("words", of("ray"))
def test_commands_of_ray(words):
    from ray.scripts.scripts import cli

    params = parse(cli, words)
    if file := params.get("cluster_config_file"):
        assert Path(file).is_file()
    if entrypoint := params.get("entrypoint"):
        assert parse(main, list(entrypoint))["spec"].is_file()


@pytest.mark.parametrize("words", of("mlflow"))
def test_commands_of_mlflow(words):
    from mlflow.cli import cli

    params = parse(cli, words)
    assert params["host"] == "127.0.0.1"
    assert params["backend_store_uri"].startswith("postgresql://")
    assert params["artifacts_destination"].startswith("s3://")


def test_each_program_is_used():
    """Else the tests above would be empty."""
    programs = {Path(words[0]).name for _, words in named_commands()}
    assert {"diffgap", "sbatch", "ray", "mlflow", "kubectl", "docker"} <= programs


def test_a_wrong_option_is_found():
    with pytest.raises(click.ClickException):
        parse(main, ["diffgap", "sweep", "sweeps/ablation.yaml", "--sett", "seeds=5"])


def test_files_that_it_speaks_of_exist():
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    for path in linked:
        assert (CLUSTER / path).exists(), path
    for name in re.findall(r"`([\w-]+\.(?:yaml|sbatch)|Dockerfile)`", README):
        assert (CLUSTER / name).exists(), name
    for path in re.findall(r"\b(?:cluster|sweeps|docs)/[\w./-]*\w", README):
        assert (ROOT / path).exists(), path


def test_links_within_it_lead_somewhere():
    headings = re.findall(r"^## (.+)$", README, re.M)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
