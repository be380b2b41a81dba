"""Every way of being wrong has its line: the field, the place, what is allowed, the remedy."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgap.errors import UserError
from diffgap.spec import load_sweep

GOOD = """\
name: try
store: soundscapes
trial:
  cdm: {enabled: true}
  train:
    steps: 10
    batch_size: 64
"""


def known(name):
    return None if name == "soundscapes" else f"unknown store {name!r}; did you mean soundscapes?"


def load(tmp_path, text, *overrides):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return load_sweep(path, overrides, known_stores=known)


def problems(tmp_path, text, *overrides):
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, *overrides)
    return caught.value.problems


WRONG = {
    "misspelt key": (
        GOOD.replace("enabled", "enabeld"),
        "trial.cdm.enabeld (line 4): unknown key; did you mean enabled?",
    ),
    "unknown block": (
        GOOD + "seedz: 3\n",
        "seedz (line 8): unknown key; did you mean seeds?",
    ),
    "wrong type": (
        GOOD.replace("10", "many"),
        "trial.train.steps (line 6): 'many' is not an integer; "
        "give a number of optimiser steps such as 1500",
    ),
    "text for a flag": (
        GOOD.replace("true", "maybe"),
        "trial.cdm.enabled (line 4): 'maybe' is not true or false; the default is true",
    ),
    "flag for a number": (
        GOOD.replace("10", "true"),
        "trial.train.steps (line 6): True is not an integer; "
        "give a number of optimiser steps such as 1500",
    ),
    "fraction for a count": (
        GOOD.replace("64", "64.5"),
        "trial.train.batch_size (line 7): 64.5 is not an integer; the default is 1024",
    ),
    "out of an open range": (
        GOOD + "  bst: {fraction: 1.4}\n",
        "trial.bst.fraction (line 8): 1.4 is not in (0, 1); use 0.5 for an even split",
    ),
    "below a closed range": (
        GOOD.replace("10", "0"),
        "trial.train.steps (line 6): 0 is not in [1, 10000000]; "
        "give a number of optimiser steps such as 1500",
    ),
    "unknown choice": (
        GOOD.replace("enabled: true", "schedule: cosin"),
        "trial.cdm.schedule (line 4): 'cosin' is not one of cosine, linear, scaled_linear, "
        "sigmoid, edm, flow; did you mean cosine?",
    ),
    "a value for a block": (
        GOOD + "resources: 4\n",
        "resources (line 8): 4 is not a block of keys; see the example specs in sweeps/",
    ),
    "a bad noise level": (
        GOOD + "  score: {levels: [0.3, 1.5]}\n",
        "trial.score.levels[1] (line 8): 1.5 is not in (0, 1)",
    ),
    "unknown store": (
        GOOD.replace("soundscapes", "soundscape"),
        "store (line 2): unknown store 'soundscape'; did you mean soundscapes?",
    ),
    "missing store": (
        GOOD.replace("store: soundscapes\n", ""),
        "store: is missing; add store: to the file",
    ),
    "a name for a path": (
        GOOD.replace("name: try", "name: ../x"),
        "name (line 1): '../x' is not a name; use letters, digits",
    ),
    "twice the same key": (
        GOOD + "name: again\n",
        "name (line 1): is given twice, at line 1 and line 8; keep one",
    ),
    "seeds of no kind": (
        GOOD + "seeds: none\n",
        "seeds (line 8): 'none' is neither in [1, 10000] nor a list of whole numbers; use 3",
    ),
    "a seed twice": (
        GOOD + "seeds: [1, 2, 1]\n",
        "seeds (line 8): [1, 2, 1] has a seed twice; keep each once",
    ),
    "axis of no field": (
        GOOD + "axes: {cdm.enabeld: [true]}\n",
        "axes.cdm.enabeld (line 8): not a field of a trial; did you mean cdm.enabled?",
    ),
    "axis of a block": (
        GOOD + "axes: {cdm: [1]}\n",
        "axes.cdm (line 8): not a field of a trial; it is a block; use cdm.enabled",
    ),
    "axis without values": (
        GOOD + "axes: {cdm.enabled: []}\n",
        "axes.cdm.enabled (line 8): is empty; list the values to try",
    ),
    "axis with one value": (
        GOOD + "axes: {cdm.enabled: true}\n",
        "axes.cdm.enabled (line 8): True is not a list",
    ),
    "axis with a bad value": (
        GOOD + "axes:\n  train.lr:\n    - 0.1\n    - -1\n",
        "axes.train.lr[1] (line 11): -1 is not in (0, 1]; the default is 0.002",
    ),
    "axis with a value twice": (
        GOOD + "axes: {train.lr: [0.1, 0.1]}\n",
        "axes.train.lr (line 8): [0.1, 0.1] has a value twice; keep each once",
    ),
    "batch that cannot be shared": (
        GOOD + "resources: {workers: 3}\n",
        "trial.train.batch_size (line 7): 64 cannot be shared evenly by 3 workers; use 63",
    ),
    "axis batch that cannot be shared": (
        GOOD + "axes: {train.batch_size: [64, 66]}\nresources: {workers: 4}\n",
        "axes.train.batch_size (line 8): 66 cannot be shared evenly by 4 workers; use 64",
    ),
    "batch that cannot be shared by micro-batches": (
        GOOD + "    accumulation: 3\nresources: {workers: 4}\n",
        "trial.train.batch_size (line 7): 64 cannot be shared evenly by 4 x 3 micro-batches "
        "(workers x train.accumulation); use 60",
    ),
    "axis micro-batches that leave some empty": (
        GOOD.replace("64", "4") + "axes: {train.accumulation: [1, 8]}\n",
        "trial.train.batch_size (line 7): 4 cannot be shared evenly by 1 x 8 micro-batches "
        "(workers x train.accumulation); use 8",
    ),
    "no micro-batches": (
        GOOD + "    accumulation: 0\n",
        "trial.train.accumulation (line 8): 0 is not in [1, 4096]; the default is 1",
    ),
    "offloading what is not shared out": (
        GOOD + "    offload: optimizer\n",
        "trial.train.offload (line 8): 'optimizer' needs train.zero_stage 1 or more, not 0; use "
        "train.zero_stage 1, or offload none",
    ),
    "offloading whole weights": (
        GOOD + "    offload: parameters\n    zero_stage: 2\n",
        "trial.train.offload (line 8): 'parameters' needs train.zero_stage 3, not 2; use "
        "train.zero_stage 3, or offload none",
    ),
    "offloading to nowhere": (
        GOOD + "    offload: cpu\n",
        "trial.train.offload (line 8): 'cpu' is not one of none, optimizer, parameters; known: ",
    ),
    "a stage that is none": (
        GOOD + "    zero_stage: 4\n",
        "trial.train.zero_stage (line 8): 4 is not in [0, 3]; the default is 0",
    ),
    "a variable that could decide a result": (
        GOOD + "resources: {environment: {OMP_NUM_THREADS: 1}}\n",
        "resources.environment.OMP_NUM_THREADS (line 8): is not a setting of communication; names "
        "begin with FI_, GLOO_, NCCL_, TORCH_NCCL_, UCX_",
    ),
    "a misspelt variable": (
        GOOD + "resources:\n  environment:\n    NCLC_SOCKET_IFNAME: eth0\n",
        "resources.environment.NCLC_SOCKET_IFNAME (line 10): is not a setting of communication; "
        "names begin with FI_, GLOO_, NCCL_, TORCH_NCCL_, UCX_; did you mean NCCL_SOCKET_IFNAME?",
    ),
    "a variable in small letters": (
        GOOD + "resources: {environment: {nccl_debug: INFO}}\n",
        "resources.environment.nccl_debug (line 8): is not a setting of communication; names begin "
        "with FI_, GLOO_, NCCL_, TORCH_NCCL_, UCX_; did you mean NCCL_DEBUG?",
    ),
    "a variable that is a flag": (
        GOOD + "resources: {environment: {NCCL_IB_DISABLE: true}}\n",
        "resources.environment.NCCL_IB_DISABLE (line 8): True is not a text or number; quote it, "
        "as in NCCL_SOCKET_IFNAME: 'eth0'",
    ),
    "a variable without a value": (
        GOOD + "resources: {environment: {NCCL_DEBUG: }}\n",
        "resources.environment.NCCL_DEBUG (line 8): None is not a text or number; quote it",
    ),
    "a variable of two lines": (
        GOOD + 'resources: {environment: {NCCL_DEBUG: "a\\nb"}}\n',
        "resources.environment.NCCL_DEBUG (line 8): 'a\\nb' is not a text or number",
    ),
    "a variable that names a library to load": (
        GOOD + "resources: {environment: {NCCL_NET_PLUGIN: /tmp/x.so}}\n",
        "resources.environment.NCCL_NET_PLUGIN (line 8): can make a library load code or run a "
        "command, which a spec must not; remove it, or set it on the nodes themselves",
    ),
    "variables in a list": (
        GOOD + "resources: {environment: [NCCL_DEBUG]}\n",
        "resources.environment (line 8): ['NCCL_DEBUG'] is not a block of keys; as in "
        "environment: {NCCL_SOCKET_IFNAME: eth0}",
    ),
    "split that leaves nothing": (
        GOOD.replace("64", "2") + "  bst: {fraction: 0.9}\n",
        "trial.bst.fraction (line 8): 0.9 of a batch of 2 leaves one direction without a pair",
    ),
    "two ranks on one GPU": (
        GOOD + "resources:\n  workers: 2\n  gpus_per_worker: 0.5\n",
        "resources.gpus_per_worker (line 10): 0.5 with 2 workers would put two ranks on one GPU",
    ),
    "a pack that is none": (
        GOOD + "resources: {pack: 0}\n",
        "resources.pack (line 8): 0 is not a number in [1, 1024], auto or off; use auto",
    ),
    "a misspelt way to pack": (
        GOOD + "resources: {pack_mode: in-turn}\n",
        "resources.pack_mode (line 8): 'in-turn' is not one of auto, in_turn, batched",
    ),
    "one trial at once": (
        GOOD + "resources: {pack: off, pack_mode: batched}\n",
        "resources.pack_mode (line 8): 'batched' with pack off has only one trial to train at once",
    ),
    "a batch of shared-out weights": (
        GOOD + "    zero_stage: 1\nresources: {pack_mode: batched}\n",
        "resources.pack_mode (line 9): 'batched' needs train.zero_stage 0; use in_turn",
    ),
    "two GPUs for one rank": (
        GOOD + "resources: {gpus_per_worker: 2}\n",
        "resources.gpus_per_worker (line 8): 2 is more than a worker can use",
    ),
    "a score that uses no bridge": (
        GOOD + "  score: {kind: cosine}\n",
        "trial.score.kind (line 8): 'cosine' would never use the trained bridges",
    ),
    "a task that is none": (
        GOOD + "task: audio\n",
        "task (line 8): 'audio' is not a name; use two modalities as in text-audio",
    ),
    "a method that decides on CDM": (
        GOOD + "  method: close\n",
        "trial.cdm.enabled (line 4): is fixed by method close; remove it",
    ),
    "methods crossed with CDM": (
        GOOD + "axes: {method: [none, diffgap], cdm.enabled: [true]}\n",
        "axes.cdm.enabled (line 8): is fixed by method none",
    ),
    "nothing to minimise": (
        GOOD + "  loss: {denoising_weight: 0, infonce_weight: 0}\n",
        "trial.loss.denoising_weight (line 8): 0 with infonce_weight 0 leaves nothing to minimise",
    ),
    "a search of no field": (
        GOOD + "search: {space: {train.rl: {low: 1, high: 2}}}\n",
        "search.space.train.rl (line 8): not a field of a trial; did you mean train.lr?",
    ),
    "half a range": (
        GOOD + "search: {space: {train.lr: {low: 0.1}}}\n",
        "search.space.train.lr (line 8): needs low and high, or choices",
    ),
    "a range backwards": (
        GOOD + "search: {space: {train.lr: {low: 0.1, high: 0.01}}}\n",
        "search.space.train.lr (line 8): low 0.1 is not below high 0.01; swap them",
    ),
    "a logarithm of nothing": (
        GOOD + "search: {space: {loss.condition_noise: {low: 0.0, high: 1.0, log: true}}}\n",
        "search.space.loss.condition_noise (line 8): low 0.0 has no logarithm",
    ),
    "a range that leaves the field's": (
        GOOD + "search: {space: {bst.fraction: {low: 0.5, high: 1.5}}}\n",
        "search.space.bst.fraction[1] (line 8): 1.5 is not in (0, 1)",
    ),
    "a bad choice": (
        GOOD + "search: {space: {cdm.prediction: {choices: [x0, x1]}}}\n",
        "search.space.cdm.prediction.choices[1] (line 8): 'x1' is not one of x0, eps, v",
    ),
    "an axis that is searched": (
        GOOD + "axes: {train.lr: [0.1]}\nsearch: {space: {train.lr: {low: 0.3, high: 0.7}}}\n",
        "axes.train.lr (line 8): is searched as well; keep it in axes or in search.space",
    ),
    "a population that cannot change": (
        GOOD + "search: {space: {denoiser.width: {choices: [8, 16]}}}\n"
        "scheduler: {kind: pbt, interval: 2}\n",
        "search.space.denoiser.width (line 8): cannot change while a trial trains",
    ),
    "generations between epochs": (
        GOOD + "search: {space: {train.lr: {low: 0.001, high: 0.01}}}\n"
        "scheduler: {kind: pbt, interval: 3}\n",
        "scheduler.interval (line 9): 3 is not a multiple of train.epoch_steps",
    ),
    "more trials than a sweep may have": (
        GOOD + "seeds: 10000\naxes: {train.lr: [0.1, 0.2]}\n",
        "axes (line 9): makes 20000 trials with its seeds; a sweep has at most 10000",
    ),
    "a scheduler without a search": (
        GOOD + "scheduler: {min_steps: 5}\n",
        "scheduler (line 8): has no search to schedule; add search:",
    ),
    "a rung past the end": (
        GOOD
        + "search: {space: {bst.fraction: {low: 0.3, high: 0.7}}}\nscheduler: {min_steps: 10}\n",
        "scheduler.min_steps (line 9): 10 is past the last of 10 steps; use 3",
    ),
    "an anchor": (
        GOOD.replace("{enabled: true}", "&a {enabled: true}"),
        "{path} (line 4, column 8): cannot be read as YAML: anchors and aliases (&, *) are not",
    ),
    "a Python object": (
        GOOD.replace("10", "!!python/object:os.system x"),
        "trial.train.steps (line 6): 'x' cannot be read as tag:yaml.org,2002:python",
    ),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG.keys())
def test_each_mistake_is_told_with_its_place_and_remedy(tmp_path, text, expected):
    expected = expected.replace("{path}", str(tmp_path / "spec.yaml"))
    assert any(line.startswith(expected) for line in problems(tmp_path, text))


WHOLE_FILE = {
    "no file": (None, "No such file"),
    "not YAML": ("name: [\n", "(line 2, column 1): cannot be read as YAML"),
    "empty": ("", "not a mapping; start it with name: and store:"),
    "a list": ("- 1\n", "not a mapping"),
    "Latin-1": ("name: caf\xe9\n", "not UTF-8 at byte 9"),
    "a deep nest": ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
}


@pytest.mark.parametrize(("text", "expected"), WHOLE_FILE.values(), ids=WHOLE_FILE.keys())
def test_a_file_that_is_no_spec_is_refused_in_one_line(tmp_path, text, expected):
    path = tmp_path / "spec.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load_sweep(path)
    assert len(caught.value.problems) == 1
    assert expected in caught.value.problems[0]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
name: try
store: soundscape
trial:
  cdm: {enabeld: true}
  train:
    steps: many
    batch_size: 65
resources: {workers: 2}
"""
    starts = [
        "store (line 2): unknown store",
        "trial.cdm.enabeld (line 4): unknown key; did you mean enabled?",
        "trial.train.steps (line 6): 'many' is not an integer",
        "trial.train.batch_size (line 7): 65 cannot be shared evenly by 2 workers; use 64",
    ]
    lines = problems(tmp_path, text)
    assert len(lines) == 4
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))


