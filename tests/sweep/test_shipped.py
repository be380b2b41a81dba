"""The sweeps that come with the project: every command in their headers is a request that works."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from diffgap.encoders.builtin import store_problem
from diffgap.spec import load_sweep
from diffgap.sweep.plan import make_plan

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "sweeps").rglob("*.yaml"))
COMMAND = re.compile(r"^#   (diffgap sweep (?:.*\\\n#  +)*.*)$", re.MULTILINE)


def commands(path):
    """The sweep commands of a file's header, as words."""
    header = path.read_text()
    found = [match.replace("\\\n#", " ") for match in COMMAND.findall(header)]
    return [shlex.split(re.sub(r"\s#.*", "", command)) for command in found]


def overrides(words):
    return [value for flag, value in pairwise(words) if flag == "--set"]


def test_all_that_is_promised_is_there():
    names = {path.relative_to(ROOT / "sweeps").with_suffix("").as_posix() for path in SHIPPED}
    assert names >= {
        "ablation", "noise_schedules", "hyperparameters", "methods", "scores", "text_video",
        "paper/audiocaps", "paper/vggsound",
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_command_of_its_header_is_a_valid_request(path):
    assert len(commands(path)) >= 3
    for words in commands(path):
        known = set(words[3:]) - set(overrides(words)) - {"--set", "--dry-run"}
        assert not known, f"not read: {known}"
        spec = load_sweep(ROOT / words[2], overrides(words))
        plan = make_plan(spec, "somewhere", "0" * 64)
        assert spec.search or plan.trials


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_its_smallest_command_needs_no_download(path):
    (smallest,) = [words for words in commands(path) if "name=try" in words]
    spec = load_sweep(ROOT / smallest[2], overrides(smallest), known_stores=store_problem)
    assert spec.trial.train.steps <= 50
    assert len(make_plan(spec, "somewhere", "0" * 64).trials) <= 4


def test_sweeps_share_the_trials_that_are_the_same():
    """Ablation, methods and scores train the same bridges: none of them is paid for twice."""

    def signatures(name):
        plan = make_plan(load_sweep(ROOT / "sweeps" / f"{name}.yaml"), "somewhere", "0" * 64)
        return {planned.training for planned in plan.trials if planned.trial.method == "diffgap"}

    assert signatures("methods") <= signatures("ablation")
    assert signatures("scores") <= signatures("methods")
