"""Bridges of any method: fresh from a config, or loaded from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.files import REMEDY
from diffgap.bridge.registry import bridge_class
from diffgap.errors import UserError


def make_bridge(config: BridgeConfig) -> Bridge:
    """A fresh bridge of the config's method."""
    bridge: Bridge = bridge_class(config.method)(config)
    return bridge


def load_bridge(path: str | Path) -> Bridge:
    """A saved bridge of any method, on the GPU if there is one.

    Raises:
        UserError: where there is none, or it cannot be read.
    """
    try:
        bridge = Bridge.from_pretrained(path)
    except FileNotFoundError as error:
        raise UserError(f"BRIDGE: {error}") from None
    except OSError as error:
        raise UserError(f"BRIDGE: {path} cannot be read ({error}); {REMEDY}") from None
    except UserError as error:
        raise UserError(*[f"BRIDGE: {problem}" for problem in error.problems]) from None
    return bridge.to("cuda" if torch.cuda.is_available() else "cpu")
