"""Generated clips on the page: one part a clip, a player a row of the table."""

from __future__ import annotations

from html import escape

from diffgap.report.audio_clips import AudioClip, AudioGallery


def audio_gallery_html(gallery: AudioGallery) -> str:
    """One part a clip, closed but for the first."""
    parts = [_clip(clip, is_open=clip is gallery.clips[0]) for clip in gallery.clips]
    return "".join(parts)


def _clip(clip: AudioClip, is_open: bool) -> str:
    query = f"“{escape(clip.caption)}”" if clip.caption else escape(clip.clip)
    rows = [_row("real", clip.real)]
    rows += [_row(name, sound) for name, sound in clip.generated.items()]
    return (
        f'<details class="example"{" open" if is_open else ""}><summary>{query} '
        f"<small>{escape(clip.clip)}</small></summary>"
        f'<div class="scroll"><table class="words"><tbody>{"".join(rows)}</tbody></table></div>'
        "</details>"
    )


def _row(name: str, sound: str) -> str:
    player = f'<audio controls preload="none" src="{sound}" aria-label="{escape(name)}"></audio>'
    return f'<tr><th scope="row">{escape(name)}</th><td>{player}</td></tr>'
