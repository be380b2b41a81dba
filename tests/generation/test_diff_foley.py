"""Diff-Foley: the layout of its checkpoint, what it computes, and the strictness of its loading."""

import math
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_diff_foley as tiny
import torch
from torch.nn import functional as F

from diffgap.audio.mel import slaney_filterbank
from diffgap.encoders.cavp import FLOOR
from diffgap.encoders.cavp_model import CAVP
from diffgap.errors import UserError
from diffgap.generation import GeneratorChoice
from diffgap.generation.base import Sampling, generate_in_batches
from diffgap.generation.diff_foley import DiffFoley
from diffgap.generation.latent import noise, sample
from diffgap.generation.ldm_layout import Checkpoint, unet_config, unet_name, vae_config, vae_name

diffusers = pytest.importorskip("diffusers", reason="needs the extra `generate`")

FEW = Sampling(steps=2, guidance=4.5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights in the layout of ldm_epoch240.ckpt."""
    path = tmp_path_factory.mktemp("diff_foley") / "tiny.ckpt"
    tiny.write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def generator(checkpoint):
    return GeneratorChoice("diff_foley", str(checkpoint)).load()


@pytest.fixture(scope="module")
def conditions():
    tokens = torch.randn(3, 32, 512, generator=torch.Generator().manual_seed(0))
    return F.normalize(tokens, dim=-1).numpy()


@pytest.fixture(scope="module")
def clips(generator, conditions):
    return generator.generate(conditions, [1, 2, 3], FEW)


def far(a, b):
    return np.abs(a - b).max() > 1e-2


def test_clips_are_of_eight_seconds(generator, clips):
    assert (generator.name, generator.dimension, generator.tokens) == ("diff_foley", 512, 32)
    assert (generator.rate, generator.seconds) == (16_000, 8.192)
    assert generator.defaults == Sampling(steps=25, guidance=4.5)
    assert len(generator.weights_hash) == 64
    assert clips.shape == (3, 131_072)
    assert clips.dtype == np.float32
    assert np.isfinite(clips).all()
    assert 0.1 < np.abs(clips).max() <= 1


def test_a_seed_decides_its_clip_whatever_the_batch(generator, conditions, clips):
    for i in (0, 2):
        alone = generator.generate(conditions[i : i + 1], [i + 1], FEW)
        # Latents agree to rounding; Griffin-Lim's phases let it grow a thousandfold.
        assert np.linalg.norm(alone[0] - clips[i]) < 0.02 * np.linalg.norm(clips[i])
    assert (generator.generate(conditions, [1, 2, 3], FEW) == clips).all()
    other = generator.generate(conditions[:1], [4], FEW)
    assert np.linalg.norm(other[0] - clips[0]) > 0.5 * np.linalg.norm(clips[0])


def test_latents_do_not_depend_on_the_batch(generator, conditions):
    with torch.inference_mode():
        together = generator._latents(conditions, [1, 2, 3], FEW)
        for i in (0, 2):
            alone = generator._latents(conditions[i : i + 1], [i + 1], FEW)
            assert (alone[0] - together[i]).abs().max() < 1e-4 * together[i].abs().max()


def test_the_condition_its_order_and_guidance_are_heard(generator, conditions, clips):
    def first(tokens, sampling=FEW):
        return generator.generate(np.ascontiguousarray(tokens[None]), [1], sampling)[0]

    assert far(first(conditions[1]), clips[0])
    assert far(first(conditions[0][::-1]), clips[0])
    assert far(first(conditions[0], Sampling(2, 1.0)), clips[0])


def test_a_clips_embedding_is_repeated(generator, conditions):
    found = generate_in_batches(generator, conditions[:1, 0], [1], FEW)
    repeated = np.repeat(conditions[:1, :1], 32, axis=1)
    np.testing.assert_array_equal(found, generator.generate(repeated, [1], FEW))


def test_the_networks_compute_what_the_layout_says(generator):
    """Against arithmetic on the original names, which no converter has touched."""
    reference, draw = tiny.Reference(tiny.state()), torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 16, 64, generator=draw)
    context = torch.randn(2, 32, tiny.CONTEXT, generator=draw)
    times = torch.tensor([7.0, 900.0])
    model = generator._model
    with torch.inference_mode():
        found = model.noise(latents, times, context)
        expected = reference.noise(latents, times, context)
        assert expected.std() > 0.1
        assert (found - expected).abs().max() < 1e-4
        found, expected = model.vae.decode(latents).sample, reference.decode(latents)
        assert expected.std() > 0.1
        assert (found - expected).abs().max() < 1e-3


def test_tokens_are_projected_and_told_their_places(generator, conditions):
    weights = tiny.state()
    projection = weights["cond_stage_model.embedder.0.weight"]
    expected = torch.from_numpy(conditions) @ projection.T
    expected = expected + weights["cond_stage_model.embedder.0.bias"]
    expected = expected + weights["cond_stage_model.pos_emb.weight"][:32]
    found = generator._model.condition(torch.from_numpy(conditions))
    assert (found - expected).abs().max() < 1e-5


def test_every_name_of_stable_diffusions_size_is_used_once(monkeypatch):
    monkeypatch.setattr(tiny, "LEVELS", ((320, True), (640, True), (1280, True), (1280, False)))
    monkeypatch.setattr(tiny, "VAE_CHANNELS", (128, 256, 512, 512))
    monkeypatch.setattr(tiny, "VAE_BLOCKS", 2)
    monkeypatch.setattr(tiny, "CONTEXT", 768)
    with torch.device("meta"):
        weights = {k: v for k, v in tiny.state().items() if k.startswith(("model.", "first"))}
        found = Checkpoint(Path("published"), weights, None)
        unet, vae = unet_config(found, heads=8), vae_config(found)
        named = [unet_name(unet)(k) for k in diffusers.UNet2DConditionModel(**unet).state_dict()]
        assert (len(named), len(set(named))) == (686, 686)  # as in Stable Diffusion 1
        named += [vae_name(vae)(k) for k in diffusers.AutoencoderKL(**vae).state_dict()]
    assert len(named) == 686 + 248
    assert set(named) == set(weights)
    assert unet["block_out_channels"] == (320, 640, 1280, 1280)
    assert unet["layers_per_block"] == vae["layers_per_block"] == 2
    assert unet["cross_attention_dim"] == 768
    for known in (
        "model.diffusion_model.input_blocks.9.0.op.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.output_blocks.5.2.conv.weight",
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
        "first_stage_model.decoder.up.3.upsample.conv.weight",
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight",
    ):
        assert known in named


def test_mel_spectra_are_taken_back_as_they_were_made(generator, conditions, monkeypatch):
    """A real tone's mel spectrum, as in training, in place of a generated one."""
    tone = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(131_072) / 16_000)
    window = torch.hann_window(1024)
    spectra = torch.stft(tone, 1024, 256, window=window, pad_mode="constant", return_complex=True)
    bands = slaney_filterbank(16_000, 1024, 128, 125, 7600) @ spectra.abs()[:, :512]
    mel = ((20 * torch.log10(bands.clamp_min(FLOOR)) - 20 + 100) / 100).clamp(0, 1)
    monkeypatch.setattr(generator._model, "mel", lambda latents: mel[None])
    (found,) = generator.generate(conditions[:1], [1], FEW)
    loudest = np.abs(np.fft.rfft(found)).argmax() * 16_000 / len(found)
    assert loudest == pytest.approx(1000, abs=16)
    assert found.std() == pytest.approx(float(tone.std()), rel=0.2)


