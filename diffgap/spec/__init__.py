"""What a sweep and a trial are, and how a file becomes one, with all mistakes told at once."""

from diffgap.spec.blocks import BST, CDM, DenoiserOptions, Loss, Score, Train
from diffgap.spec.loading import load_sweep
from diffgap.spec.signature import canonical_json, flatten, signature, training_signature
from diffgap.spec.sweep import Resources, Scheduler, Search, SweepSpec
from diffgap.spec.trial import Trial, TrialSpec

__all__ = [
    "BST",
    "CDM",
    "DenoiserOptions",
    "Loss",
    "Resources",
    "Scheduler",
    "Score",
    "Search",
    "SweepSpec",
    "Train",
    "Trial",
    "TrialSpec",
    "canonical_json",
    "flatten",
    "load_sweep",
    "signature",
    "training_signature",
]
