"""Hacks around other libraries, each with the version or issue at which it can go."""
