"""The house: imports point downwards, in no circle, and heavy libraries stay in their rooms."""

import ast
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

from diffgap.bridge import bst, config, predictions, registry, samplers, schedules, times, weights
from diffgap.bridge.config import Objective, ScoreOptions
from diffgap.generation import GENERATORS
from diffgap.spec import blocks
from diffgap.spec.blocks import OPTION_BLOCKS
from diffgap.spec.sweep import Dimension, SweepSpec, TableKind, leaf_fields
from diffgap.spec.tables import TABLES
from diffgap.spec.trial import Trial, TrialSpec

PACKAGE = Path(__file__).parents[1] / "diffgap"

LAYERS = (
    ("errors", "io", "compat"),
    ("audio", "pretrained"),
    ("bridge", "hub"),
    ("spec",),
    ("cluster", "store"),
    ("corpora",),
    ("encoders",),
    ("ledger",),
    ("tracking",),
    ("evaluation",),
    ("apply",),
    ("generation",),
    ("training",),
    ("sweep",),
    ("report",),
    ("cli",),
    ("__main__",),
)
"""Entries of the package's top, from the lowest; one imports its own layer and those before it."""

ROOMS = {
    "ray": ("cluster", "compat", "encoders", "sweep"),
    "deepspeed": ("compat", "training"),
    "mlflow": ("tracking",),
    "optuna": ("compat", "spec", "sweep", "report"),
    "diffusers": ("generation",),
    "transformers": ("encoders", "generation"),
    "laion_clap": ("encoders",),
    "matplotlib": ("report",),
    "click": ("cli",),
}
"""Where a heavy library may be imported."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name: str) -> set[str]:
    """What a module imports, within functions and under TYPE_CHECKING too, as dotted names."""
    names = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


GRAPH = {name: {target for target in imports(name) if target in MODULES} for name in MODULES}


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_point_downwards():
    height = {entry: number for number, layer in enumerate(LAYERS) for entry in layer}
    for name, targets in GRAPH.items():
        if name == "diffgap":
            continue  # its front names what is public, lazily
        for target in targets - {"diffgap"}:
            lower, upper = target.split(".")[1], name.split(".")[1]
            assert height[lower] <= height[upper], f"{name} imports {target}, which is above it"


def test_every_entry_of_the_top_has_a_layer():
    top = {name.split(".")[1] for name in MODULES if name != "diffgap"}
    assert top == {entry for layer in LAYERS for entry in layer}
    assert len(top) <= 24


@pytest.mark.parametrize("library", ROOMS)
def test_heavy_libraries_are_imported_in_few_folders(library):
    for name in MODULES:
        if any(target.split(".")[0] == library for target in imports(name)):
            assert name.split(".")[1] in ROOMS[library], f"{name} imports {library}"


def test_a_bridge_needs_torch_alone():
    for name in MODULES:
        if name.startswith("diffgap.bridge"):
            ours = {target.split(".")[1] for target in imports(name) if target in MODULES}
            assert ours <= {"bridge", "hub", "errors", "io"}, name


# Registries and the spec's choices ---------------------------------------------------------------


def choices(model, field) -> set[str]:
    return set(get_args(model.model_fields[field].annotation))


def test_the_specs_choices_are_the_registries():
    assert choices(blocks.CDM, "schedule") == set(schedules.SCHEDULES)
    assert choices(blocks.CDM, "prediction") == set(predictions.PREDICTIONS)
    assert choices(blocks.TSampler, "kind") == set(times.T_SAMPLERS)
    assert choices(blocks.Weight, "kind") == set(weights.WEIGHTS)
    assert choices(blocks.BST, "mode") == set(bst.MODES)
    assert choices(blocks.Score, "sampler") == set(samplers.SAMPLERS)
    assert choices(blocks.Score, "kind") == set(get_args(config.ScoreKind))
    assert set(get_args(TableKind)) == set(TABLES)
    assert choices(blocks.Generation, "generator") == {"none", *GENERATORS}
    assert choices(TrialSpec, "method") == set(registry.METHODS)


def test_every_field_that_is_a_tuple_takes_yamls_lists():
    """Specs turn lists into tuples by a field's name: one that is added has to be named there."""
    (decorator,) = blocks.Model.__pydantic_decorators__.field_validators.values()
    models = [SweepSpec, Trial, *OPTION_BLOCKS.values()]
    leaves = [leaf for model in models for leaf in leaf_fields(model).values()]
    leaves += [(Dimension, name) for name in Dimension.model_fields]
    tuples = {name for model, name in leaves if "tuple" in str(model.model_fields[name].annotation)}
    assert tuples == set(decorator.info.fields)


def test_a_method_with_settings_has_a_block_of_its_name():
    for name, method in registry.METHODS.items():
        assert (name in TrialSpec.model_fields) == bool(method.options)
        if method.options:
            block = getattr(TrialSpec(), name)
            assert block.model_dump() == {f.name: f.default for f in fields(method.options)}


def test_a_bridges_defaults_are_a_trials():
    trial = TrialSpec()
    objective = Objective()
    for field in fields(ScoreOptions):
        assert getattr(trial.score, field.name) == field.default
    for name in type(trial.loss).model_fields:
        assert getattr(trial.loss, name) == getattr(objective, name)
    cdm = trial.cdm
    assert (cdm.prediction, cdm.schedule) == (objective.prediction, config.BridgeConfig.schedule)
    assert (cdm.t_sampler.kind, cdm.t_sampler.power) == (objective.t_sampler, objective.power)
    assert (cdm.t_sampler.mean, cdm.t_sampler.std) == (objective.t_mean, objective.t_std)
    assert (cdm.weight.kind, cdm.weight.gamma) == (objective.weight, objective.gamma)
    assert cdm.weight.bias == objective.bias
    assert (trial.bst.mode, trial.bst.fraction) == (
        config.BridgeConfig.bst_mode,
        config.BridgeConfig.bst_fraction,
    )
