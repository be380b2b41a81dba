"""A shared bridge: its folder, its model card, and that it comes back bit for bit."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.methods import make_bridge
from diffgap.hub import CARD
from diffgap.spec import Trial, load_sweep

METRICS = {
    "test/text_to_audio/R1": 37.44,
    "test/text_to_audio/MedR": 2.0,
    "test/audio_to_text/R1": 40.6,
    "gap/before/alignment": 0.5,
    "cost/train_seconds": 9.0,
}
STORE = {"name": "soundscapes", "fingerprint": "fb37", "counts": {"train": 8000, "test": 1000}}
ENCODER = {"name": "soundscape", "checkpoint_hash": "e5a5", "preprocessing": {}}


def make(method="diffgap", cdm=True, bst=True, **options):
    torch.manual_seed(0)
    config = BridgeConfig(("text", "audio"), 16, 32, 2, cdm, bst, method, options=options)
    bridge = make_bridge(config).eval()
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return bridge


def card_of(folder):
    front, body = (folder / CARD).read_text().removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(front), body


def test_a_pushed_bridge_comes_back_bit_for_bit(tmp_path):
    bridge = make()
    bridge.push(tmp_path / "new" / "shared", facts={"metrics": METRICS, "signature": "0123"})
    again = Bridge.from_pretrained(tmp_path / "new" / "shared")
    assert again.config == bridge.config
    assert all(v.equal(again.state_dict()[n]) for n, v in bridge.state_dict().items())
    files = {path.name for path in (tmp_path / "new" / "shared").iterdir()}
    assert files == {"README.md", "config.json", "bridge.safetensors", "metrics.json"}
    assert json.loads((tmp_path / "new" / "shared" / "metrics.json").read_text()) == METRICS
    assert json.loads((tmp_path / "new" / "shared" / "config.json").read_text())["signature"]


@pytest.mark.parametrize(
    ("method", "options"),
    [("center", {}), ("mean_shift", {"scale": 1.0}), ("close", {"noise": 0.1})],
)
def test_means_that_were_fitted_come_back_too(tmp_path, method, options):
    bridge = make(method, cdm=False, bst=False, **options)
    x, a = F.normalize(torch.randn(2, 20, 16) + 1, dim=-1)
    bridge.fit(x, a, torch.arange(20))
    bridge.push(tmp_path)
    assert Bridge.from_pretrained(tmp_path).space(x, 0).equal(bridge.space(x, 0))


def test_the_card_says_what_was_measured_on_which_split_and_nothing_else(tmp_path):
    make().push(tmp_path / "s", facts={"metrics": METRICS, "store": STORE, "encoder": ENCODER})
    front, body = card_of(tmp_path / "s")
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "diffgap"
    assert front["datasets"] == ["soundscapes"]
    (model,) = front["model-index"]
    assert [result["dataset"]["split"] for result in model["results"]] == ["test", "test"]
    assert model["results"][0]["metrics"][0]["value"] == 37.44
    assert "| test | text->audio | 37.4 | - | - | 2.0 | - |" in body
    assert "On the test split of soundscapes" in body
    assert "`soundscape`, weights `e5a5`" in body
    assert "2503.12131" in body


def test_a_hub_reads_the_results_from_the_card(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    make().push(tmp_path / "shared", facts={"metrics": METRICS, "store": STORE})
    data = hub.ModelCard.load(tmp_path / "shared" / CARD).data
    assert data.model_name == "shared"
    found = {(r.metric_name, r.dataset_split): r.metric_value for r in data.eval_results}
    assert found["text->audio R@1", "test"] == 37.44


def test_a_bridge_that_nothing_is_known_of_has_a_card_without_numbers(tmp_path):
    make("none", cdm=False, bst=False).push(tmp_path / "s")
    front, body = card_of(tmp_path / "s")
    assert "model-index" not in front
    assert "Not measured." in body
    assert "it has no network" in body
    assert not (tmp_path / "s" / "metrics.json").exists()


@pytest.mark.parametrize("bst", [True, False])
def test_the_cards_code_runs_in_the_folder(tmp_path, bst):
    make(bst=bst).push(tmp_path)
    code = card_of(tmp_path)[1].split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_cards_spec_is_the_trial_again(tmp_path):
    trial = Trial(task="text-audio", split="val", seed=7, train={"steps": 42})
    make().push(tmp_path, facts={"trial": trial.model_dump(mode="json"), "store": STORE})
    (tmp_path / "spec.yaml").write_text(card_of(tmp_path)[1].split("```yaml\n")[1].split("```")[0])
    spec = load_sweep(tmp_path / "spec.yaml", (), known_stores=lambda name: None)
    assert spec.store == "soundscapes"
    assert spec.trials() == [trial]


def test_a_foreign_readme_is_not_replaced(tmp_path):
    (tmp_path / CARD).write_text("# Mine\n")
    with pytest.raises(ValueError, match="no model card of diffgap's"):
        make().push(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CARD]


def test_pushing_again_leaves_a_repository_alone_and_no_stale_metrics(tmp_path):
    (tmp_path / ".git").mkdir()
    make().push(tmp_path, facts={"metrics": METRICS})
    make().push(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".git", "README.md", "config.json", "bridge.safetensors"}


def test_saving_makes_the_directory_and_facts_never_replace_the_config(tmp_path):
    bridge = make()
    bridge.save_pretrained(tmp_path / "a" / "b", bridge="mine")
    assert Bridge.from_pretrained(tmp_path / "a" / "b").config == bridge.config


def test_a_save_that_fails_leaves_the_bridge_that_was_there(tmp_path):
    bridge = make()
    bridge.save_pretrained(tmp_path)
    with pytest.raises(TypeError):
        make(bst=False).save_pretrained(tmp_path, fact=object())
    assert Bridge.from_pretrained(tmp_path).config == bridge.config
    assert len(list(tmp_path.iterdir())) == 2
