"""Console that prints text as it is: [brackets] are no markup, control characters do nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from diffgap.io.printable import printable
from diffgap.io.streams import spelled


class PlainConsole(Console):
    """rich's console for text of whatever origin; see `printable`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def shown(self, text: str) -> str:
        """The text as it will stand there: as wide, where signs are spelled out for ASCII."""
        text = printable(text)
        return text if self.encoding.startswith("utf") else spelled(text, self.encoding)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(self.shown(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        if isinstance(renderable, Text):
            renderable = renderable.copy()
            # As long as it was, so that its styles stay in place.
            renderable.plain = printable(renderable.plain)
        return super().render(renderable, options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process with status 1
