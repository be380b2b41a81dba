"""Both roads of the paper from end to end, on random weights in the real formats: a prompt through
CLAP, a bridge and AudioLDM; a video through CAVP, a bridge and Diff-Foley."""

import numpy as np
import pytest
import soundfile
import tiny_audioldm
import tiny_diff_foley
import torch
from click.testing import CliRunner

from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.methods import make_bridge
from diffgap.cli.main import main
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.cavp_model import CAVP
from diffgap.encoders.embed import embed
from diffgap.generation import GeneratorChoice
from diffgap.generation.request import encode_videos
from diffgap.generation.scoring import generate_and_measure
from diffgap.spec import Trial
from diffgap.store.store import EmbeddingStore

pytest.importorskip("diffusers", reason="needs the extra `generate`")


def generate(*arguments):
    return CliRunner().invoke(main, ["generate", *map(str, arguments), "--steps", "2"])


def save_bridge(path, modalities, encoder):
    torch.manual_seed(0)
    bridge = make_bridge(BridgeConfig(modalities, 512, 16, 1, True, True))
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    made = {"name": encoder.name, "checkpoint_hash": encoder.checkpoint_hash, "preprocessing": {}}
    bridge.save_pretrained(path, encoder=made)


# Text, by CLAP and AudioLDM -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder with an AudioLDM, its CLAP, another CLAP, and a bridge on its own CLAP."""
    place = tmp_path_factory.mktemp("text")
    for name, seed in (("ldm", 0), ("other", 5)):
        tiny_audioldm.write_audioldm(place / name, seed)
        tiny_audioldm.write_clap(place / name, place / f"{name}-clap")
        encoder = EncoderChoice("hf_clap", str(place / f"{name}-clap")).load()
        save_bridge(place / f"{name}-bridge", ("text", "audio"), encoder)
    return place


def of_text(place, *more, bridge="ldm"):
    return generate(place / f"{bridge}-bridge", "--weights", place / "ldm", "--checkpoint",
                    place / f"{bridge}-clap", *more)  # fmt: skip


def test_a_prompt_goes_through_clap_and_audioldm(text, tmp_path):
    made = {}
    for name, condition in (("a", "bridged"), ("b", "bridged"), ("c", "query")):
        out = tmp_path / f"{name}.wav"
        done = of_text(text, "--prompt", "a dog barks", "--condition", condition, "--out", out)
        assert done.exit_code == 0, done.output
        assert "10.2 s at 16,000 Hz" in done.output
        made[name], rate = soundfile.read(out)
        assert (rate, len(made[name])) == (16_000, 163_840)
    np.testing.assert_array_equal(made["a"], made["b"])
    assert np.abs(made["a"] - made["c"]).max() > 1e-3


def test_a_bridge_of_another_clap_is_refused(text, tmp_path):
    out = tmp_path / "a.wav"
    done = of_text(text, "--prompt", "a dog barks", "--out", out, bridge="other")
    assert done.exit_code == 2
    assert "hf_clap and the text tower of audioldm are not the same CLAP (cosine" in done.stderr
    assert not out.exists()


def test_a_trial_compares_what_audioldm_makes(text, tmp_path):
    clap = str(text / "ldm-clap")
    corpus = SoundscapeCorpus({"train": 8, "val": 4, "test": 4})
    embed(corpus, EncoderChoice("hf_clap", clap), tmp_path / "store")
    trial = Trial(
        task="text-audio",
        seed=0,
        generation={
            "generator": "audioldm", "weights": str(text / "ldm"), "steps": 2, "clips": 3,
            "condition": "target", "encoder": clap,
        },
    )  # fmt: skip
    frozen = make_bridge(BridgeConfig(("text", "audio"), 512, 0, 0, False, False, "none"))
    found = generate_and_measure(trial, frozen, EmbeddingStore.open(tmp_path / "store"))
    told = ("FAD", "FD", "KL", "IS", "similarity", "fidelity")
    assert found.metrics.keys() == {f"test/generation/{name}" for name in told}
    assert all(np.isfinite(value) for value in found.metrics.values())
    assert found.facts["generation"]["generator"]["name"] == "audioldm"


# Video, by CAVP and Diff-Foley --------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A folder with checkpoints of Diff-Foley and CAVP, and a bridge on the latter."""
    place = tmp_path_factory.mktemp("video")
    tiny_diff_foley.write_checkpoint(place / "ldm.ckpt")
    torch.manual_seed(0)
    torch.save({"state_dict": CAVP().state_dict()}, place / "cavp.ckpt")
    encoder = EncoderChoice("cavp", str(place / "cavp.ckpt")).load()
    save_bridge(place / "bridge", ("video", "audio"), encoder)
    return place


def of_video(place, *more):
    return generate(place / "bridge", "--weights", place / "ldm.ckpt", "--checkpoint",
                    place / "cavp.ckpt", *more)  # fmt: skip


def test_a_video_goes_through_cavp_and_diff_foley(video, real_videos, tmp_path):
    out = tmp_path / "drum.flac"
    done = of_video(video, "--video", real_videos / "drum.mp4", "--out", out)
    assert done.exit_code == 0, done.output
    samples, rate = soundfile.read(out)
    assert (rate, len(samples)) == (16_000, 131_072)
    assert np.isfinite(samples).all()


def test_a_whole_video_may_stand_for_its_tokens(video, real_videos):
    encoder = EncoderChoice("soundscape").load()  # of any encoder, and this one is fast
    generator = GeneratorChoice("diff_foley", str(video / "ldm.ckpt")).load()
    files = [real_videos / "drum.mp4"]
    assert encode_videos(encoder, files, generator, pooled=True).queries.shape == (1, 128)


def test_a_checkpoint_of_the_wrong_kind_is_refused_by_key(video, real_videos, tmp_path):
    out = tmp_path / "a.wav"
    cavp = video / "cavp.ckpt"
    files = ("--weights", cavp, "--checkpoint", cavp, "--video", real_videos / "drum.mp4")
    done = generate(video / "bridge", *files, "--out", out)
    assert done.exit_code == 2
    assert "lacks model.diffusion_model." in done.stderr
    assert not out.exists()
