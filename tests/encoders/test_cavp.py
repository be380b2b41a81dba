"""CAVP: its architecture, its preprocessing, and the strictness of its loading."""

import numpy as np
import pytest
import torch

from diffgap.audio.mel import slaney_filterbank
from diffgap.audio.resampling import resample
from diffgap.corpora.media import read_audio, read_video
from diffgap.encoders import EncoderChoice
from diffgap.encoders.cavp import RATE, CAVPEncoder, clip_embeddings, unit_decibels
from diffgap.encoders.cavp_model import CAVP
from diffgap.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights in the layout of cavp_epoch66.ckpt."""
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in CAVP().state_dict().items()}
    path = tmp_path_factory.mktemp("cavp") / "cavp.ckpt"
    torch.save({"state_dict": state, "epoch": np.float64(66)}, path)
    return path


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return EncoderChoice("cavp", str(checkpoint)).load()


def test_real_clips_give_sixteen_tokens_per_four_seconds(encoder, real_videos):
    pytest.importorskip("av", reason="needs the extra `video`")
    for path in sorted(real_videos.glob("*.mp4")):
        samples, rate = read_audio(path)
        samples = resample(samples, rate, RATE)
        frames = read_video(path, 4.0, 224)
        audio = encoder.audio_tokens(samples[: 4 * RATE])
        video = encoder.video_tokens(frames[:16])
        assert audio.shape == video.shape == (16, 512)
        assert np.linalg.norm(audio, axis=1) == pytest.approx(np.ones(16), abs=1e-5)
        assert encoder.audio_tokens(samples[: 8 * RATE]).shape == (32, 512)
        assert encoder.encode_audio([samples[: 4 * RATE]]).shape == (1, 512)
        assert encoder.encode_video([frames[:16]]).shape == (1, 512)


def test_a_clip_is_the_maximum_of_its_tokens_then_normalised():
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]]])
    assert clip_embeddings(tokens)[0] == pytest.approx([0.6, 0.8])


def test_short_clips_are_filled_up(encoder):
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, RATE).astype(np.float32)
    silence = np.zeros(3 * RATE, np.float32)
    filled = encoder.encode_audio([np.concatenate([sound, silence])])
    assert np.abs(encoder.encode_audio([sound]) - filled).max() < 1e-6
    frames = rng.integers(0, 255, (3, 224, 224, 3), dtype=np.uint8)
    still = np.concatenate([frames, np.repeat(frames[-1:], 13, axis=0)])
    assert np.abs(encoder.encode_video([frames]) - encoder.encode_video([still])).max() < 1e-6


def test_the_batch_does_not_change_a_clips_vector(encoder):
    rng = np.random.default_rng(1)
    sounds = [rng.normal(0, 0.1, 4 * RATE).astype(np.float32) for _ in range(7)]
    together = encoder.encode_audio(sounds)
    for i in (0, 6):
        assert np.abs(encoder.encode_audio([sounds[i]]) - together[i]).max() < 1e-5


def test_only_the_last_two_stages_look_at_neighbouring_frames():
    kernels = {
        name: tuple(value.shape[2:])
        for name, value in CAVP().state_dict().items()
        if name.startswith("video_encoder.") and name.endswith("conv.weight")
    }
    assert kernels["video_encoder.conv1.conv.weight"] == (1, 7, 7)
    temporal = {name.split(".")[1] for name, kernel in kernels.items() if kernel[0] == 3}
    assert temporal == {"layer3", "layer4"}
    assert all("conv1" in name for name, kernel in kernels.items() if kernel == (3, 1, 1))
    assert len(kernels) == 1 + 3 * (3 + 4 + 6 + 3) + 4


def test_the_mel_spectrum_is_librosas():
    librosa = pytest.importorskip("librosa", reason="needs the extra `clap`")
    mel = {"sr": RATE, "n_fft": 1024, "fmin": 125, "fmax": 7600, "n_mels": 128}
    ours = slaney_filterbank(RATE, 1024, 128, 125, 7600)
    assert np.abs(ours.numpy() - librosa.filters.mel(**mel)).max() < 1e-7
    sound = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    spectrum = np.abs(librosa.stft(sound, n_fft=1024, hop_length=250))
    decibels = 20 * np.log10(np.maximum(1e-5, librosa.filters.mel(**mel) @ spectrum))
    expected = np.clip((decibels - 20 + 100) / 100, 0, 1)
    assert (
        np.abs(unit_decibels(torch.from_numpy(sound)[None], ours)[0].numpy() - expected).max()
        < 1e-4
    )


def damaged(checkpoint, tmp_path, change):
    content = torch.load(checkpoint, weights_only=False)
    change(content["state_dict"])
    torch.save(content, tmp_path / "damaged.ckpt")
    return str(tmp_path / "damaged.ckpt")


def test_a_checkpoint_is_refused_by_every_key_that_is_wrong(checkpoint, tmp_path):
    def change(state):
        del state["module.video_project_head.bias"]
        state["module.extra"] = torch.zeros(1)
        state["module.spec_encoder.fc1.weight"] = torch.zeros(2048, 1024)

    with pytest.raises(UserError) as refused:
        CAVPEncoder.load(damaged(checkpoint, tmp_path, change))
    lacks, holds, shape = (p.split("damaged.ckpt: ")[1] for p in refused.value.problems)
    assert lacks == "lacks video_project_head.bias"
    assert holds == "holds extra, which the model does not have"
    assert shape == "spec_encoder.fc1.weight has shape (2048, 1024), not (2048, 2048)"


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--checkpoint: missing; give the path of cavp_epoch66"):
        CAVPEncoder.load(None)
    with pytest.raises(UserError, match=r"--checkpoint: no file .*gone.ckpt"):
        CAVPEncoder.load(str(tmp_path / "gone.ckpt"))
    (tmp_path / "text.ckpt").write_text("no weights")
    with pytest.raises(UserError, match=r"text.ckpt: not a checkpoint"):
        CAVPEncoder.load(str(tmp_path / "text.ckpt"))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("it ran",))

    torch.save({"state_dict": {"x": Harmful()}}, tmp_path / "harmful.ckpt")
    with pytest.raises(UserError, match=r"harmful.ckpt: not a checkpoint"):
        CAVPEncoder.load(str(tmp_path / "harmful.ckpt"))