def test_overrides_win_and_are_named_where_they_are_wrong(tmp_path):
    spec = load(
        tmp_path, GOOD, "trial.train.steps=20", "trial.train.lr=1e-4", "seeds=[4, 5]",
        "axes.bst.enabled=[true, false]",
    )  # fmt: skip
    assert (spec.trial.train.steps, spec.trial.train.lr, spec.seed_list) == (20, 1e-4, [4, 5])
    assert spec.axes == {"bst.enabled": [True, False]}
    lines = problems(tmp_path, GOOD, "trial.train.stepz=5", "seeds", "trial.cdm.schedule=[")
    assert (
        "trial.train.stepz (--set trial.train.stepz=5): unknown key; did you mean steps?" in lines
    )
    assert "--set seeds: not KEY=VALUE; as in --set seeds=5" in lines
    assert "--set trial.cdm.schedule=[: the value is not valid YAML; quote it" in lines


def test_variables_of_workers_are_texts_and_can_be_overridden(tmp_path):
    text = GOOD + "resources: {environment: {NCCL_IB_TIMEOUT: 22, NCCL_DEBUG: INFO}}\n"
    spec = load(tmp_path, text, "resources.environment.NCCL_SOCKET_IFNAME=^docker0,lo")
    assert spec.resources.environment == {
        "NCCL_IB_TIMEOUT": "22", "NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "^docker0,lo",
    }  # fmt: skip


