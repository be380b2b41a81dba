"""A sweep: the plan, Ray Tune to run it, Ray Train workers for each trial, and its display."""
