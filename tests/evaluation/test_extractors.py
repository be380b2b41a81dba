"""Extractors: the shipped classifier, and published layouts loaded with random weights."""

import hashlib
import json

import numpy as np
import pytest
import torch

from diffgap.audio.mel import slaney_filterbank
from diffgap.corpora.soundscapes import SEED, SoundscapeCorpus
from diffgap.corpora.soundscapes.scenes import draw_scene, generator
from diffgap.errors import UserError
from diffgap.evaluation.audio_metrics import measure
from diffgap.evaluation.extractors import ExtractorChoice
from diffgap.evaluation.extractors.panns import ARRAYS, N_FFT, AudioTagger, mel_decibels
from diffgap.evaluation.extractors.soundscape_judges import WEIGHTS, SoundscapeAlignment
from diffgap.evaluation.extractors.vggish import VGGish, mel_matrix, patches_of
from diffgap.pretrained.weights import NUMPY_SCALARS

RATE = 16_000


@pytest.fixture(scope="module")
def clips():
    """Unseen soundscapes: (scenes, sounds, videos)."""
    corpus = SoundscapeCorpus({"val": 80})
    listed = corpus.clips()
    scenes = [draw_scene(generator("scene", SEED, clip.id)) for clip in listed]
    return (
        scenes,
        [corpus.audio(clip)[0] for clip in listed],
        [corpus.video(clip) for clip in listed],
    )


@pytest.fixture(scope="module")
def vggish_file(tmp_path_factory):
    """Random weights in the layout of vggish-10086976.pth."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save(VGGish().state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def panns_file(tmp_path_factory):
    """Random weights in the layout of Cnn14_16k_mAP=0.438.pth."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("panns") / "Cnn14_16k_mAP=0.438.pth"
    torch.save(panns_checkpoint(AudioTagger()), path)
    yield path
    path.unlink()


def read(path):
    with torch.serialization.safe_globals([*NUMPY_SCALARS, *ARRAYS]):
        return torch.load(path, weights_only=True)


def panns_checkpoint(model):
    angles = 2 * np.pi * np.outer(np.arange(N_FFT // 2 + 1), np.arange(N_FFT)) / N_FFT
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    parts = {"real": np.cos(angles) * window, "imag": -np.sin(angles) * window}
    fixed = {
        f"spectrogram_extractor.stft.conv_{name}.weight": torch.from_numpy(value)[:, None].float()
        for name, value in parts.items()
    }
    fixed["logmel_extractor.melW"] = slaney_filterbank(RATE, N_FFT, 64, 50, 8000).T
    sampler = {"indexes": np.arange(10), "pointer": 3}
    return {"iteration": 1, "model": {**fixed, **model.state_dict()}, "sampler": sampler}


@pytest.fixture(params=["soundscape", "vggish", "panns"])
def extractor(request):
    if request.param == "soundscape":
        return ExtractorChoice("soundscape").load()
    path = request.getfixturevalue(f"{request.param}_file")
    return ExtractorChoice.parse(f"{request.param}={path}").load()


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def parts(features):
    return {name: part for name, part in vars(features).items() if part is not None}


def test_features_do_not_depend_on_the_batch(extractor):
    sounds = [noise(n, seed) for seed, n in enumerate((32_000, 500, 50_000, 32_000, 16_000))]
    together = parts(extractor.features(sounds))
    assert together
    for number, sound in enumerate(sounds):
        for name, part in parts(extractor.features([sound])).items():
            row = together[name][number]
            assert part.dtype == np.float32
            assert row[: len(part[0])] == pytest.approx(part[0], rel=1e-3, abs=1e-4)
            if name == "frames":
                assert np.isnan(row[len(part[0]) :]).all()


def test_features_have_their_shapes(extractor):
    found = extractor.features([noise(32_000), noise(32_000, 1), noise(32_000, 2)])
    shapes = {
        "soundscape": {"frames": (3, 4, 64), "clips": (3, 64), "probabilities": (3, 24)},
        "vggish": {"frames": (3, 2, 128)},
        "panns": {"clips": (3, 2048), "probabilities": (3, 527)},
    }
    assert {name: part.shape for name, part in parts(found).items()} == shapes[extractor.name]
    if found.probabilities is not None:
        assert found.probabilities.min() >= 0
        assert found.probabilities.sum(1) == pytest.approx(np.ones(3), abs=1e-5)
    assert len(extractor.weights_hash) == 64
    assert extractor.rate == RATE


def test_waveforms_that_cannot_be_heard_are_refused(extractor):
    with pytest.raises(UserError, match="there are none"):
        extractor.features([])
    for bad in (np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan])):
        with pytest.raises(UserError, match=r"number 1 of 2, of shape .* empty, not mono, or not"):
            extractor.features([noise(100), bad.astype(np.float32)])


# The shipped classifiers ---------------------------------------------------------------------