CODE = (
    "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_PROFILER_PLUGIN", "NCCL_ENV_PLUGIN",
    "NCCL_CONF_FILE", "UCX_MODULE_DIR", "UCX_MODULES", "UCX_GDB_COMMAND", "UCX_HANDLE_ERRORS",
    "UCX_CONFIG_FILE", "FI_PROVIDER_PATH", "TORCH_NCCL_DEBUG_INFO_PIPE_FILE",
)  # fmt: skip
FILES = (
    "NCCL_DEBUG_FILE", "NCCL_TOPO_DUMP_FILE", "NCCL_GRAPH_DUMP_FILE", "UCX_LOG_FILE",
    "UCX_STATS_DEST", "UCX_PROFILE_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
)  # fmt: skip
ELSEWHERE = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PATH",
             "TORCH_EXTENSIONS_DIR", "CUDA_HOME", "CXX")  # fmt: skip
HONEST = (
    "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_TOPO_FILE",
    "NCCL_NET_GDR_LEVEL", "NCCL_PXN_DISABLE", "FI_PROVIDER", "FI_EFA_USE_DEVICE_RDMA", "UCX_TLS",
    "UCX_MEM_MMAP_HOOK_MODE", "GLOO_SOCKET_IFNAME", "TORCH_NCCL_DUMP_ON_TIMEOUT",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC",
)  # fmt: skip


