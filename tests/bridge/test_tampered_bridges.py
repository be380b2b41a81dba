"""Bridges that were damaged or made to harm: refused by name, at once, whoever loads them."""

import json
import os
import re
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.files import MAX_PROBLEMS
from diffgap.bridge.methods import load_bridge, make_bridge
from diffgap.cli.main import main
from diffgap.errors import UserError

D = 16
FACTS = {
    "signature": "0123456789ab",
    "encoder": {"name": "soundscape", "checkpoint_hash": "e5a5", "preprocessing": {"rate": 16000}},
    "store": {"name": "soundscapes", "fingerprint": "fb37", "counts": {"train": 8}},
    "packages": {"torch": "2.6"},
    "trial": {"task": "text-audio", "seed": 3},
    "threads": 1,
}
METRICS = {"test/text_to_audio/R1": 37.5, "cost/train_seconds": 2.0}


def save(folder, method="diffgap", cdm=True, bst=True, kind="rerank", **options):
    torch.manual_seed(0)
    config = BridgeConfig(
        ("text", "audio"), D, 8, 2, cdm, bst, method, options=options, score=ScoreConfig(kind)
    )
    bridge = make_bridge(config)
    bridge.push(folder, facts={**FACTS, "metrics": METRICS})
    return bridge


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "b")
    return tmp_path / "b"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(folder, commands=("bridge", "push")):
    """The problems that every way of loading names, each within a second."""
    before = time.process_time()  # a busy machine has no part in it
    with pytest.raises(UserError) as raised:
        load_bridge(folder)
    assert time.process_time() - before < 1
    with pytest.raises((ValueError, FileNotFoundError)):
        Bridge.from_pretrained(folder)
    np.save(folder.parent / "in.npy", np.eye(3, D, dtype=np.float32))
    arguments = {
        "bridge": [folder, folder.parent / "in.npy", folder.parent / "out.npy"],
        "push": [folder, folder.parent / "pushed"],
        "retrieve": [folder, "rain", "--store", "soundscapes"],
        "evaluate": [folder, "--store", folder.parent / "no store"],
        "generate": [folder, "--prompt", "rain", "--out", folder.parent / "out.wav"],
    }
    for command in commands:
        done = CliRunner().invoke(main, [command, *map(str, arguments[command])])
        assert done.exit_code == 2, (command, done.output, done.exception)
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name, "in.npy"]
    for problem in raised.value.problems:
        assert problem.startswith("BRIDGE: "), problem
        assert str(folder) in problem, problem
        assert len(problem) < 600, problem
    return raised.value.problems


# config.json: one value changed -------------------------------------------------------------------

VALUES = {
    "blocks": [10**6, -1, 1e6, "2", None, True, [2], 10**30],
    "width": [10**9, -8, 32.5, "32"],
    "dimension": [0, 10**9, -16, 16.0, None],
    "cdm": [1, "true", None],
    "bst": [0, "yes"],
    "modalities": [["text"], ["text", "text"], "text-audio", [], ["text", 3], ["a\nb", "c"], None,
                   ["text", "audio", "video"], ["../text", "audio"]],
    "method": ["none such", 3, None, "os:system", ["diffgap"]],
    "schedule": ["none such", 1, None, {}],
    "bst_mode": ["both", 0],
    "bst_fraction": [0, 1, 2.5, "half"],
    "options": [{"scale": 1.0}, [], None, 3, {"steps": "x"}],
    "objective": [None, [], 3, {}],
    "objective.prediction": ["x1", 0, None],
    "objective.t_sampler": ["none such"],
    "objective.weight": [0.5],
    "objective.gamma": [0, -1, "5"],
    "objective.temperature": [0, 11],
    "objective.condition_dropout": [1, -0.1],
    "score": [None, "cosine", {}],
    "score.kind": ["best", "sample ", None],
    "score.draws": [10**9, 0, 2.5, "4"],
    "score.samples": [10**9],
    "score.top_k": [10**9, 0],
    "score.levels": [[0.5] * 100_000, [], [2.0], ["x"], 0.5, None, [[0.5]]],
    "score.sample_steps": [10**9, 0],
    "score.sampler": ["euler"],
    "score.seed": [-1, 2**70, 0.5],
    "score.start_t": [0, 1.5],
    "score.fusion": [-1, "1", [1]],
    "score.guidance": [0],
    "score.normalise": ["some", None],
    "score.normalise_strength": [0, 1001, "1"],
    "score.normalise_neighbours": [0, 1.5],
    "score.normalise_pool": [0, 1.5],
}  # fmt: skip
CASES = [(field, value) for field, values in VALUES.items() for value in values]


