"""Generated clips on the page: one part a clip, a player a row of the table."""

from __future__ import annotations

from html import escape

from diffgap.report.audio_clips import AudioClip, AudioGallery


def audio_gallery_html(heard: AudioGallery) -> str:
    """One part a clip, closed but for the first."""
    return "".join(_clip(clip, first=number == 0) for number, clip in enumerate(heard.clips))


def _clip(clip: AudioClip, first: bool) -> str:
    asked = f"“{escape(clip.caption)}”" if clip.caption else escape(clip.clip)
    rows = "".join(_row(name, sound) for name, sound in {"real": clip.real, **clip.made}.items())
    return (
        f'<details class="example"{" open" if first else ""}><summary>{asked} '
        f"<small>{escape(clip.clip)}</small></summary>"
        f'<div class="scroll"><table class="words"><tbody>{rows}</tbody></table></div></details>'
    )


def _row(name: str, sound: str) -> str:
    player = f'<audio controls preload="none" src="{sound}" aria-label="{escape(name)}"></audio>'
    return f'<tr><th scope="row">{escape(name)}</th><td>{player}</td></tr>'