def test_variables_that_are_code_or_name_files_to_write_are_refused_and_no_others(tmp_path):
    names = (*CODE, *FILES, *ELSEWHERE, *HONEST)
    block = ", ".join(f"{name}: x" for name in names)
    lines = problems(tmp_path, GOOD + f"resources: {{environment: {{{block}}}}}\n")
    refused = [line.split()[0].removeprefix("resources.environment.") for line in lines]
    assert set(refused) == {*CODE, *FILES, *ELSEWHERE}


def test_numbers_are_read_as_people_write_them(tmp_path):
    text = GOOD + "    lr: 1e-3\n    weight_decay: 0\n"
    train = load(tmp_path, text).trial.train
    assert (train.lr, train.weight_decay) == (0.001, 0.0)


WORDS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["name", "store", "task", "trial", "axes", "seeds", "resources", "report", "trial.cdm",
     "trial.train.steps", "trial.score.levels", "trial.bst.fraction", "axes.train.lr", "x"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(key=KEYS, value=VALUES)
def test_whatever_stands_in_a_file_it_is_a_spec_or_a_readable_mistake(tmp_path_factory, key, value):
    import yaml

    tree = yaml.safe_load(GOOD)
    block = tree
    *path, last = key.split(".", 1) if key.startswith("axes.") else key.split(".")
    for part in path:
        block = block.setdefault(part, {})
    block[last] = value
    began = time.monotonic()
    try:
        load(tmp_path_factory.mktemp("spec"), yaml.safe_dump(tree, allow_unicode=True))
        lines = []
    except UserError as error:
        lines = error.problems
    assert not any("\n" in line or "Traceback" in line for line in lines)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(("value", "pack"), [("off", "off"), ("auto", "auto"), ("8", 8)])
def test_a_pack_is_a_word_or_a_number(tmp_path, value, pack):
    spec = load(tmp_path, GOOD + f"resources: {{pack: {value}}}\n")
    assert spec.resources.pack == pack
