"""Paths and URIs, atomic writes, and secrets kept out of what is written."""
