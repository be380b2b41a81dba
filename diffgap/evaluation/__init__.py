"""Scores of a bridge: retrieval, the modality gap, and how sure the numbers are."""
