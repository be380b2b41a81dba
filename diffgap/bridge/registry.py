"""Classes of the methods, by import path."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

# Paths instead of classes: Bridge.from_pretrained loads any method, and the classes are Bridges.
METHODS = {
    "none": "diffgap.bridge.model:DiffGAP",
    "center": "diffgap.bridge.siblings:Center",
    "mean_shift": "diffgap.bridge.siblings:MeanShift",
    "close": "diffgap.bridge.siblings:Close",
    "deterministic": "diffgap.bridge.model:DiffGAP",
    "diffusion_bridge": "diffgap.bridge.siblings:DiffusionBridge",
    "diffusion_link": "diffgap.bridge.siblings:DiffusionLink",
    "diffgap": "diffgap.bridge.model:DiffGAP",
}


def bridge_class(method: str) -> Any:
    """The subclass of Bridge that implements a method; imports its module."""
    return resolve_name(METHODS[method])
