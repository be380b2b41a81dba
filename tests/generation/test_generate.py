"""`diffgap generate`: prompts, videos and a store's clips in, whole files of sound out."""

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from click.testing import CliRunner

from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.methods import make_bridge
from diffgap.cli.main import main
from diffgap.encoders.soundscape import SoundscapeEncoder
from diffgap.generation.soundscape_generator import SoundscapeGenerator
from diffgap.io import atomic as files
from diffgap.store.store import EmbeddingStore, write_store

FAST = ("--steps", "2", "--guidance", "1")


def invoke(*arguments):
    return CliRunner().invoke(main, ["generate", *map(str, arguments)])


def refused(*arguments):
    """The lines of a request that is refused; nothing is written."""
    done = invoke(*arguments, "--out", "out.wav")
    assert done.exit_code == 2, done.output
    assert not list(Path().glob("*out*"))
    return done.stderr.splitlines()


def save(path, modalities=("text", "audio"), dimension=128, encoder="soundscape", **config):
    torch.manual_seed(0)
    settings = {"cdm": True, "bst": True, **config}
    bridge = make_bridge(BridgeConfig(modalities, dimension, 16, 1, **settings))
    known = SoundscapeEncoder.load().checkpoint_hash if encoder == "soundscape" else "unknown"
    made = {"name": encoder, "checkpoint_hash": known, "preprocessing": {}}
    bridge.save_pretrained(path, encoder=made)


def index(folder):
    with Path(folder, "index.csv").open() as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with bridges of text (t) and of video (v)."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "t")
    save(tmp_path / "v", ("video", "audio"))
    return tmp_path


def test_a_prompt_becomes_a_file_that_its_seed_decides(here):
    for out, seed in (("a.wav", 0), ("b.wav", 0), ("c.flac", 1)):
        done = invoke("t", "--prompt", "rain falls", "--out", out, "--seed", seed, *FAST)
        assert done.exit_code == 0, done.output
        assert f"{out}: rain falls; 2.0 s at 16,000 Hz, seed {seed}, similarity" in done.output
    info = soundfile.info("a.wav")
    assert (info.samplerate, info.frames, info.subtype) == (16_000, 32_000, "PCM_16")
    first, again, other = (soundfile.read(name)[0] for name in ("a.wav", "b.wav", "c.flac"))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_conditions_are_three(here, small_store):
    made = {}
    for condition in ("query", "bridged", "target"):
        done = invoke("t", "--store", small_store, "--limit", 2, "--condition", condition,
                      "--out", condition, *FAST)  # fmt: skip
        assert done.exit_code == 0, done.output
        rows = index(condition)
        assert sorted(p.name for p in (here / condition).iterdir()) == sorted(
            ["index.csv", *(row["file"] for row in rows)]
        )
        made[condition] = soundfile.read(here / condition / rows[0]["file"])[0]
    assert np.abs(made["query"] - made["target"]).max() > 0.01
    assert np.abs(made["query"] - made["bridged"]).max() > 0.01


def test_the_most_similar_candidate_is_kept(here):
    for number in (1, 4):
        two = ("--prompt", "a bell rings", "--prompt", "a dog barks")
        done = invoke("t", *two, *FAST, "--candidates", number, "--out", f"of{number}",
                      "--format", "flac")  # fmt: skip
        assert done.exit_code == 0, done.output
    one, four = (index(f"of{number}") for number in (1, 4))
    assert [row["query"] for row in four] == ["a bell rings", "a dog barks"]
    assert four[0]["file"] == "000-a-bell-rings.flac"
    for single, best in zip(one, four, strict=True):
        assert float(best["similarity"]) >= float(single["similarity"])
    assert any(row["seed"] != "0" for row in four)


def test_a_video_becomes_sound(here, real_videos):
    done = invoke("v", "--video", real_videos / "drum.mp4", "--out", "drum.wav", *FAST)
    assert done.exit_code == 0, done.output
    assert soundfile.info("drum.wav").frames == 32_000


# What is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("", "is empty; describe the sound"),
        ("  \n", "is empty; describe the sound"),
        ("word " * 2000, "has 10000 characters; encoders read a few dozen words"),
        ("🐶🌧️", "'🐶🌧️' has no word; describe the sound in words"),
        ("?!", "has no word"),
    ],
)
def test_a_prompt_that_says_nothing_is_refused(here, prompt, told):
    (line,) = refused("t", "--prompt", prompt)
    assert line.startswith("error: --prompt: ")
    assert told in line


def test_an_emoji_among_words_is_none_of_our_business(here):
    done = invoke("t", "--prompt", "a dog 🐶 barks", "--out", "dog.wav", *FAST)
    assert done.exit_code == 0, done.output


