"""Published checkpoints: weights read key by key, and models that several parts share."""