def test_sampling_solves_the_diffusion_of_a_gaussian(generator):
    """Its noise is known, and so is where the deterministic path from a latent ends.

    With data of mean m and deviation s, (x_t - a_t m) / sqrt(a_t^2 s^2 + sigma_t^2) is constant
    (Song et al., Score-Based Generative Modeling, ICLR 2021, the probability flow).
    """
    scheduler, mean, deviation = generator._scheduler, 2.0, 0.5
    kept = scheduler.alphas_cumprod

    def spread(t):
        return (kept[t] * deviation**2 + 1 - kept[t]).sqrt()

    def denoiser(latents, time, condition):
        off = latents - kept[time].sqrt() * mean
        return (1 - kept[time]).sqrt() * off / spread(time) ** 2

    start = noise([1, 2], (4, 16, 64))
    nothing = torch.zeros(2, 1)
    expected = kept[0].sqrt() * mean + spread(0) * (start - kept[-1].sqrt() * mean) / spread(-1)
    errors = []
    for steps in (25, 100, 400):
        found = sample(denoiser, scheduler, start, (nothing, nothing), Sampling(steps, 1.0))
        errors.append((found - expected).abs().max())
    assert errors[1] < errors[0] / 4
    assert errors[2] < errors[1] / 4
    assert errors[2] < 0.01


