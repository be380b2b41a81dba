"""Two hundred specs that are wrong in every way, and what a person is told of each."""

import copy
import gc
import os
import subprocess
import sys
import time

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffgap.cli.main import main
from diffgap.errors import UserError
from diffgap.spec import load_sweep

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

HERE = "stands in for YAML as it is"
WRITTEN = [
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system x", "!!binary aGk=",
    "!!bool abc", "!!int ''", "!!float x", "!!timestamp abc", "!!set {a, b}", "!!omap [a: 1]",
    "!mine {name: a}", "!mine [1]", "!mine a", ".inf", "-.Inf", "1e999", "0x" + "f" * 5_000,
    "1" + ":30" * 5_000, "1" + ":30" * 5_000 + ".5", "1:30", "010", "&a 1", "*a", "{a: 1, a: 2}",
    "{? [a] : 1}", "{? {a: 1} : 1}", "{<<: {a: 1}}", "{!!int name: 1}", "[" * 30 + "]" * 30,
    r'"\0"', r'"\e[31m"', r'"\UFFFFFFFF"', r'{"\e[31m\n": 1}',
    "{" + "k" * 900 + ": 1}", "[" + "a, " * 15_000 + "]", "{null: 1}", "{true: 1}", "'", "@", "`",
]  # fmt: skip
"""The same as YAML that no writer of YAML writes."""

BREAKS = ["\x00", "\x07", "\x1b[31m", "\ud800", "\ufffe"]
"""Characters that no text file has, not even in a comment."""

ENDS = ["---\n{a: 1}\n", "x: ]\n", "'", "\t- y\n", "name: again\n", "<<: {seeds: 1}\n",
        "seeds: *a\n", "...\n---\n", "%a\n", "? [a]\n", "!!int seeds: 1\n", "- y\n",
        "x" * 101_000]  # fmt: skip
"""Last lines that no spec may have."""

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
    "name: tiny\nstore: soundscapes\naxes:\n" + "".join(
        f"  {field}: [{', '.join(str(i / 64) for i in range(1, 21))}]\n"
        for field in ("train.lr", "train.weight_decay", "train.warmup", "train.ema", "close.noise",
                      "loss.denoising_weight", "loss.infonce_weight", "loss.temperature",
                      "loss.condition_noise", "loss.condition_dropout", "bst.fraction",
                      "mean_shift.scale")),
    "name: tiny\nstore: soundscapes\nseeds: " + str(list(range(12_000))),
    "name: tiny\nstore: soundscapes\nseeds: [" + "1," * 40_000 + "]",
    "name: tiny\nstore: soundscapes\nseeds: 1000000",
    "name: tiny\nstore: soundscapes\naxes: {train.lr: "
    + str([i / 1e5 for i in range(9_000)]) + "}",
    "name: tiny\nstore: soundscapes\naxes: {train.steps: " + str(list(range(1, 11_000))) + "}",
    "name: tiny\nstore: soundscapes\naxes: {train.batch_size: " + str(list(range(2, 9_000)))
    + "}\nresources: {workers: 4096}", "name: tiny\nstore: soundscapes\n" + "seeds: 3\n" * 6_000,
    "name: tiny\nstore: soundscapes\n" + "".join(f"x{i}: 1\n" for i in range(6_000)),
    "name: tiny\nstore: soundscapes\naxes:\n" + "".join(f"  x{i}: [1]\n" for i in range(4_000)),
    "%YAML 1." + "9" * 5_000 + "\n---\nname: tiny", "- " * 10_000, "? " * 10_000, "---\n", "~",
    "\n".join(" " * i + "a:" for i in range(300)), "name: tiny\nstore: " + "x" * 300,
    "name: tiny\nstore: " + "x" * 9_000, "\ufeffname: tiny", "!!python/object:os.x\n{name: tiny}",
    "name: tiny\rstore: soundscapes\rseeds: x",
]  # fmt: skip
SETS = ["trial.train=3", "axes.x=[", "=1", "a.b.c.d=1", "name={a: 1}", "seeds", "seeds=&a 1",
        "seeds=*a", "trial.train.steps=" + "9" * 5_000, "axes=[[[", "trial=", "search.space.x=1",
        "resources.workers=1e400", "trial.score.levels=[.nan]", 
        "seeds=!!python/name:os.system", "", "=", ".=1", "axes.=1", "trial..x=1", "seeds.x=1",
        "x\ny=1", "\x1b[31m=1", "name=\udcff", "name=\x00", "seeds=---\n1\n---\n2",
        "x" * 50_000 + "=1", "seeds=" + "x" * 50_000,
        "trial." + "train." * 30 + "x=1", "seeds=" + "[" * 5_000, "seeds=0x1" + "0" * 5_000,
        "search.kind=x", "scheduler.kind=x", "search=1",
        "search.space.train.lr={low: 1}", "resources.gpus_per_worker=.inf", "seeds={a: 1, a: 2}",
        "trial.train=!mine {steps: 1}", "seeds=010", "trial.train.steps=2024-01-01"]  # fmt: skip