def write_video(path, seconds, pictures=True, sound=True, rate=8):
    import av

    with av.open(str(path), "w") as container:
        if pictures:
            stream = container.add_stream("mpeg4", rate=rate)
            stream.width = stream.height = 32
            for number in range(round(seconds * rate)):
                picture = np.full((32, 32, 3), number % 255, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if sound:
            stream = container.add_stream("aac", rate=16_000, layout="mono")
            samples = np.zeros((1, round(seconds * 16_000)), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())


@pytest.mark.parametrize(
    ("video", "told"),
    [
        ({"seconds": 0.25, "sound": False}, "lasts 0.2 s; at least 1 s are needed"),
        ({"seconds": 600, "rate": 1, "sound": False}, "lasts 600 s, of which a generator uses the"),
        (
            {"seconds": 3, "pictures": False},
            "it has no stream of video; give a video with pictures",
        ),
    ],
)
def test_a_video_of_no_use_is_refused(here, video, told):
    write_video(here / "clip.mp4", **video)
    (line,) = refused("v", "--video", "clip.mp4")
    assert told in line


def test_a_video_that_is_none_is_refused(here):
    (here / "text.mp4").write_text("no video")
    assert "not readable as video" in refused("v", "--video", "text.mp4")[0]
    assert "clip.mp4 is not a file" in refused("v", "--video", "clip.mp4")[0]


def test_a_bridge_that_does_not_fit_is_refused(here):
    assert refused("v", "--prompt", "rain") == [
        "error: --prompt: this bridge starts from video, not from text; use one of text-audio"
    ]
    assert "starts from text, not from video" in refused("t", "--video", "x.mp4")[0]
    save(here / "narrow", dimension=64)
    assert (
        "carries embeddings of 64 dimensions, and soundscape takes 128"
        in (refused("narrow", "--prompt", "rain")[0])
    )
    save(here / "clap", dimension=512, encoder="hf_clap")
    (line,) = refused("clap", "--prompt", "rain", "--generator", "soundscape")
    assert "soundscape takes embeddings of soundscape, and these are of hf_clap" in line
    assert line.endswith("use audioldm")
    save(here / "other", encoder="mine")
    assert "no generator takes embeddings of 'mine'" in refused("other", "--prompt", "rain")[0]
    save(here / "frozen", cdm=False, bst=False, method="none")
    assert "was not trained from text to audio" in refused("frozen", "--prompt", "rain")[0]


def test_a_sweep_of_a_generator_that_does_not_fit_the_store_starts_nothing(here, small_store):
    (here / "spec.yaml").write_text(
        f"name: x\nstore: {small_store}\ntrial: {{generation: {{generator: audioldm}}}}\n"
        "report: {tables: [generation]}\n"
    )
    done = CliRunner().invoke(main, ["sweep", "spec.yaml"])
    assert done.exit_code == 2
    assert done.stderr == (
        "error: generation.generator: audioldm takes embeddings of laion_clap or hf_clap, and "
        "these are of soundscape; use one that fits the store\n"
    )
    assert not (here / "runs").exists()


def test_weights_that_are_not_those_of_the_bridge_are_refused(here):
    config = json.loads((here / "t" / "config.json").read_text())
    config["encoder"]["checkpoint_hash"] = "0" * 64
    (here / "t" / "config.json").write_text(json.dumps(config))
    assert "the bridge was made with 000000" in refused("t", "--prompt", "rain")[0]


def test_a_request_that_asks_for_nothing_or_too_much_is_refused(here):
    assert "give one of --prompt, --video and --store" in refused("t")[0]
    assert len(refused("t", "--prompt", "a", "--store", "soundscapes")) == 1
    told = refused("t", "--prompt", "a", "--video", "b.mp4", "--condition", "target")
    assert len(told) == 3
    assert (
        "only the clips of a --store have true audio"
        in (refused("t", "--prompt", "rain", "--condition", "target")[0])
    )
    Path("there.wav").write_text("mine")
    done = invoke("t", "--prompt", "rain", "--out", "there.wav")
    assert done.exit_code == 2
    assert "there.wav exists already" in done.stderr
    done = invoke("t", "--prompt", "rain", "--out", "rain.mp3")
    assert "rain.mp3 ends in .mp3; use .wav or .flac" in done.stderr


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e308", "0.5", "101"])
def test_a_guidance_that_makes_no_sound_is_refused(here, number):
    lines = refused("t", "--prompt", "rain", "--guidance", number)
    assert "Invalid value for '--guidance'" in lines[-1]


def test_clips_whose_ids_would_share_a_file_have_one_each(here, small_store):
    store = EmbeddingStore.open(small_store)
    ids = ["a/b", "a_b", "A_b", "con", "..", "x" * 300]
    table = pq.read_table(small_store / "items-00000.parquet").slice(0, len(ids))
    table = table.set_column(0, "id", pa.array(ids)).set_column(1, "split", pa.array(["test"] * 6))
    captions = pq.read_table(small_store / "captions-00000.parquet").slice(0, len(ids))
    captions = captions.set_column(0, "id", pa.array(ids))
    write_store(here / "alike", table, captions, store.manifest.encoder, "alike")
    done = invoke("t", "--store", "alike", "--out", "sounds", *FAST)
    assert done.exit_code == 0, done.output
    names = {row["file"] for row in index("sounds")}
    assert len({name.lower() for name in names}) == len(ids)
    assert {path.name for path in (here / "sounds").iterdir()} == {*names, "index.csv"}


def test_sound_that_is_not_finite_is_refused_and_leaves_nothing(here, monkeypatch):
    def broken(self, conditions, seeds, sampling):
        return np.full((len(seeds), 10), np.nan, np.float32)

    monkeypatch.setattr(SoundscapeGenerator, "generate", broken)
    (line,) = refused("t", "--prompt", "rain", *FAST)
    assert line.startswith("error: out.wav: cannot be written: its samples are not all finite")


def test_a_full_disk_leaves_no_half_of_a_file(here, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    (line,) = refused("t", "--prompt", "rain", *FAST)
    assert line == (
        "error: out.wav: cannot be written: No space left on device; make room, or give another "
        "path"
    )
