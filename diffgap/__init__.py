"""DiffGAP: bridging the modality gap of frozen contrastive embeddings, and sweeping over how."""

__version__ = "0.1.0"
