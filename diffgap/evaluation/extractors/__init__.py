"""Feature extractors: what metrics of generated audio are computed from.

A number means something only beside the name of the extractor that it was made with.
"""

from __future__ import annotations

from diffgap.evaluation.extractors.base import Extractor
from diffgap.pretrained.choice import Choice

EXTRACTORS = {
    "soundscape": "diffgap.evaluation.extractors.soundscape_judges:SoundscapeExtractor",
    "vggish": "diffgap.evaluation.extractors.vggish:VGGishExtractor",
    "panns": "diffgap.evaluation.extractors.panns:PANNsExtractor",
}


class ExtractorChoice(Choice[Extractor]):
    """An extractor by name."""

    models = EXTRACTORS
    option = weights_option = "--extractor"