def test_the_classifier_hears_what_is_there(clips):
    scenes, sounds, _ = clips
    found = ExtractorChoice("soundscape").load().features(sounds).probabilities.argmax(1)
    right = [
        kind in {e.kind for e in scene.events} for kind, scene in zip(found, scenes, strict=True)
    ]
    assert np.mean(right) > 0.7  # by chance one in twelve


def test_alignment_tells_true_pairs_from_others_and_from_late_ones(clips):
    scenes, sounds, videos = clips
    judge = SoundscapeAlignment.load()
    in_turn = np.array([len(scene.events) > 1 and not scene.mixed for scene in scenes])
    late = [np.roll(sound, 12_000) for sound in sounds]
    assert judge.aligned(videos, sounds).mean() > 0.8
    assert judge.aligned(videos, sounds[1:] + sounds[:1]).mean() < 0.2
    assert judge.aligned(videos, late)[in_turn].mean() < 0.3
    alone = [judge.aligned([v], [s])[0] for v, s in zip(videos[:9], sounds[:9], strict=True)]
    assert judge.aligned(videos, sounds)[:9].tolist() == alone


def test_turning_both_sound_and_pictures_is_no_misalignment(clips):
    """So it is not a clip's beginning in the middle of an event that gives late sound away."""
    _, sounds, videos = clips
    both = SoundscapeAlignment.load().aligned(
        [np.roll(video, 3, axis=0) for video in videos], [np.roll(s, 12_000) for s in sounds]
    )
    assert both.mean() > 0.7


def test_metrics_tell_real_from_noise(clips):
    _, sounds, _ = clips
    extractor = ExtractorChoice("soundscape").load()
    real, other = extractor.features(sounds[:40]), extractor.features(sounds[40:])
    static = extractor.features([noise(32_000, seed) for seed in range(40)])
    itself, fresh, far = (
        measure({"soundscape": made}, {"soundscape": real}).values for made in (real, other, static)
    )
    for name in ("FAD", "FD"):
        assert itself[name] == pytest.approx(0, abs=1e-6)
        assert far[name] > 1.5 * fresh[name]  # which 40 clips make large
    assert itself["KL"] == pytest.approx(0, abs=1e-6)
    assert far["KL"] > 1
    assert 1 <= far["IS"] < 2 < itself["IS"] < 24


def test_what_is_no_pair_is_refused(clips):
    _, sounds, videos = clips
    judge = SoundscapeAlignment.load()
    with pytest.raises(UserError, match=r"videos: 2, .*, with 1 sounds of \[32000\] samples"):
        judge.aligned(videos[:2], sounds[:1])
    with pytest.raises(UserError, match=r"sounds of \[16000\] samples; alignment needs uint8"):
        judge.aligned(videos[:1], [sounds[0][:16_000]])
    with pytest.raises(UserError, match=r"of \['uint8 \(8, 64, 64, 3\)'\]"):
        judge.aligned([np.zeros((8, 64, 64, 3), np.uint8)], sounds[:1])


def test_the_record_is_that_of_the_weights():
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert record["sha256"] == ExtractorChoice("soundscape").load().weights_hash
    assert WEIGHTS.stat().st_size < 2_000_000


# Published layouts -----------------------------------------------------------------------------


