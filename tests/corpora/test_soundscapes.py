"""Soundscapes repeat exactly, differ from each other, and are captioned truthfully."""

import numpy as np

from diffgap.corpora.soundscapes import COUNTS, SoundscapeCorpus
from diffgap.corpora.soundscapes.captions import write_caption
from diffgap.corpora.soundscapes.scenes import KINDS, draw_scene, generator
from diffgap.corpora.soundscapes.video import render_video

SMALL = {"train": 20, "val": 5, "test": 5}


def test_a_clip_is_the_same_whoever_renders_it_and_in_any_order():
    one, two = SoundscapeCorpus(SMALL), SoundscapeCorpus({"test": 3, "train": 7})
    clips = {clip.id: clip for clip in one.clips()}
    for clip in reversed(two.clips()):
        assert clip == clips[clip.id]
        assert np.array_equal(one.audio(clip)[0], two.audio(clip)[0])
        assert np.array_equal(one.video(clip), two.video(clip))


def test_clips_have_audio_video_and_captions():
    corpus = SoundscapeCorpus(SMALL)
    for clip in corpus.clips():
        samples, rate = corpus.audio(clip)
        assert (samples.shape, samples.dtype, rate) == ((32_000,), np.float32, 16_000)
        assert 0.01 < np.abs(samples).max() < 1
        assert corpus.video(clip).shape == (8, 32, 32, 3)
        assert len(clip.captions) == (1 if clip.split == "train" else 3)
        assert all(clip.captions)


def test_splits_have_their_sizes_and_share_no_clip():
    assert COUNTS == {"train": 8000, "val": 1000, "test": 1000}
    corpus = SoundscapeCorpus({"train": 200, "test": 200, "encoder": 200})
    sounds = {corpus.audio(clip)[0].tobytes() for clip in corpus.clips()}
    assert len(sounds) == 600


def test_captions_name_every_sound_in_order():
    for number in range(200):
        rng = generator("test", number)
        scene = draw_scene(rng)
        caption = write_caption(scene, rng)
        places = [
            min((caption.find(name) for name in KINDS[e.kind].names if name in caption), default=-1)
            for e in scene.events
        ]
        assert min(places) >= 0
        if not scene.mixed:
            assert places == sorted(places)


def test_every_kind_looks_different():
    looks = set()
    for kind in range(len(KINDS)):
        scene = draw_scene(generator("look", 0))
        event = scene.events[0]
        alone = type(scene)((type(event)(kind, 1, 2, 1, 0.0, 2.0),), False, 0)
        looks.add(render_video(alone, generator("look", 1)).tobytes())
    assert len(looks) == len(KINDS)
