"""A scene as video: each event a moving shape, visible while it sounds."""

from __future__ import annotations

import numpy as np

from diffgap.corpora.soundscapes.scenes import KINDS, SECONDS, Event, Scene

FRAMES, SIZE = 8, 32
COLOURS = np.array([
    (0.9, 0.2, 0.2), (0.2, 0.9, 0.3), (0.3, 0.4, 1.0),
    (0.9, 0.8, 0.2), (0.8, 0.3, 0.9), (0.2, 0.9, 0.9),
])  # fmt: skip
RADII = (2.5, 4.0, 6.0)
HEIGHTS = (24.0, 16.0, 8.0)  # low sounds are low in the picture


def render_video(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """uint8 (8, 32, 32, 3): four frames a second."""
    frames = 0.08 * (1 + scene.background) * rng.random((FRAMES, SIZE, SIZE, 3))
    times = (np.arange(FRAMES) + 0.5) * SECONDS / FRAMES
    for event in scene.events:
        shape = _shape(event, times, rng)
        colour = COLOURS[event.kind % len(COLOURS)]
        frames = frames * (1 - shape[..., None]) + shape[..., None] * colour
    return (255 * frames.clip(0, 1)).astype(np.uint8)


def _shape(event: Event, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The event's opacity, (8, 32, 32): its form shows its kind, its swing its pace."""
    radius = RADII[event.loudness] * rng.uniform(0.9, 1.1)
    swing = 3.0 * np.sin(2 * np.pi * (0.5 + event.pace) * times + rng.uniform(0, 2 * np.pi))
    centre_x = rng.uniform(8, 24) + swing
    centre_y = HEIGHTS[event.pitch] + rng.uniform(-1.5, 1.5)
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    dx = (x[None] - centre_x[:, None, None]) / radius
    dy = np.broadcast_to((y[None] - centre_y) / radius, dx.shape)
    # Frames are 0.25 s apart: the margin keeps a short sound in at least one.
    is_visible = (times >= event.onset - 0.1) & (times <= event.onset + event.duration + 0.1)
    return _form(event.kind, dx, dy) * is_visible[:, None, None]


def _form(kind: int, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """One of four forms; with six colours every kind has an appearance of its own."""
    form = kind // len(COLOURS) % -(-len(KINDS) // len(COLOURS))
    if form == 0:
        return (np.hypot(dx, dy) < 1).astype(float)
    if form == 1:
        return (np.maximum(np.abs(dx), np.abs(dy)) < 0.9).astype(float)
    if form == 2:
        return ((np.abs(dx) + np.abs(dy) < 1.2) & (dy < 0.3)).astype(float)
    distance = np.hypot(dx, dy)
    return ((distance < 1.1) & (distance > 0.6)).astype(float)