def test_vggish_cuts_patches_as_the_original_does():
    """One by one, as vggish's mel_features.py writes it: frames without padding, DC left out."""
    sound = noise(40_000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectra = [
        np.abs(np.fft.rfft(window * sound[start : start + 400], 512))
        for start in range(0, len(sound) - 399, 160)
    ]

    def mel(hz):
        return 1127 * np.log(1 + hz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    weights = np.zeros((257, 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        for number in range(1, 257):
            at = mel(number * 8000 / 256)
            slope = min((at - low) / (centre - low), (high - at) / (high - centre))
            weights[number, band] = max(0, slope)
    log_mels = np.log(np.array(spectra) @ weights + 0.01)
    expected = log_mels[: 2 * 96].reshape(2, 96, 64)
    found = patches_of(torch.from_numpy(sound)[None], mel_matrix())[0]
    assert found.shape == (2, 96, 64)
    assert np.abs(found.numpy() - expected).max() < 1e-4


def test_vggish_has_the_published_names_and_order():
    shapes = {name: tuple(value.shape) for name, value in VGGish().state_dict().items()}
    assert list(shapes) == [
        f"{part}.{number}.{kind}"
        for part, numbers in (("features", (0, 3, 6, 8, 11, 13)), ("embeddings", (0, 2, 4)))
        for number in numbers
        for kind in ("weight", "bias")
    ]
    assert shapes["embeddings.0.weight"] == (4096, 12288)
    assert shapes["embeddings.4.weight"] == (128, 4096)


def test_a_short_clip_is_filled_up_with_silence(vggish_file):
    extractor = ExtractorChoice("vggish", str(vggish_file)).load()
    sound = noise(9_000)
    filled = np.pad(sound, (0, 6_600))
    assert extractor.features([sound]).frames.shape == (1, 1, 128)
    both = [extractor.features([s]).frames for s in (sound, filled)]
    assert both[0] == pytest.approx(both[1], abs=1e-6)


def test_panns_hears_what_torchlibrosa_hears():
    stft = pytest.importorskip("torchlibrosa.stft", reason="needs the extra `clap`")
    sound = torch.from_numpy(noise(32_000))[None]
    spectrogram = stft.Spectrogram(512, 160, 512, "hann", True, "reflect", freeze_parameters=True)
    mel = stft.LogmelFilterBank(
        sr=RATE, n_fft=512, n_mels=64, fmin=50, fmax=8000, ref=1.0, amin=1e-10, top_db=None
    )
    expected = mel(spectrogram(sound))[:, 0]
    found = mel_decibels(sound, slaney_filterbank(RATE, 512, 64, 50, 8000))
    assert (found - expected).abs().max() < 1e-3  # of decibels


def test_panns_takes_the_filters_that_torchlibrosa_makes(panns_file):
    stft = pytest.importorskip("torchlibrosa.stft", reason="needs the extra `clap`")
    made = stft.Spectrogram(512, 160, 512, "hann", True, "reflect", freeze_parameters=True)
    theirs = {f"spectrogram_extractor.{name}": value for name, value in made.state_dict().items()}
    mel = stft.LogmelFilterBank(sr=RATE, n_fft=512, n_mels=64, fmin=50, fmax=8000)
    theirs |= {f"logmel_extractor.{name}": value for name, value in mel.state_dict().items()}
    ours = read(panns_file)["model"]
    assert set(theirs) == {name for name in ours if "extractor" in name}
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-5


def test_panns_probabilities_are_the_softmax_of_its_logits(panns_file):
    extractor = ExtractorChoice("panns", str(panns_file)).load()
    model = AudioTagger().eval()
    state = read(panns_file)["model"]
    model.load_state_dict({n: v for n, v in state.items() if "extractor" not in n})
    sound = noise(32_000)
    spectra = mel_decibels(
        torch.from_numpy(sound)[None], slaney_filterbank(RATE, 512, 64, 50, 8000)
    )
    with torch.inference_mode():
        embedding, logits = model(spectra[:, None])
    found = extractor.features([sound])
    assert found.clips == pytest.approx(embedding.numpy(), rel=1e-4, abs=1e-5)
    assert found.probabilities == pytest.approx(logits.softmax(1).numpy(), rel=1e-4)


def test_wrong_checkpoints_are_refused_by_name(tmp_path, vggish_file, panns_file):
    state = VGGish().state_dict()
    del state["embeddings.4.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError) as refused:
        ExtractorChoice("vggish", str(tmp_path / "wrong.pth")).load()
    assert refused.value.problems == [
        f"{tmp_path}/wrong.pth: lacks embeddings.4.bias",
        f"{tmp_path}/wrong.pth: holds extra, which the model does not have",
    ]
    with pytest.raises(UserError, match=r"not a checkpoint of PANNs; it holds nothing under"):
        ExtractorChoice("panns", str(vggish_file)).load()
    content = read(panns_file)
    del content["model"]["fc1.bias"]
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"not the weights of .*Missing key.*fc1\.bias"):
        ExtractorChoice("panns", str(tmp_path / "wrong.pth")).load()
    content["model"]["logmel_extractor.melW"] *= 1.5
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"logmel_extractor.melW is not that of 16 kHz"):
        ExtractorChoice("panns", str(tmp_path / "wrong.pth")).load()
    del content["model"]["logmel_extractor.melW"]
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"lacks logmel_extractor.melW"):
        ExtractorChoice("panns", str(tmp_path / "wrong.pth")).load()
    (tmp_path / "wrong.pth").write_text("no weights")
    for name in ("vggish", "panns"):
        with pytest.raises(UserError, match=r"wrong.pth: not a checkpoint"):
            ExtractorChoice(name, str(tmp_path / "wrong.pth")).load()


def test_choices_are_read_from_a_line():
    assert ExtractorChoice.parse("soundscape") == ExtractorChoice("soundscape")
    path = "/weights/Cnn14_16k_mAP=0.438.pth"
    assert ExtractorChoice.parse(f"panns={path}") == ExtractorChoice("panns", path)
    with pytest.raises(UserError, match="unknown extractor 'pans'; did you mean panns"):
        ExtractorChoice.parse("pans=x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vggish", "vggish needs its weights; give vggish=PATH, of vggish-10086976.pth"),
        ("panns", r"panns needs its weights; give panns=PATH, of Cnn14_16k_mAP=0\.438\.pth"),
        ("panns=/gone.pth", r"panns has no file /gone\.pth; give the path of Cnn14_16k"),
        ("soundscape=/x", "soundscape comes with its own weights; leave them out"),
    ],
)
def test_weights_are_asked_for(text, said):
    with pytest.raises(UserError, match=f"--extractor: {said}"):
        ExtractorChoice.parse(text).load()