@pytest.mark.parametrize(
    ("field", "value"), CASES, ids=[f"{field}-{str(value)[:20]!r}" for field, value in CASES]
)
def test_a_wrong_value_is_refused_by_field_and_value(folder, field, value):
    *blocks, name = field.split(".")

    def change(content):
        block = content["bridge"]
        for part in blocks:
            block = block[part]
        block[name] = value

    edit(folder / "config.json", change)
    problems = refused(folder)
    assert any(f"config.json: bridge.{field}" in problem for problem in problems), problems


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1e-999e"])
def test_a_number_that_json_does_not_have_is_refused(folder, text):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"fusion": 1.0', f'"fusion": {text}'))
    (problem,) = refused(folder)
    assert "config.json: not valid JSON" in problem


@pytest.mark.parametrize("block", ["", "objective", "score"])
def test_missing_and_unknown_fields_are_all_named(folder, block):
    def change(content):
        fields = content["bridge"][block] if block else content["bridge"]
        names.extend(list(fields)[:3])
        for name in names:
            del fields[name]
        fields["surprise"] = 1

    names = []
    edit(folder / "config.json", change)
    problems = "\n".join(refused(folder))
    prefix = f"bridge.{block}." if block else "bridge."
    assert all(f"{prefix}{name} is missing" in problems for name in names)


def test_an_unknown_field_alone_is_named_by_every_command(folder):
    edit(folder / "config.json", lambda content: content["bridge"].update(surprise=1))
    (problem,) = refused(folder, ("bridge", "push", "retrieve", "evaluate", "generate"))
    assert "bridge.surprise: 1 is unknown" in problem


def test_many_mistakes_are_cut_short(folder):
    def change(content):
        content["bridge"] |= {f"key{number}": 0 for number in range(1000)}

    edit(folder / "config.json", change)
    problems = refused(folder)
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].endswith(f"{1000 - MAX_PROBLEMS} more mistakes")


