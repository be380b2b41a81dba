"""How far apart Frechet distances put two samples of the same sounds, by their number of clips.

Both samples are real soundscapes, no clip being in both, and heard by the embedded corpus's own
classifier: over infinitely many clips every distance would be 0. Each round draws them anew from
one pool; medians, with the lowest and the highest round.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from common import Row, arguments, show, spread

from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.evaluation.audio_metrics import fad, fd
from diffgap.evaluation.extractors import ExtractorChoice
from diffgap.evaluation.extractors.base import Features

COUNTS = (50, 100, 200, 400, 800)
SPLIT = "bias"
"""In no store, and no network was trained on it."""


def main() -> None:
    """Measures, and prints."""
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--pool", type=int, default=4000, help="clips (default %(default)s)")
    options = parser.parse_args()
    if options.pool < 2 * max(COUNTS):
        parser.error(f"--pool: {options.pool} are too few; give at least {2 * max(COUNTS)}")
    features = heard(options.pool)
    title = f"Frechet distances of real soundscapes from others, {options.rounds} rounds"
    show(title, rows(features, options.rounds), options.json)


def heard(clips: int) -> Features:
    """Of a pool of soundscapes."""
    corpus = SoundscapeCorpus({SPLIT: clips})
    sounds = [corpus.audio(clip)[0] for clip in corpus.clips()]
    return ExtractorChoice("soundscape").load().features(sounds)


def rows(features: Features, rounds: int) -> Iterator[Row]:
    """One for each number of clips."""
    assert features.clips is not None
    assert features.frames is not None
    rng = np.random.default_rng(0)
    for count in COUNTS:
        distances = []
        for _ in range(rounds):
            x, y = np.split(rng.permutation(len(features.clips))[: 2 * count], 2)
            of_clips = fd(features.clips[x], features.clips[y])
            distances.append((of_clips, fad(features.frames[x], features.frames[y])))
        of_clips, of_frames = zip(*distances, strict=True)
        yield {"clips": count, "FD": spread(of_clips, 4), "FAD": spread(of_frames, 4)}


if __name__ == "__main__":
    main()
