"""Optional packages that are not imported for nothing."""

import importlib
import subprocess
import sys

import pytest

from diffgap.compat.imports import without


def test_an_optional_package_seems_not_to_be_installed_within_the_block(monkeypatch, tmp_path):
    (tmp_path / "optional_part.py").write_text("here = True")
    monkeypatch.syspath_prepend(tmp_path)
    with without("optional_part"), pytest.raises(ImportError):
        importlib.import_module("optional_part")
    found = importlib.import_module("optional_part")
    with without("optional_part"):  # whoever has it keeps it
        assert importlib.import_module("optional_part") is found
    assert sys.modules.pop("optional_part") is found


def test_tune_tells_callbacks_apart_without_weights_and_biases():
    """It comes with laion-clap, and Tune would import it in every sweep."""
    script = """
import importlib.util, sys
from diffgap.compat.ray_tune import import_integrations
from ray.air._internal.usage import tag_callbacks
from ray.tune import Callback
import_integrations()
tag_callbacks([Callback()])
assert importlib.util.find_spec("wandb")
print(sorted(set(sys.modules) & {"wandb", "comet_ml", "aim"}))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.stdout == "[]\n", told.stderr
