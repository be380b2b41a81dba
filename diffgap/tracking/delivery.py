"""Things to be told to somebody who may be away: in order, each until it has succeeded.

What is told here is told again by the next command if this process dies, so an outbox keeps
nothing on disk.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Between attempts: doubled from the one to the other."""

Action = Callable[[], None]


class DeliveryQueue:
    """A queue of actions, done one after another in a thread of its own.

    Args:
        may_get_better: whether an action that raised this is worth another try; one that is not is
            dropped, and its error kept in `errors`.
        on_trouble: hears of the error when a wait begins, and of None when it is over.
    """

    def __init__(
        self,
        is_transient: Callable[[Exception], bool],
        on_trouble: Callable[[Exception | None], None],
    ) -> None:
        self.errors: list[Exception] = []
        self._is_transient, self._on_trouble = is_transient, on_trouble
        self._actions: deque[Action] = deque()
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def put(self, action: Action) -> None:
        """Appends an action; returns at once."""
        with self._news:
            self._actions.append(action)
            self._news.notify()

    def close(self, patience: float) -> int:
        """Waits until all is done, `patience` seconds at most; returns how many are left undone."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(patience)
        with self._news:
            left = len(self._actions)
            self._actions.clear()
            self._news.notify()
        return left

    def _work(self) -> None:
        while action := self._next():
            self._do(action)
            with self._news:
                if self._actions:
                    self._actions.popleft()

    def _next(self) -> Action | None:
        """The first action, which stays in the queue until it is done; None at the end."""
        with self._news:
            while not self._actions and not self._closing:
                self._news.wait()
            return self._actions[0] if self._actions else None

    def _do(self, action: Action) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                action()
            except Exception as error:
                if not self._is_transient(error):
                    self.errors.append(error)
                    return
                if pause == FIRST_PAUSE_S:
                    self._on_trouble(error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                if not self._actions:  # given up
                    return
            else:
                if pause > FIRST_PAUSE_S:
                    self._on_trouble(None)
                return
