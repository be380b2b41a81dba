"""Saving, loading and applying a bridge."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.model import DiffGAP

CONFIG = BridgeConfig(("text", "audio"), 16, width=32, blocks=2, cdm=True, bst=True)


def unit_vectors(count=5):
    return F.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_a_saved_bridge_comes_back_the_same(tmp_path):
    torch.manual_seed(1)
    bridge = DiffGAP(CONFIG)
    bridge.save_pretrained(tmp_path, signature="0123456789ab")
    again = DiffGAP.from_pretrained(tmp_path)
    assert again.config == CONFIG
    assert again.bridge(unit_vectors(), "text").equal(bridge.bridge(unit_vectors(), "text"))


def test_a_frozen_baseline_can_be_saved_too(tmp_path):
    config = BridgeConfig(("text", "audio"), 16, width=32, blocks=2, cdm=False, bst=False)
    DiffGAP(config).save_pretrained(tmp_path)
    assert DiffGAP.from_pretrained(tmp_path).directions == ()


@pytest.mark.parametrize("cls", ["base import Bridge", "model import DiffGAP"])
def test_loading_needs_one_import_and_neither_ray_nor_deepspeed_nor_mlflow(tmp_path, cls):
    DiffGAP(CONFIG).save_pretrained(tmp_path)
    script = (
        f"import sys; from diffgap.bridge.{cls} as Loader;"
        f"assert type(Loader.from_pretrained({str(tmp_path)!r})).__name__ == 'DiffGAP';"
        "heavy = {'ray', 'deepspeed', 'mlflow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_bridged_embeddings_are_unit_vectors():
    bridged = DiffGAP(CONFIG).bridge(unit_vectors(), source="audio")
    assert torch.allclose(bridged.norm(dim=-1), torch.ones(5), atol=1e-5)


def test_a_bridge_knows_its_device():
    config = BridgeConfig(("text", "audio"), 16, width=32, blocks=2, cdm=False, bst=False)
    assert DiffGAP(config).device == torch.device("cpu")  # without weights
    assert DiffGAP(CONFIG).to("meta").device == torch.device("meta")


def test_a_batch_of_one_equals_a_row_of_many():
    bridge = DiffGAP(CONFIG)
    many = bridge.bridge(unit_vectors(), "text")
    assert torch.allclose(bridge.bridge(unit_vectors()[2:3], "text"), many[2:3], atol=1e-6)


def test_untrained_directions_and_unknown_modalities_are_refused():
    one_way = DiffGAP(BridgeConfig(("text", "audio"), 16, 32, 2, cdm=True, bst=False))
    with pytest.raises(ValueError, match=r"not trained from audio; train one with bst\.enabled"):
        one_way.bridge(unit_vectors(), source="audio")
    with pytest.raises(ValueError, match="'video' is not bridged here; this bridge joins text and"):
        one_way.bridge(unit_vectors(), source="video")


def test_a_directory_without_a_bridge_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        DiffGAP.from_pretrained(tmp_path)
