"""AudioLDM: the real pipeline of diffusers, offline, on random weights in the hub's format."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_audioldm
import torch
from safetensors.torch import load_file, save_file

from diffgap.errors import UserError
from diffgap.generation import GeneratorChoice
from diffgap.generation.audioldm import NETWORKS, AudioLDM
from diffgap.generation.base import Sampling

pytest.importorskip("diffusers", reason="needs the extra `generate`")

FEW = Sampling(steps=2, guidance=2.5)
FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "vocoder": "model.safetensors",
}
TEXTS = ["a dog barks", "rain falls on the roof", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("audioldm") / "tiny"
    tiny_audioldm.write_audioldm(path)
    return path


@pytest.fixture(scope="module")
def generator(folder):
    return GeneratorChoice("audioldm", str(folder)).load()


@pytest.fixture(scope="module")
def conditions():
    vectors = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def clips(generator, conditions):
    return generator.generate(conditions, [1, 2, 3], FEW)


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "damaged")


def far(a, b):
    """Clips that differ by more than rounding; 1e-5 is what a batch changes."""
    return np.abs(a - b).max() > 1e-3


def test_clips_have_the_length_that_it_was_trained_on(generator, clips):
    assert (generator.name, generator.dimension, generator.tokens) == ("audioldm", 512, None)
    assert (generator.rate, generator.seconds) == (16_000, 10.24)
    assert generator.defaults == Sampling(steps=10, guidance=2.5)
    assert len(generator.weights_hash) == 64
    assert clips.shape == (3, 163_840)
    assert clips.dtype == np.float32
    assert np.isfinite(clips).all()
    assert 0.01 < np.abs(clips).max() <= 1


def test_a_seed_decides_its_clip_whatever_the_batch(generator, conditions, clips):
    for i in (0, 2):
        alone = generator.generate(conditions[i : i + 1], [i + 1], FEW)
        assert np.abs(alone[0] - clips[i]).max() < 1e-4
    assert (generator.generate(conditions, [1, 2, 3], FEW) == clips).all()
    assert far(generator.generate(conditions[:1], [4], FEW)[0], clips[0])


def test_the_condition_and_its_guidance_are_heard(generator, conditions, clips):
    other = generator.generate(conditions[1:2], [1], FEW)[0]
    unguided = generator.generate(conditions[:1], [1], Sampling(2, 1.0))[0]
    guided = generator.generate(conditions[:1], [1], Sampling(2, 7.0))[0]
    assert far(other, clips[0])
    assert far(unguided, clips[0])
    assert far(guided, clips[0])


def test_an_embedding_of_text_makes_what_the_text_makes(generator):
    # The whole pipeline from words on, as diffusers runs it.
    expected = generator._pipeline(
        TEXTS[0],
        audio_length_in_s=10.24,
        num_inference_steps=2,
        guidance_scale=2.5,
        generator=torch.Generator().manual_seed(7),
    ).audios
    found = generator.generate(generator.encode_text(TEXTS[:1]), [7], FEW)
    assert np.abs(found - expected).max() < 1e-4


def test_texts_are_encoded_to_unit_vectors_one_by_one_or_together(generator):
    together = generator.encode_text(TEXTS)
    assert together.shape == (3, 512)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for i, text in enumerate(TEXTS):
        assert np.abs(generator.encode_text([text])[0] - together[i]).max() < 1e-5
    assert generator.encode_text(["rain " * 2000]).shape == (1, 512)


def test_the_text_tower_is_clap(folder, generator, tmp_path):
    """The same weights in transformers' ClapModel give the same vectors of text."""
    from diffgap.encoders import EncoderChoice

    tiny_audioldm.write_clap(folder, tmp_path)
    encoder = EncoderChoice("hf_clap", str(tmp_path)).load()
    assert np.abs(encoder.encode_text(TEXTS) - generator.encode_text(TEXTS)).max() < 1e-5


@pytest.mark.parametrize("part", NETWORKS)
def test_weights_are_refused_by_component_and_name(damaged, part):
    path = damaged / part / FILES[part]
    weights = load_file(path)
    gone, bent = sorted(weights)[0], sorted(weights)[1]
    del weights[gone]
    weights["extra.weight"] = torch.zeros(1)
    weights[bent] = torch.zeros(3, 3)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError) as refused:
        AudioLDM.load(str(damaged))
    lacks, holds, shape = (p.split("damaged: ")[1] for p in refused.value.problems)
    assert lacks == f"{part} lacks {gone}"
    assert holds == f"{part} holds extra.weight, which the model does not have"
    assert shape == f"{part} has {bent} in another shape"


@pytest.mark.parametrize("part", NETWORKS)
def test_a_missing_or_damaged_component_is_named(damaged, part):
    path = damaged / part / FILES[part]
    path.write_bytes(b"no weights" * 10)
    with pytest.raises(UserError, match=f"damaged' has no {part} that loads"):
        AudioLDM.load(str(damaged))
    path.unlink()
    with pytest.raises(UserError, match=f"damaged' has no {part} that loads"):
        AudioLDM.load(str(damaged))
    edit_index(damaged, **{part: [None, None]})
    with pytest.raises(UserError, match=f"damaged' has no {part}; give a hub id"):
        AudioLDM.load(str(damaged))


def test_a_missing_tokenizer_is_no_empty_one(damaged):
    shutil.rmtree(damaged / "tokenizer")
    with pytest.raises(UserError, match=r"files of the tokenizer are missing"):
        AudioLDM.load(str(damaged))


