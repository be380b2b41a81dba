"""What a sweep and a trial are, and how a file becomes one, with all mistakes told at once."""

from diffgap.spec.document import load_sweep
from diffgap.spec.models import (
    BST,
    CDM,
    Denoiser,
    Loss,
    Resources,
    Score,
    SweepSpec,
    Train,
    Trial,
    TrialSpec,
)
from diffgap.spec.signature import canonical_json, flatten, signature

__all__ = [
    "BST",
    "CDM",
    "Denoiser",
    "Loss",
    "Resources",
    "Score",
    "SweepSpec",
    "Train",
    "Trial",
    "TrialSpec",
    "canonical_json",
    "flatten",
    "load_sweep",
    "signature",
]
