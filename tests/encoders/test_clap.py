"""CLAP in both implementations: the real libraries, offline, on random weights."""

import numpy as np
import pytest
import soundfile
import tiny_clap
import torch

from diffgap.corpora.folder import FolderCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.chunks import InputSpec, decode_chunk, encode_chunk
from diffgap.encoders.clap_audio import SAMPLES, preprocess
from diffgap.encoders.embed import embed
from diffgap.errors import UserError
from diffgap.store.store import EmbeddingStore

pytest.importorskip("laion_clap", reason="needs the extra `clap`")
pytest.importorskip("transformers", reason="needs the extra `clap`")

CAPTIONS = ["a dog barks", "rain falls on the roof", "a car horn beeps twice"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A directory of tiny models; what loads them must be in it."""
    folder = tmp_path_factory.mktemp("clap")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_clap.write_text_models(folder)
        tiny_clap.write_laion_checkpoint(folder / "tiny.pt")
        tiny_clap.write_hf_model(folder / "tiny.pt", folder / "hf")
    return folder


@pytest.fixture(scope="module")
def encoders(models):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(models)
        laion = EncoderChoice("laion_clap", "tiny.pt").load()
        hf = EncoderChoice("hf_clap", str(models / "hf")).load()
    return {"laion_clap": laion, "hf_clap": hf}


def sounds(count=3):
    rng = np.random.default_rng(0)
    lengths = [SAMPLES, 100_000, 48_000, 7]
    return [rng.normal(0, 0.2, lengths[i % 4]).astype(np.float32) for i in range(count)]


def test_both_implementations_agree_on_the_same_weights(encoders):
    laion, hf = encoders["laion_clap"], encoders["hf_clap"]
    audio = np.abs(laion.encode_audio(sounds()) - hf.encode_audio(sounds())).max()
    text = np.abs(laion.encode_text(CAPTIONS) - hf.encode_text(CAPTIONS)).max()
    assert audio < 1e-5  # 7e-7 measured; the promise is 1e-3
    assert text < 1e-5


@pytest.mark.parametrize(("name", "checkpoint"), [("laion_clap", "tiny.pt"), ("hf_clap", "hf")])
def test_real_recordings_become_a_store(
    models, monkeypatch, name, checkpoint, real_sounds, tmp_path
):
    monkeypatch.chdir(models)

    class Some(FolderCorpus):
        def clips(self):
            return super().clips()[::60]

    result = embed(Some(real_sounds), EncoderChoice(name, checkpoint), tmp_path / "store")
    assert result.rejected == []
    store = EmbeddingStore.open(tmp_path / "store")
    assert (store.manifest.encoder.name, store.manifest.dimension) == (name, 512)
    assert store.manifest.encoder.preprocessing["checkpoint"] == checkpoint
    assert sum(store.manifest.corpus.counts.values()) == 14
    audio = store.pairs("text-audio", "train").a
    assert np.ptp(audio, axis=0).max() > 1e-3  # different sounds, different vectors


@pytest.mark.parametrize("name", ["laion_clap", "hf_clap"])
def test_the_batch_does_not_change_a_vector(encoders, name):
    encoder = encoders[name]
    many = sounds(32)
    together = encoder.encode_audio(many)
    for count in (1, 7):
        assert np.abs(encoder.encode_audio(many[:count]) - together[:count]).max() < 1e-5
    texts = encoder.encode_text(CAPTIONS)
    for i, caption in enumerate(CAPTIONS):
        assert np.abs(encoder.encode_text([caption]) - texts[i]).max() < 1e-5


def test_sound_is_rounded_as_in_training_and_repeated():
    (prepared,) = preprocess([np.array([0.5, -2.0, 1e-6], np.float32)])
    assert prepared.shape == (SAMPLES,)
    assert prepared[:6] == pytest.approx([16383 / 32767, -1, 0] * 2)
    (padded,) = preprocess([np.full(SAMPLES - 5, 0.5, np.float32)])
    assert (padded[-5:] == 0).all()  # whole repeats only


@pytest.mark.parametrize("window", ["crop", "mean"])
def test_long_recordings_are_cut_into_windows(encoders, tmp_path, window):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", rng.normal(0, 0.1, 25 * 8000), 8000)
    (tmp_path / "captions.csv").write_text("file_name,caption\nlong.wav,a dog barks\n")
    corpus, encoder = FolderCorpus(tmp_path), encoders["hf_clap"]
    spec = InputSpec.of(encoder, ("audio", "text"), window)
    decoded = decode_chunk(corpus, corpus.clips(), spec)
    (windows,) = decoded.windows["audio"]
    assert [len(w) for w in windows] == [SAMPLES] * (1 if window == "crop" else 3)
    found = [
        encode_chunk(encoder, decoded, spec.modalities).items["audio"].to_pylist() for _ in "ab"
    ]
    assert found[0] == found[1]


def test_a_damaged_checkpoint_is_refused_by_name(models, monkeypatch):
    monkeypatch.chdir(models)
    content = torch.load("tiny.pt", weights_only=False)
    del content["state_dict"]["module.audio_projection.0.weight"]
    torch.save(content, "damaged.pt")
    with pytest.raises(UserError, match=r"damaged.pt: lacks audio_projection.0.weight"):
        EncoderChoice("laion_clap", "damaged.pt").load()


def test_errors_about_unknown_checkpoints_name_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"'630k-bset' is neither .*did you mean 630k-best"):
        EncoderChoice("laion_clap", "630k-bset").load()
    with pytest.raises(UserError, match=r"cannot be loaded as a CLAP model"):
        EncoderChoice("hf_clap", str(tmp_path)).load()


def test_without_the_hub_laion_clap_says_what_it_loads_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"roberta-base and facebook/bart-base .* or use hf_clap"):
        EncoderChoice("laion_clap", "630k-best").load()


def test_a_missing_package_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"hf_clap needs the package transformers.*diffgap\[clap\]"):
        EncoderChoice("hf_clap").load()