def test_a_missing_scheduler_is_named(damaged):
    shutil.rmtree(damaged / "scheduler")
    with pytest.raises(UserError, match=r"no file named scheduler_config.json"):
        AudioLDM.load(str(damaged))


def test_another_pipeline_is_refused_by_its_name(damaged):
    edit_index(damaged, text_encoder=["transformers", "CLIPTextModel"])
    with pytest.raises(UserError, match=r"CLIPTextModel for its text_encoder, not ClapText"):
        AudioLDM.load(str(damaged))
    edit_index(damaged, _class_name="StableDiffusionPipeline")
    with pytest.raises(UserError, match=r"is of StableDiffusionPipeline, not of AudioLDMPipeline"):
        AudioLDM.load(str(damaged))


def edit_index(folder, **changes):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--weights: '.*gone' is not a folder; give a hub id such"):
        AudioLDM.load(str(tmp_path / "gone"))
    (tmp_path / "file.ckpt").write_text("no folder")
    with pytest.raises(UserError, match=r"--weights: '.*file.ckpt' is not a folder"):
        AudioLDM.load(str(tmp_path / "file.ckpt"))
    with pytest.raises(UserError, match=r"cannot be loaded: .*no file named model_index.json"):
        AudioLDM.load(str(tmp_path))
    with pytest.raises(UserError, match=r"--weights: 'nobody/no-such-model' cannot be loaded"):
        AudioLDM.load("nobody/no-such-model")


def test_a_diffusers_without_the_pipeline_is_told(monkeypatch):
    monkeypatch.setattr("diffgap.generation.audioldm.PIPELINE", "GonePipeline")
    with pytest.raises(UserError, match=r"needs GonePipeline, which diffusers .* does not have"):
        AudioLDM.load(None)


def test_a_missing_package_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(UserError, match=r"audioldm needs the package diffusers.*\[generate\]"):
        AudioLDM.load(None)


# A folder that would run code ---------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def module_that_leaves(trace):
    """The source of a module that shows that it was imported."""
    return (
        f"open({str(trace)!r}, 'w').close()\n"
        "from diffusers import DDIMScheduler as Own, AudioLDMPipeline as OwnPipeline\n"
    )


@pytest.mark.parametrize("part", ["scheduler", "tokenizer", "unet", "extra", "_own"])
@pytest.mark.parametrize("module", ["own", "os", "scheduler.own"])
def test_a_module_of_the_folder_is_never_imported(damaged, tmp_path, part, module):
    (damaged / "own.py").write_text(module_that_leaves(tmp_path / "trace"))
    (damaged / "scheduler" / "own.py").write_text(module_that_leaves(tmp_path / "trace"))
    edit_index(damaged, **{part: [module, "Own"]})
    with pytest.raises(UserError, match=r"code of its own, for its|has Own for its unet"):
        AudioLDM.load(str(damaged))
    assert not (tmp_path / "trace").exists()


def test_a_pipeline_of_the_folder_and_code_in_it_are_refused(damaged, tmp_path):
    code = module_that_leaves(tmp_path / "trace")
    (damaged / "vae" / "modeling.py").write_text(code)
    with pytest.raises(UserError, match=r"holds code: vae/modeling\.py"):
        AudioLDM.load(str(damaged))
    (damaged / "vae" / "modeling.py").rename(damaged / "pipeline.py")
    edit_index(damaged, _class_name=["pipeline", "OwnPipeline"])
    with pytest.raises(UserError, match=r"is of .*OwnPipeline"):
        AudioLDM.load(str(damaged))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("file", ["unet/config.json", "tokenizer/tokenizer_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "custom_pipeline"])
def test_a_config_that_asks_to_run_code_is_refused(damaged, file, key):
    content = json.loads((damaged / file).read_text())
    (damaged / file).write_text(json.dumps({**content, key: {"AutoModel": "own.Own"}}))
    with pytest.raises(UserError, match=f"asks to run code: {key} in {file}"):
        AudioLDM.load(str(damaged))


@pytest.mark.parametrize(
    ("part", "entry", "words"),
    [
        ("tokenizer", ["transformers", "AutoTokenizer"], "AutoTokenizer for its tokenizer"),
        ("tokenizer", ["transformers"], "not a package and a class"),
        ("scheduler", ["diffusers", "DiffusionPipeline"], "DiffusionPipeline for its scheduler"),
        ("scheduler", ["diffusers", "no such"], "which diffusers does not have"),
        ("scheduler", "diffusers", "not a package and a class"),
        ("scheduler", 3, "not a package and a class"),
    ],
)
def test_other_classes_are_refused(damaged, part, entry, words):
    edit_index(damaged, **{part: entry})
    with pytest.raises(UserError, match=words):
        AudioLDM.load(str(damaged))


@pytest.mark.parametrize("part", NETWORKS)
def test_pickled_weights_run_nothing(damaged, tmp_path, part):
    safe = damaged / part / FILES[part]
    plain = safe.with_name(
        "pytorch_model.bin" if safe.name == "model.safetensors" else f"{safe.stem}.bin"
    )
    torch.save({**load_file(safe), "note": Payload(tmp_path / "trace")}, plain)
    safe.unlink()
    with pytest.raises(UserError, match=f"has no {part} that loads"):
        AudioLDM.load(str(damaged))
    assert not (tmp_path / "trace").exists()
