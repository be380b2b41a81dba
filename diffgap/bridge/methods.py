"""The methods by name: DiffGAP with the cells of its ablation, and its siblings."""

from __future__ import annotations

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.siblings import Center, Close, DiffusionBridge, DiffusionLink, MeanShift

METHODS: dict[str, type[Bridge]] = {
    "none": DiffGAP,
    "center": Center,
    "mean_shift": MeanShift,
    "close": Close,
    "deterministic": DiffGAP,
    "diffusion_bridge": DiffusionBridge,
    "diffusion_link": DiffusionLink,
    "diffgap": DiffGAP,
}


def make_bridge(config: BridgeConfig) -> Bridge:
    """A fresh bridge of the config's method."""
    return METHODS[config.method](config)
