"""What the network predicts - clean target, noise or velocity - and how one becomes another.

On the path ``z = alpha x + sigma e``: x0 is ``x``, eps is ``e`` (Ho et al. 2020), and v is the
path's derivative ``d_alpha x + d_sigma e`` (Salimans & Ho 2022; rectified flow's velocity, Liu et
al. 2022). Each is a mix of x and e; with z, a second mix, any one of them gives the others.
"""

from __future__ import annotations

from torch import Tensor

from diffgap.bridge.schedules import NoiseLevel

PREDICTIONS = ("x0", "eps", "v")


def prediction_target(prediction: str, clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """What a network of this prediction type should output.

    The clean targets x and the standard normal noise e are (B, D), the parts of the level (B, 1) or
    of no dimension.
    """
    if prediction == "x0":
        return clean
    if prediction == "eps":
        return noise
    assert prediction == "v", prediction
    return level.d_alpha * clean + level.d_sigma * noise


def convert(output: Tensor, z: Tensor, level: NoiseLevel, source: str, target: str) -> Tensor:
    """Turns a (B, D) prediction of type `source` into one of type `target`, exactly, given ``z``.

    With ``z = alpha x + sigma e`` and ``output = a x + s e``, the target ``a' x + s' e`` is

        ((a' s - s' a) z + (alpha s' - sigma a') output) / (alpha s - sigma a)

    (by Cramer's rule for x and e). Converting directly, not by way of x, avoids dividing by a small
    alpha what is multiplied by it again. The noisy targets z are (B, D), the parts of their level
    (B, 1) or of no dimension.
    """
    if source == target:
        return output
    (a, s), (to_a, to_s) = _mix(source, level), _mix(target, level)
    from_z = to_a * s - to_s * a
    from_output = level.alpha * to_s - level.sigma * to_a
    return (from_z * z + from_output * output) / (level.alpha * s - level.sigma * a)


def clean_estimate(prediction: str, output: Tensor, z: Tensor, level: NoiseLevel) -> Tensor:
    """The (B, D) clean targets that outputs stand for; see `convert` for the arguments."""
    return convert(output, z, level, prediction, "x0")


def _mix(prediction: str, level: NoiseLevel) -> tuple[Tensor | float, Tensor | float]:
    """How much of x and of e there is in a prediction."""
    if prediction == "x0":
        return 1.0, 0.0
    if prediction == "eps":
        return 0.0, 1.0
    assert prediction == "v", prediction
    return level.d_alpha, level.d_sigma
