"""Both users of Cnn14's trunk keep the names that their published checkpoints have."""

import pytest
import torch

from diffgap.encoders.cavp_model import SpectrogramTower
from diffgap.evaluation.extractors.panns import AudioTagger

NORMALISATION = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_names(first, *heads):
    names = {f"{first}.{kind}" for kind in NORMALISATION}
    for block in (f"conv_block{number}" for number in range(1, 7)):
        names |= {f"{block}.conv1.weight", f"{block}.conv2.weight"}
        names |= {f"{block}.{bn}.{kind}" for bn in ("bn1", "bn2") for kind in NORMALISATION}
    return names | {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("model", "names", "mels", "shapes"),
    [
        (AudioTagger, ("bn0", "fc1", "fc_audioset"), 64, [(2, 2048), (2, 527)]),
        (SpectrogramTower, ("bn", "fc1", "final_project"), 128, [(2, 4, 512)]),
    ],
)
def test_names_and_shapes_are_those_of_the_checkpoints(model, names, mels, shapes):
    network = model().eval()
    assert network.state_dict().keys() == published_names(*names)
    assert network.conv_block6.conv2.weight.shape == (2048, 2048, 3, 3)
    with torch.inference_mode():
        outputs = network(torch.zeros(2, 1, 64, mels))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [tuple(output.shape) for output in outputs] == shapes
