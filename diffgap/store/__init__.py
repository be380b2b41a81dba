"""Embedding stores: paired embeddings in Parquet, with a manifest."""
