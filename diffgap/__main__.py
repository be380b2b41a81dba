"""The `diffgap` command, also run as `python -m diffgap`."""

import atexit
import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType

from diffgap.io.redact import redact
from diffgap.io.streams import prepare_streams


def run() -> None:
    """Runs the command line, and exits as soon as its work is done."""
    status: object = 1  # the status of an uncaught exception

    def exit_now() -> None:
        # Python would free all modules and objects one by one, which takes a second after a sweep.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))

    atexit.register(exit_now)  # registered first, so called last
    prepare_streams()
    sys.excepthook = _show_redacted
    from diffgap.cli.main import main

    try:
        main()
    except SystemExit as end:
        status = end.code
        raise
    status = 0


def _show_redacted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints the traceback of a bug: libraries' messages repeat URIs, and people share them."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


if __name__ == "__main__":
    run()