@st.composite
def malformed(draw):
    """A spec's text, and overrides."""
    tree = draw(st.sampled_from([AXES, SEARCH]))
    way = draw(st.sampled_from(["value", "value", "written", "key", "missing", "text", "set"]))
    if way == "value":
        for _ in range(draw(st.integers(1, 3))):
            value = draw(st.sampled_from(WRONG))
            tree = changed(tree, draw(st.sampled_from(sorted(paths(tree), key=str))), value)
        return yaml.safe_dump(tree), ()
    if way == "written":
        tree = changed(tree, draw(st.sampled_from(sorted(paths(tree), key=str))), HERE)
        return yaml.safe_dump(tree).replace(HERE, draw(st.sampled_from(WRITTEN))), ()
    if way == "key":
        return yaml.safe_dump(draw(wrong_keys(tree))), ()
    if way == "missing":
        return yaml.safe_dump(draw(incomplete(tree))), ()
    if way == "set":
        return yaml.safe_dump(tree), tuple(draw(st.lists(st.sampled_from(SETS), min_size=1)))
    text = yaml.safe_dump(tree)
    at = draw(st.integers(0, len(text)))
    broken = text[:at] + draw(st.sampled_from(BREAKS)) + text[at:]
    ended = text + draw(st.sampled_from(ENDS))
    return draw(st.sampled_from([broken, ended, *TEXTS])), ()


@st.composite
def wrong_keys(draw, tree):
    """A spec with a key that is misspelt, or one that is none of its block's."""
    if draw(st.booleans()):
        *above, last = draw(st.sampled_from([p for p in paths(tree) if isinstance(p[-1], str)]))
        block = _at(changed(tree, (*above, last), _at(tree, (*above, last))), above)
        renamed = {f"{key}z" if key == last else key: value for key, value in block.items()}
        return changed(tree, above, renamed) if above else renamed
    blocks = [path for path in paths(tree) if isinstance(_at(tree, path), dict)]
    key = draw(st.one_of(st.integers(), st.booleans(), st.none(), st.text(min_size=12)))
    return changed(tree, (*draw(st.sampled_from(blocks)), key), 1)


@st.composite
def incomplete(draw, tree):
    """A spec without something that it needs."""
    needed = [("name",), ("store",)]
    if "search" in tree:
        needed += [("search", "space"), ("search", "space", "train.lr", "low"), ("search",)]
        needed += [("search", "space", "denoiser.width", "choices")]
    *above, last = draw(st.sampled_from(needed))
    less = copy.deepcopy(tree)
    del _at(less, above)[last]
    return less