TEXTS = {
    "nothing": b"",
    "no JSON": b"bridge: 1",
    "half": b'{"bridge": {"blocks": 2, ',
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "no block": b"{}",
    "a list as block": b'{"bridge": []}',
    "a number as block": b'{"bridge": 3}',
    "not UTF-8": b'{"bridge": "\xff\xfe"}',
    "halves of characters": rb'{"bridge": {}, "name": "\ud800"}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"bridge":' * 50_000,
    "deep value": b'{"bridge": {"score": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "endless digits": b'{"bridge": {"blocks": ' + b"9" * 10_000 + b"}}",
    "large": b'{"bridge": {}, "name": "' + b"x" * 2_000_000 + b'"}',
    "many keys": b"{" + b",".join(b'"k%d": 0' % i for i in range(20_000)) + b"}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_config_of_other_content_is_refused(folder, name):
    (folder / "config.json").write_bytes(TEXTS[name])
    assert "config.json: " in refused(folder)[0]


def test_a_sparse_file_of_a_terabyte_is_not_read(folder):
    whole = {"extra": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}
    contents = {"config.json": b"", "bridge.safetensors": header(whole)}
    for name, content in contents.items():
        save(folder)
        (folder / name).write_bytes(content)
        os.truncate(folder / name, 2**40 + len(content))
        assert re.search(f"{name}: \\d+ bytes, ", refused(folder)[0])


# Facts beside it, and metrics.json ----------------------------------------------------------------

WRONG_FACTS = [
    {"encoder": 3}, {"encoder": None}, {"encoder": {}}, {"encoder": {"name": 1}}, {"store": []},
    {"store": {"counts": 5}}, {"store": {"counts": {"train": "x"}}}, {"store": {"name": 4}},
    {"trial": "text"}, {"packages": []}, {"packages": {"torch": 2}}, {"threads": 0},
    {"threads": "1"}, {"signature": 12}, {"license": ["mit"]}, {"hardware": {}},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_FACTS, ids=str)
def test_wrong_facts_are_refused_by_name(folder, wrong):
    edit(folder / "config.json", lambda content: content.update(wrong))
    (name,) = wrong
    assert all(f"config.json: {name}" in problem for problem in refused(folder))


WRONG_METRICS = ["[]", "null", "{", '{"test/text_to_audio/R1": "37"}', '{"a": NaN}', '{"a": 1e999}',
                 '{"a": null}', '{"a": {}}']  # fmt: skip


@pytest.mark.parametrize("text", WRONG_METRICS)
def test_wrong_metrics_are_not_pushed(folder, text):
    (folder / "metrics.json").write_text(text)
    done = CliRunner().invoke(main, ["push", str(folder), str(folder.parent / "pushed")])
    assert done.exit_code == 2, (done.output, done.exception)
    assert "metrics.json: " in done.stderr
    assert not (folder.parent / "pushed").exists()


# bridge.safetensors -------------------------------------------------------------------------------


def header(content):
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


def with_weights(change):
    def harm(path):
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return harm


def one(value):
    return lambda weights: weights["denoiser.output.bias"].view(-1)[3:4].fill_(value)


FIRST = "denoiser.output.weight"
WEIGHTS = {
    "nothing": (lambda path: path.write_bytes(b""), "cannot be read"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
    "half a header": (lambda path: path.write_bytes(path.read_bytes()[:99]), "cannot be read"),
    "a byte more": (lambda path: path.write_bytes(path.read_bytes() + b"?"), "cannot be read"),
    "a pickle": (lambda path: torch.save({}, path), "cannot be read"),
    "a huge header": (
        lambda path: path.write_bytes((2**62).to_bytes(8, "little")), "cannot be read"
    ),
    "shapes without data": (
        lambda path: path.write_bytes(
            header({FIRST: {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}})
        ),
        "cannot be read",
    ),
    "a deep header": (
        lambda path: path.write_bytes((9000).to_bytes(8, "little") + b"[" * 9000), "cannot be read"
    ),
    "NaN": (with_weights(one(torch.nan)), "denoiser.output.bias has NaN or infinite"),
    "infinite": (with_weights(one(-torch.inf)), "denoiser.output.bias has NaN or infinite"),
    "one missing": (with_weights(lambda w: w.pop(FIRST)), f"lacks {FIRST}"),
    "none": (with_weights(lambda w: w.clear()), "and 16 more"),
    "one more": (with_weights(lambda w: w.update(extra=torch.zeros(2))), "holds extra, which"),
    "many more": (
        with_weights(lambda w: w.update({f"e{i}": torch.zeros(1) for i in range(3000)})),
        "and 2995 more",
    ),
    "another shape": (
        with_weights(lambda w: w.update({FIRST: torch.zeros(8, D)})), f"{FIRST} has shape (8, 16)"
    ),
    "flat": (
        with_weights(lambda w: w.update({FIRST: w[FIRST].flatten()})), f"{FIRST} has shape (128,)"
    ),
    "half precision": (
        with_weights(lambda w: w.update({FIRST: w[FIRST].half()})), "of type F16, not F32"
    ),
    "integers": (with_weights(lambda w: w.update({FIRST: w[FIRST].int()})), "of type I32"),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_wrong_weights_are_refused_by_name(folder, name):
    harm, words = WEIGHTS[name]
    harm(folder / "bridge.safetensors")
    problems = refused(folder)
    assert all("bridge.safetensors: " in problem for problem in problems)
    assert words in "\n".join(problems)


def test_sizes_are_compared_with_the_file_before_a_network_is_built(folder):
    """The largest that the bounds allow: 17 GB, were it built."""
    edit(folder / "config.json", lambda c: c["bridge"].update(width=8192, blocks=64))
    assert any("its config makes it (16, 8192)" in problem for problem in refused(folder))


@pytest.mark.parametrize("name", ["config.json", "bridge.safetensors"])
@pytest.mark.parametrize("instead", ["nothing", "a folder", "a pipe", "a loop"])
def test_other_things_in_a_files_place_are_refused(folder, name, instead):
    path = folder / name
    path.unlink()
    if instead == "a folder":
        path.mkdir()
    elif instead == "a pipe":
        os.mkfifo(path)  # reading it would wait for ever
    elif instead == "a loop":
        path.symlink_to(path)
    (problem,) = refused(folder)
    assert re.search(f"holds no {name}|cannot be read", problem)


# Combinations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments", "change", "words"),
    [
        ("close", {"kind": "bridge", "noise": 0.1}, {"score": "rerank"}, "rerank is not a score"),
        ("close", {"kind": "bridge", "noise": 0.1}, {"options": {}}, "bridge.options"),
        ("close", {"kind": "bridge", "noise": 0.1}, {"options": {"noise": -1}}, "options.noise"),
        ("deterministic", {"cdm": False, "kind": "bridge"}, {"score": "sample"}, "is not a score"),
        ("diffgap", {}, {"blocks": 0}, "width, blocks"),
        ("diffgap", {}, {"method": "close"}, "bridge.options"),
        ("mean_shift", {"kind": "cosine", "scale": 1.0}, {"options": {"scale": "x"}}, "options"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, method, arguments, change, words):
    save(tmp_path / "b", method, **arguments)

    def apply(content):
        block = content["bridge"]
        if "score" in change:
            block["score"]["kind"] = change["score"]
        block |= {name: value for name, value in change.items() if name != "score"}

    edit(tmp_path / "b" / "config.json", apply)
    assert words in "\n".join(refused(tmp_path / "b"))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("none", {"cdm": False, "bst": False, "kind": "cosine"}),
        ("center", {"kind": "cosine"}),
        ("mean_shift", {"kind": "cosine", "scale": 1}),
        ("realign", {"kind": "cosine"}),
        ("procrustes", {"kind": "cosine"}),
        ("ridge", {"kind": "bridge", "penalty": 0.1}),
        ("cca", {"kind": "cosine", "shrinkage": 0.1}),
        ("close", {"kind": "bridge", "noise": 0.1}),
        ("deterministic", {"cdm": False, "kind": "bridge"}),
        ("diffusion_bridge",
         {"kind": "sample", "radius": 5.0, "start_t": 0.6, "steps": 5, "timesteps": 1000}),
        ("diffusion_link",
         {"kind": "sample", "topology_weight": 1.0, "start_t": 0.6, "steps": 5}),
        ("diffusion_ret",
         {"kind": "rerank", "negatives": 127, "timesteps": 50, "temperature": 0.01}),
        ("diffgap", {}),
    ],
)  # fmt: skip
def test_a_bridge_of_every_method_still_loads_as_it_was(tmp_path, method, arguments):
    bridge = save(tmp_path / "b", method, **arguments)
    again = load_bridge(tmp_path / "b").cpu()
    assert again.config == bridge.config
    assert all(value.equal(again.state_dict()[n]) for n, value in bridge.state_dict().items())


def test_a_diffusion_bridge_of_the_version_that_was_another_method_is_refused(tmp_path):
    options = {"radius": 5.0, "start_t": 0.6, "steps": 5}
    save(tmp_path / "b", "diffusion_bridge", kind="sample", **options, timesteps=1000)
    edit(tmp_path / "b" / "config.json", lambda c: c["bridge"].update(options=options))
    (problem,) = refused(tmp_path / "b")
    assert "bridge.options.timesteps is missing: it is of a version that did this in" in problem
    assert "retrain it" in problem


def test_a_bridge_of_an_earlier_version_lacks_later_fields_and_loads(folder):
    def change(content):
        for name in [name for name in content["bridge"]["score"] if name.startswith("normalise")]:
            del content["bridge"]["score"][name]

    edit(folder / "config.json", change)
    assert load_bridge(folder).config.score.normalise == "none"


# Saving -------------------------------------------------------------------------------------------


def test_what_could_not_be_loaded_is_not_saved_and_what_was_there_stays(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    spoilt = load_bridge(folder).cpu()
    with torch.no_grad():
        spoilt.denoiser.output.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"denoiser\.output\.bias has NaN or infinite weights"):
        spoilt.push(folder)
    large = make_bridge(BridgeConfig(("text", "audio"), D, 8, 65, cdm=True, bst=True))
    with pytest.raises(ValueError, match=r"bridge\.blocks: 65 should be less than or equal to 64"):
        large.save_pretrained(folder)
    for facts in ({"note": torch.inf}, {"metrics": {"a": torch.nan}}):
        with pytest.raises(ValueError, match="a number that JSON does not have"):
            load_bridge(folder).push(folder, facts=facts)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_too_large_to_use_give_no_file_of_nan(folder):
    def change(weights):
        weights["denoiser.output.weight"].fill_(3e38)
        weights["denoiser.output.bias"].fill_(3e38)

    with_weights(change)(folder / "bridge.safetensors")
    np.save(folder.parent / "in.npy", np.eye(3, D, dtype=np.float32))
    paths = [folder, folder.parent / "in.npy", folder.parent / "out.npy"]
    done = CliRunner().invoke(main, ["bridge", *map(str, paths)])
    assert done.exit_code == 2, (done.output, done.exception)
    assert "BRIDGE: its vectors are not all finite" in done.stderr
    assert not paths[2].exists()