def test_guidance_goes_beyond_the_condition(generator):
    seen = []

    def denoiser(latents, time, condition):
        seen.append(len(latents))
        return condition.expand_as(latents)

    start, given, without = noise([1], (2, 2)), torch.full((1, 1, 1), 0.3), torch.zeros(1, 1, 1)
    ends = [
        sample(denoiser, generator._scheduler, start, (given * by, without), Sampling(3, guidance))
        for by, guidance in ((1.0, 4.0), (4.0, 1.0))
    ]
    assert (ends[0] - ends[1]).abs().max() < 1e-4
    assert seen == [2, 2, 2, 1, 1, 1]


def written(folder, state, **beside):
    torch.save({"state_dict": state, **beside}, folder / "other.ckpt")
    return str(folder / "other.ckpt")


def test_a_checkpoint_is_refused_by_every_name_that_is_wrong(tmp_path):
    state = tiny.state()
    del state["model.diffusion_model.output_blocks.4.1.norm.weight"]
    del state["cond_stage_model.embedder.0.bias"]
    state["first_stage_model.extra"] = torch.zeros(1)
    linear = "first_stage_model.decoder.mid.attn_1.q.weight"
    state[linear] = state[linear][:, :, 0, 0]
    state["cond_stage_model.pos_emb.weight"] = torch.zeros(16, tiny.CONTEXT)
    with pytest.raises(UserError) as refused:
        DiffFoley.load(written(tmp_path, state))
    lacks, holds, *shapes = (p.split("other.ckpt: ")[1] for p in refused.value.problems)
    assert lacks == (
        "lacks model.diffusion_model.output_blocks.4.1.norm.weight, "
        "cond_stage_model.embedder.0.bias"
    )
    assert holds == "holds first_stage_model.extra, which the model does not have"
    assert shapes == [
        f"{linear} has shape (64, 64), not (64, 64, 1, 1)",
        "cond_stage_model.pos_emb.weight has shape (16, 24), not (32, 24)",
    ]


def test_another_models_checkpoint_is_refused_by_what_it_holds(tmp_path):
    with pytest.raises(UserError, match=r"lacks model.diffusion_model.+holds logit_scale, video"):
        DiffFoley.load(written(tmp_path, CAVP().state_dict()))
    state = tiny.state()
    state["betas"] = torch.linspace(1e-4, 0.02, 1000)
    with pytest.raises(UserError, match=r"betas are not those of Diff-Foley's noise schedule"):
        DiffFoley.load(written(tmp_path, state))


def test_what_training_left_is_not_loaded(tmp_path, generator):
    state = tiny.state()
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["model_ema.diffusion_modelout0weight"] = torch.zeros(32)
    state["first_stage_model.loss.logvar"] = torch.zeros(1)
    assert DiffFoley.load(written(tmp_path, state)).weights_hash == generator.weights_hash


def test_classes_beside_the_weights_are_neither_needed_nor_run(tmp_path, generator, monkeypatch):
    lightning = types.ModuleType("absent_lightning")
    lightning.Callback = type("Callback", (), {"__module__": "absent_lightning"})
    monkeypatch.setitem(sys.modules, "absent_lightning", lightning)
    state, callback = tiny.state(), lightning.Callback()
    callback.best = 0.5
    beside = {"callbacks": {lightning.Callback: {"last": callback, "then": Harmful(tmp_path)}}}
    path = written(tmp_path, state, loss=np.float64(0.1), **beside)
    monkeypatch.delitem(sys.modules, "absent_lightning")
    assert DiffFoley.load(path).weights_hash == generator.weights_hash
    state["model.diffusion_model.out.2.bias"] = Harmful(tmp_path)
    with pytest.raises(UserError, match=r"other.ckpt: not a checkpoint"):
        DiffFoley.load(written(tmp_path, state))
    assert not (tmp_path / "it ran").exists()


class Harmful:
    """Leaves a file where it is unpickled as it asks to be."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (shutil.copyfile, (__file__, str(self.folder / "it ran")))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--weights: missing; give the path of ldm_epoch240.ckpt"):
        DiffFoley.load(None)
    with pytest.raises(UserError, match=r"--weights: no file .*gone.ckpt"):
        DiffFoley.load(str(tmp_path / "gone.ckpt"))
    (tmp_path / "text.ckpt").write_text("no weights")
    with pytest.raises(UserError, match=r"text.ckpt: not a checkpoint"):
        DiffFoley.load(str(tmp_path / "text.ckpt"))
    with pytest.raises(UserError, match=r"lacks model.diffusion_model.+it holds nothing"):
        DiffFoley.load(written(tmp_path, {}))
