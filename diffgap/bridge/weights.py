"""Loss weights: how much an error counts at each noise level.

A weight is defined on the squared error of the clean target and carried over to the squared error
that the network is trained on, so that ``snr`` means the same loss for x0, eps and v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffgap.bridge.schedules import NoiseLevel

WEIGHTS = ("uniform", "snr", "min_snr", "sigmoid")


def loss_weight(
    kind: str, prediction: str, log_snr: Tensor, level: NoiseLevel, *, gamma: float, bias: float
) -> Tensor:
    """The (B,) weight, above 0, of each example's squared error, in the network's own prediction.

    Args:
        kind: one of `WEIGHTS`. ``uniform`` is 1 whatever the prediction, so with eps it is the
            paper's loss. On the clean target's error, ``snr`` is alpha^2 / sigma^2, which is 1 on
            eps (Ho et al. 2020, eq. 14); ``min_snr`` caps it at gamma (Hang et al. 2023);
            ``sigmoid`` is sigmoid(bias - log-SNR) on eps (Kingma & Gao 2023; Hoogeboom et al.
            2024).
        prediction: one of `PREDICTIONS`.
        log_snr: (B,).
        level: its noise level, each part of (B,).
        gamma: cap of ``min_snr``.
        bias: of ``sigmoid``, in units of log-SNR; higher weighs low noise more.
    """
    assert level.alpha.shape == log_snr.shape, (level.alpha.shape, log_snr.shape)
    if kind == "uniform":
        return torch.ones_like(log_snr)
    return _clean_weight(kind, log_snr, gamma, bias) / _error_ratio(prediction, log_snr, level)


def _clean_weight(kind: str, log_snr: Tensor, gamma: float, bias: float) -> Tensor:
    """The weight on the squared error of the clean target, (B,)."""
    snr = log_snr.exp()
    if kind == "snr":
        return snr
    if kind == "min_snr":
        return snr.clamp(max=gamma)
    assert kind == "sigmoid", kind
    return snr * torch.sigmoid(bias - log_snr)


def _error_ratio(prediction: str, log_snr: Tensor, level: NoiseLevel) -> Tensor:
    """Squared error of a prediction over that of the clean target it stands for, (B,).

    z is given, so an error d in x is an error ``-d alpha / sigma`` in e, and one of
    ``d (d_alpha - d_sigma alpha / sigma)`` in ``v = d_alpha x + d_sigma e``.
    """
    if prediction == "x0":
        return torch.ones_like(log_snr)
    if prediction == "eps":
        return log_snr.exp()
    assert prediction == "v", prediction
    turn = level.alpha * level.d_sigma - level.sigma * level.d_alpha
    return (turn / level.sigma).square()