def _at(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def refused(folder, text, sets=()):
    """What the command says of a malformed spec; checked to be short, readable and in time."""
    path = folder / "spec.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    words = [word for value in sets for word in ("--set", value)]
    gc.freeze()  # what other tests have left is not scanned again and again
    began = time.thread_time()  # neither a busy machine nor other tests' threads take part in it
    done = CliRunner().invoke(
        main, ["sweep", str(path), "--dry-run", "--output", str(folder / "out"), *words]
    )
    seconds = time.thread_time() - began
    gc.unfreeze()
    assert done.exit_code == 2, (done.exit_code, done.output[:500], done.exception)
    lines = done.stderr.splitlines()
    assert 0 < len(lines) < 60
    for line in lines:
        assert line.startswith("error: "), line[:200]
        assert line.isprintable(), line[:200]
        assert len(line) < 600, line[:200]
    assert seconds < 5  # one takes 1.5 s by itself, and twice that beside other work
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


@pytest.mark.parametrize("value", WRITTEN, ids=lambda value: ascii(value[:20]))
def test_each_odd_value_is_refused_wherever_it_stands(tmp_path, value):
    for tree, path in ((AXES, ("name",)), (AXES, ("trial", "bst", "fraction")),
                       (AXES, ("axes", "train.lr", 0)), (SEARCH, ("search",))):  # fmt: skip
        refused(tmp_path, yaml.safe_dump(changed(tree, path, HERE)).replace(HERE, value))


@pytest.mark.parametrize("character", BREAKS, ids=ascii)
@pytest.mark.parametrize("place", [0, 1, 100, -1])
def test_a_character_of_no_text_is_refused_wherever_it_stands(tmp_path, character, place):
    text = yaml.safe_dump(AXES) + "# the end\n"
    refused(tmp_path, text[:place] + character + text[place:])


@pytest.mark.parametrize("line", ENDS, ids=lambda line: ascii(line[:20]))
def test_each_wrong_last_line_is_refused(tmp_path, line):
    refused(tmp_path, yaml.safe_dump(AXES) + line)


def test_a_folder_and_no_file_are_refused(tmp_path):
    for name in ("", "none.yaml", "a\nb.yaml", "x" * 300, "\udcff"):
        done = CliRunner().invoke(main, ["sweep", str(tmp_path / name)])
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert line.isprintable()


GOOD = "name: a\nstore: soundscapes\n"
DIMENSION = GOOD + "search: {space: {train.lr: {low: 0.001, high: 0.1}}}\n"
SOUND = """\
trial: {generation: {generator: soundscape}}
report: {tables: [generation]}
"""

TOLD = {
    "a misspelt key of a search": (
        DIMENSION.replace("{space", "{trails: 3, space"),
        "search.trails (line 3): unknown key; did you mean trials?",
    ),
    "a misspelt key of a dimension": (
        DIMENSION.replace("high: 0.1", "high: 0.1, lag: true"),
        "search.space.train.lr.lag (line 3): unknown key; did you mean log?",
    ),
    "a misspelt key of a scheduler": (
        DIMENSION + "scheduler: {min_stops: 3}\n",
        "scheduler.min_stops (line 4): unknown key; did you mean min_steps?",
    ),
    "an unknown kind of search": (
        DIMENSION.replace("{space", "{kind: optunia, space"),
        "search.kind (line 3): 'optunia' is not one of optuna, random; did you mean optuna?",
    ),
    "a search of no trials": (
        DIMENSION.replace("{space", "{trials: 0, space"),
        "search.trials (line 3): 0 is not in [1, 100000]; the default is 40",
    ),
    "a share of a population": (
        DIMENSION + "scheduler: {kind: pbt, quantile: 0.9}\n",
        "scheduler.quantile (line 4): 0.9 is not in (0, 0.5]; the default is 0.25",
    ),
    "a bound that is no number": (
        DIMENSION.replace("0.001", "small"),
        "search.space.train.lr.low (line 3): 'small' is not a number; as in {low: 0.1, high: 0.9}",
    ),
    "a choice twice": (
        GOOD + "search: {space: {denoiser.width: {choices: [8, 8]}}}\n",
        "search.space.denoiser.width (line 3): choices [8, 8] has a value twice; keep each once",
    ),
    "a broken search, for which its scheduler cannot be blamed": (
        GOOD + "search: 3\nscheduler: {min_steps: 10}\n",
        "search (line 3): 3 is not a block of keys; see the example specs in sweeps/",
    ),
    "an unreadable value": (
        GOOD + "seeds: !!int many\n",
        "seeds (line 3): 'many' cannot be read as tag:yaml.org,2002:int; quote it?",
    ),
    "an unreadable value of a list": (
        GOOD + "seeds: [1, !!int many]\n",
        "seeds[1] (line 3): 'many' cannot be read as tag:yaml.org,2002:int; quote it?",
    ),
    "a block with a tag": (
        GOOD + "trial: !mine {method: close}\n",
        "trial (line 3): cannot be read as !mine; remove the tag",
    ),
    "a merge": (
        GOOD + "trial:\n  <<: {method: close}\n",
        "trial.<< (line 4): is not a key; keys are plain names without tags or merges (<<)",
    ),
    "a key that is a list": (
        GOOD + "? [a, b]\n: 1\n",
        "? (line 3): is not a key; keys are plain names without tags or merges (<<)",
    ),
    "infinity": (
        GOOD + "resources: {cpus_per_worker: .inf}\n",
        "resources.cpus_per_worker (line 3): '.inf' is not a finite number; give one that is",
    ),
    "a number of many digits": (
        GOOD + "trial: {train: {epoch_steps: 1" + "0" * 30 + "}}\n",
        "trial.train.epoch_steps (line 3): '1000000000000000000000000000000' is too large; "
        "numbers have at most 18 digits",
    ),
    "an octal number": (
        GOOD + "seeds: 010\n",
        "seeds (line 3): '010' would be read as 8; write that, or the number you mean",
    ),
    "a number of base sixty": (
        GOOD + "trial: {train: {steps: 1:30}}\n",
        "trial.train.steps (line 3): '1:30' would be read as 90; write that, or the number you "
        "mean",
    ),
    "a date": (
        GOOD + "trial: {train: {steps: 2024-01-01}}\n",
        "trial.train.steps (line 3): '2024-01-01' is not an integer; give a number of optimiser "
        "steps such as 1500",
    ),
    "more seeds than trials": (
        GOOD + "seeds: " + str(list(range(11_000))) + "\n",
        "seeds (line 3): 11000 seeds; a sweep has at most 10000, so split it",
    ),
    "an axis of no block": (
        GOOD + "axes: {zzz: [1]}\n",
        "axes.zzz (line 3): not a field of a trial; fields begin with method, cdm, bst, denoiser, "
        "loss, train, score, generation, mean_shift, ridge, cca, close, diffusion_bridge, "
        "diffusion_link, diffusion_ret",
    ),
    "only wrong values in a list": (
        GOOD + "report: {tables: [axis]}\n",
        "report.tables[0] (line 3): 'axis' is not one of generation, ablation, methods, axes; did "
        "you mean axes?",
    ),
    "sound beside recall": (
        GOOD + "axes: {generation.generator: [none, soundscape]}\n",
        "axes.generation.generator (line 3): 'none' beside others mixes retrieval and generation; "
        "give each its own sweep",
    ),
    "a search of sound": (
        GOOD + SOUND + "search: {space: {train.lr: {low: 0.1, high: 0.2}}}\n",
        "search (line 5): optimises recall, and these trials generate audio; use axes instead",
    ),
    "a table of recall for sound": (
        GOOD + SOUND.replace("generation]", "methods]"),
        "report.tables (line 4): 'methods' compares recall, and these trials generate audio; use "
        "[generation]",
    ),
    "a table of sound for recall": (
        GOOD + "report: {tables: [generation]}\n",
        "report.tables (line 3): 'generation' needs trials that generate; use "
        "trial.generation.generator: soundscape",
    ),
    "recall of two tasks": (
        GOOD + "axes: {task: [text-audio, video-audio]}\n",
        "axes.task (line 3): recall is compared within one task; set task, and give each task its "
        "own sweep",
    ),
    "a task that is none": (
        GOOD + SOUND + "axes: {task: [text]}\n",
        "axes.task[0] (line 5): 'text' is not a name; use two modalities as in text-audio",
    ),
    "sound through a bridge that is none": (
        GOOD + SOUND.replace("{generation", "{method: center, generation"),
        "trial.method (line 3): center does not reach the embeddings that a generator takes; use "
        "ridge or deterministic or diffgap, or generation.condition query",
    ),
    "an extractor that is none": (
        GOOD + SOUND.replace("soundscape}", "soundscape, extractors: [vgish=/w]}"),
        "trial.generation.extractors[0] (line 3): 'vgish=/w' is not a name; as in "
        "[vggish=/weights/vggish.pth]",
    ),
    "an extractor without its weights": (
        GOOD + SOUND.replace("soundscape}", "soundscape, extractors: [panns]}"),
        "trial.generation.extractors (line 3): panns needs weights; use panns=PATH",
    ),
    "a generator without its weights": (
        GOOD + SOUND.replace("soundscape}", "diff_foley}"),
        "trial.generation.weights (line 3): diff_foley ships without weights; give the path of "
        "ldm_epoch240.ckpt",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), TOLD.values(), ids=TOLD.keys())
def test_each_mistake_is_told_once_and_alone(tmp_path, text, line):
    assert refused(tmp_path, text) == [f"error: {line}"]


def test_of_many_mistakes_the_first_are_told(tmp_path):
    lines = refused(tmp_path, GOOD + "".join(f"x{i}: 1\n" for i in range(500)))
    assert lines[0].startswith("error: x0 (line 3): unknown key")
    assert lines[-1] == "error: 450 more mistakes; fix these first"


def test_a_dimension_can_be_overridden(tmp_path):
    (tmp_path / "spec.yaml").write_text(DIMENSION)
    spec = load_sweep(tmp_path / "spec.yaml", ["search.space.train.lr={choices: [0.1, 0.2]}"])
    assert spec.search.space["train.lr"].choices == (0.1, 0.2)


def test_a_store_that_the_system_will_not_look_at_is_a_mistake(tmp_path):
    def known(name):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "spec.yaml").write_text(GOOD.replace("soundscapes", "/secret"))
    with pytest.raises(UserError) as caught:
        load_sweep(tmp_path / "spec.yaml", known_stores=known)
    assert caught.value.problems == [
        "store (line 2): '/secret': Permission denied; give the path of an embedding store"
    ]


def test_dates_and_numbers_are_read_as_people_mean_them(tmp_path):
    (tmp_path / "spec.yaml").write_text(GOOD.replace("a\n", "2024-01-01\n", 1) + "seeds: 1_0\n")
    spec = load_sweep(tmp_path / "spec.yaml")
    assert (spec.name, spec.seeds) == ("2024-01-01", 10)


@pytest.mark.parametrize("override", SETS, ids=lambda override: ascii(override[:20]))
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
        "import sys; from diffgap.cli.main import main\n"
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
