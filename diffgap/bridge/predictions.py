"""What the network predicts - noise, clean target or velocity - and how one becomes another.

With ``z = alpha x + sigma e``: eps is ``e`` (Ho et al. 2020), x0 is ``x``, and v is
``alpha e - sigma x`` (Salimans & Ho 2022). All three carry the same information, given z.
"""

from __future__ import annotations

from torch import Tensor

from diffgap.bridge.schedules import NoiseLevel

PREDICTIONS = ("x0", "eps", "v")


def prediction_target(prediction: str, clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """What a network of this prediction type should output. All tensors are (B, D)."""
    if prediction == "x0":
        return clean
    if prediction == "eps":
        return noise
    assert prediction == "v", prediction
    return level.alpha * noise - level.sigma * clean


def clean_estimate(prediction: str, output: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
    """The clean target that an output stands for, given the noisy ``z``. All are (B, D)."""
    if prediction == "x0":
        return output
    if prediction == "eps":
        return (z - level.sigma * output) / level.alpha
    assert prediction == "v", prediction
    return level.alpha * z - level.sigma * output
