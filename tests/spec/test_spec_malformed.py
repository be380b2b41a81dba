"""Two hundred specs that are wrong in every way, and what a person is told of each."""

import copy
import os
import subprocess
import sys
import time

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffgap.cli import main

AXES = {
    "name": "tiny", "store": "soundscapes", "task": "text-audio",
    "trial": {"denoiser": {"width": 32, "blocks": 2}, "train": {"steps": 8, "batch_size": 32},
              "bst": {"fraction": 0.5}, "score": {"levels": [0.5]}},
    "axes": {"cdm.enabled": [False, True], "train.lr": [0.01, 0.001]},
    "seeds": 2, "retries": 1, "resources": {"workers": 1}, "report": {"tables": ["ablation"]},
}  # fmt: skip
SEARCH = {
    **{k: v for k, v in AXES.items() if k not in ("axes", "seeds")},
    "search": {"trials": 3, "space": {"train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
                                      "denoiser.width": {"choices": [8, 16]}}},
    "scheduler": {"min_steps": 2, "reduction": 2},
}  # fmt: skip


def paths(tree, prefix=()):
    """The path of every value of a tree, blocks included."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


def changed(tree, path, value):
    """A copy with one value replaced."""
    tree = copy.deepcopy(tree)
    block = tree
    for part in path[:-1]:
        block = block[part]
    block[path[-1]] = value
    return tree


WRONG = [
    {"no": "such"}, [[[]]], [{"a": 1}], "\N{SNOWMAN} nonsense", -1e308, 10**400, "x" * 5000,
    float("nan"), float("-inf"), {1: 2}, {None: []}, [None], {"low": "a"}, -7,
]  # fmt: skip
"""Values that are wrong anywhere in the two specs."""

TEXTS = [
    "", "# nothing\n", "[]", "just words", "name: tiny\nname: tiny\nstore: soundscapes",
    "a: &x 1\nb: *x", "x: &a [1]\ny: [*a, *a]", "base: &b {name: t}\n<<: *b", "[" * 10_000,
    "{" * 3_000, "name: [1, 2", "name: 'open", "\tname: x", "name: x\n\tstore: y",
    "name: !!python/object/apply:os.system ['true']\nstore: soundscapes",
    "name: !!binary '????'\nstore: soundscapes", "--- {name: a}\n--- {name: b}", 
    "%YAML 9.9\n---\na",
    "name: tiny\nstore: soundscapes\n? [a, b]\n: 1", "name: tiny\nstore: soundscapes\n1: 2",
    "name: tiny\nstore: soundscapes\nseeds: 0o9", 
    "name: tiny\nstore: soundscapes\nseeds: 2024-99-99",
    "name: tiny\nstore: soundscapes\ntrial: 2024-01-01", "x" * 150_000, "name: \x07", "\x00",
    "name: tiny\nstore: soundscapes\nseeds: " + "9" * 5_000, "name: tiny\r\nstore: [\r\n",
    "a: " + "&a [" + "*a," * 500, "name: tiny\nstore: /nowhere/at/all", "\ud800",
    "name: tiny\nstore: soundscapes\nsearch: 5", "name: tiny\nstore: soundscapes\naxes: [1, 2]",
    "name: tiny\nstore: soundscapes\nsearch: {space: {train.lr: 5}}",
    "name: tiny\nstore: soundscapes\naxes: {train.lr: 5}", "name: ../up\nstore: soundscapes",
    "name: tiny\nstore: soundscapes\nseeds: [1, 1]", 
    "name: tiny\nstore: soundscapes\naxes: {: [1]}",
    "name: tiny\nstore: soundscapes\nseeds: 10000\naxes: {"
    + ", ".join(f"loss.{n}: [{', '.join(str(i / 64) for i in range(1, 31))}]"
                for n in ("denoising_weight", "infonce_weight", "temperature", "condition_noise",
                          "condition_dropout")) + "}",
]  # fmt: skip
SETS = ["trial.train=3", "axes.x=[", "=1", "a.b.c.d=1", "name={a: 1}", "seeds", "seeds=&a 1",
        "seeds=*a", "trial.train.steps=" + "9" * 5_000, "axes=[[[", "trial=", "search.space.x=1",
        "resources.workers=1e400", "trial.score.levels=[.nan]", 
        "seeds=!!python/name:os.system"]  # fmt: skip


@st.composite
def malformed(draw):
    """A spec's text, and overrides."""
    tree = draw(st.sampled_from([AXES, SEARCH]))
    way = draw(st.sampled_from(["value", "value", "missing", "extra", "text", "set"]))
    if way == "text":
        return draw(st.sampled_from(TEXTS)), ()
    if way == "set":
        return yaml.safe_dump(tree), (draw(st.sampled_from(SETS)),)
    if way == "missing":
        name = draw(st.sampled_from(["name", "store"]))
        return yaml.safe_dump({k: v for k, v in tree.items() if k != name}), ()
    every = sorted(paths(tree), key=str)
    if way == "extra":
        blocks = [p for p in every if isinstance(_at(tree, p), dict)]
        key = draw(st.one_of(st.integers(), st.booleans(), st.none(), st.text(min_size=12)))
        return yaml.safe_dump(changed(tree, (*draw(st.sampled_from(blocks)), key), 1)), ()
    bad = changed(tree, draw(st.sampled_from(every)), draw(st.sampled_from(WRONG)))
    return yaml.safe_dump(bad), ()


def _at(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def refused(folder, text, sets=()):
    """What the command says of a malformed spec; checked to be short, readable and in time."""
    path = folder / "spec.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    words = [word for value in sets for word in ("--set", value)]
    began = time.monotonic()
    done = CliRunner().invoke(
        main, ["sweep", str(path), "--dry-run", "--output", str(folder / "out"), *words]
    )
    seconds = time.monotonic() - began
    assert done.exit_code == 2, (done.exit_code, done.output[:500], done.exception)
    lines = done.stderr.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("error: "), line[:200]
        assert line.isprintable(), line[:200]
        assert len(line) < 600, line[:200]
    assert len(lines) < 60
    assert seconds < 2
    assert not (folder / "out").exists()
    return lines


@settings(
    max_examples=200, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(malformed())
def test_two_hundred_malformed_specs_are_refused_readably(tmp_path, spec):
    refused(tmp_path, *spec)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_each_known_trick_is_refused(tmp_path, number):
    refused(tmp_path, TEXTS[number])


@pytest.mark.parametrize("override", SETS, ids=lambda override: override[:20])
def test_each_wrong_override_is_refused(tmp_path, override):
    lines = refused(tmp_path, yaml.safe_dump(AXES), (override,))
    assert any("--set" in line or "store" in line or "name" in line for line in lines)


def test_the_specs_are_right_but_for_that(tmp_path):
    no_search = {**SEARCH, "search": None, "scheduler": None}
    for tree in (AXES, SEARCH, no_search):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(tree))
        done = CliRunner().invoke(main, ["sweep", str(tmp_path / "spec.yaml"), "--dry-run"])
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("text", [TEXTS[5], TEXTS[8], "name: 3\nstore: soundscapes", ""])
def test_nothing_heavy_is_started_for_a_malformed_spec(tmp_path, text):
    """In a process of its own, as a person gives the command."""
    (tmp_path / "spec.yaml").write_text(text)
    code = (
        "import sys; from diffgap.cli import main\n"
        "try: main(['sweep', 'spec.yaml'])\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'deepspeed'} & set(sys.modules)\n"
        "print(status, sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.stdout.strip() == "2 []"
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"]
