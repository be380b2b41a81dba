"""What `diffgap store show` says and draws."""

import numpy as np
import pytest
from click.testing import CliRunner

from diffgap.cli.main import main
from diffgap.errors import UserError
from diffgap.report.store_view import describe, draw, fullest_split, picture, project
from diffgap.store.store import EmbeddingStore, Pairs


@pytest.fixture
def apart():
    """Two modalities with a gap: one on either side."""
    rng = np.random.default_rng(0)
    side = np.zeros(16)
    side[0] = 3.0
    x, a = rng.normal(0, 0.3, (2, 50, 16))
    x, a = x + side, a - side
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    return Pairs(tuple(map(str, range(50))), x, a, np.arange(50))


def test_the_first_component_shows_the_gap(apart):
    x, a, share = project(apart)
    assert x.shape == a.shape == (50, 2)
    assert max(x[:, 0].max() < a[:, 0].min(), a[:, 0].max() < x[:, 0].min())
    assert 0.8 < share <= 1


def test_the_picture_in_characters_keeps_both_clouds_apart(apart):
    lines = picture(apart, "text-audio").splitlines()
    columns = {
        letter: [line.index(letter) for line in lines[:-1] if letter in line] for letter in "ta"
    }
    assert max(columns["t"]) < min(columns["a"]) or max(columns["a"]) < min(columns["t"])
    assert "t text, a audio" in lines[-1]


def test_modalities_that_begin_alike_have_letters_of_their_own(apart):
    *lines, legend = picture(apart, "text-tactile").splitlines()
    assert "T text, t tactile" in legend
    assert {"T", "t"} <= set("".join(lines))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_are_drawn_in_the_format_of_their_name(tmp_path, apart, suffix):
    path = tmp_path / f"gap.{suffix}"
    draw(apart, "text-audio", path)
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begins)
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_format_is_refused_and_nothing_is_left(tmp_path, apart):
    with pytest.raises(UserError, match=r"--picture: .*gap.mp3: Format 'mp3' is not supported"):
        draw(apart, "text-audio", tmp_path / "gap.mp3")
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_told_in_words(small_store):
    store = EmbeddingStore.open(small_store)
    told = "\n".join(describe(store))
    assert "soundscapes: 192 train, 32 val, 32 test clips, 384 captions" in told
    assert "128 dimensions" in told
    assert "tasks        text-audio, text-video, video-audio" in told
    assert fullest_split(store) == "test"


def show(*arguments):
    return CliRunner().invoke(main, ["store", "show", *map(str, arguments)])


def test_every_served_task_is_shown_or_the_one_that_is_asked_for(small_store):
    shown = show(small_store)
    assert shown.exit_code == 0, shown.output
    for task in ("text-audio", "text-video", "video-audio"):
        assert f"Gap, {task}, test" in shown.output
    one = show(small_store, "--task", "audio-video")
    assert one.exit_code == 0, one.output
    assert "Gap, audio-video, test" in one.output
    assert one.output.count("Gap, ") == 1


def test_a_task_that_is_not_served_is_refused_before_anything_is_shown(small_store):
    refused = show(small_store, "--task", "text-vidoe")
    assert refused.exit_code == 2
    assert "--task: 'text-vidoe' cannot be done on" in refused.output
    assert "serves text-audio, text-video, video-audio; did you mean text-video?" in refused.output
    assert "Gap" not in refused.output
