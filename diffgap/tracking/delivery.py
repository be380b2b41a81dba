"""Delivery of messages to a server that may be away: in order, each until it has succeeded.

A message that is lost with this process is sent again by the next command, so a queue keeps
nothing on disk.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # between attempts: doubled from the one to the other
CHECK_S = 0.1  # between two looks whether a queue that is closing has given up
Message = Callable[[], object]
T = TypeVar("T")


def retry(
    attempt: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    on_trouble: Callable[[Exception | None], None],
    gives_up: Callable[[], bool],
) -> T:
    """Repeats an attempt until it succeeds; raises an error that is not transient.

    Calls `on_trouble` with the first error, and with None once the trouble is over. Asks `gives_up`
    after each pause whether to raise the last error instead.
    """
    pause = FIRST_PAUSE_S
    while True:
        try:
            result = attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            if pause == FIRST_PAUSE_S:
                on_trouble(error)
            time.sleep(pause)
            if gives_up():
                raise
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            if pause > FIRST_PAUSE_S:
                on_trouble(None)
            return result


class DeliveryQueue:
    """Messages that a thread of its own sends, one after another, as `retry` does.

    A message whose error is not transient is dropped, and the error kept in `errors`.
    """

    def __init__(
        self,
        is_transient: Callable[[Exception], bool],
        on_trouble: Callable[[Exception | None], None],
    ) -> None:
        self.errors: list[Exception] = []
        self._is_transient, self._on_trouble = is_transient, on_trouble
        self._trouble_began: float | None = None
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._send_all, name="delivery", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Appends a message; returns at once."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def close(self, patience: float) -> int:
        """Waits until all is sent, however much that is; returns how many messages are not.

        Gives up once an error has lasted for `patience` seconds of the wait.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        start = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(min(patience, CHECK_S))
            began = self._trouble_began
            if began is not None and time.monotonic() - max(start, began) > patience:
                break
        with self._changed:
            unsent = len(self._messages)
            self._messages.clear()  # by which the thread, if it is in a pause, gives up
        return unsent

    def _send_all(self) -> None:
        while message := self._first():
            try:
                retry(message, self._is_transient, self._note_trouble, lambda: not self._messages)
            except Exception as error:
                if self._messages:  # else it has given up, and `close` has counted the message
                    self.errors.append(error)
            self._trouble_began = None
            with self._changed:
                if self._messages:
                    self._messages.popleft()

    def _note_trouble(self, error: Exception | None) -> None:
        self._trouble_began = time.monotonic() if error else None
        self._on_trouble(error)

    def _first(self) -> Message | None:
        """The first message, which stays in the queue until it is sent; None at the end."""
        with self._changed:
            while not self._messages and not self._is_closing:
                self._changed.wait()
            return self._messages[0] if self._messages else None
