"""The `diffgap` command, also run as `python -m diffgap`."""

import atexit
import os
import sys


def run() -> None:
    """Runs the command line, and exits as soon as its work is done."""
    status: object = 1  # the status of an uncaught exception

    def exit_now() -> None:
        # Python would free all modules and objects one by one, which takes a second after a sweep.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))

    atexit.register(exit_now)  # registered first, so called last
    from diffgap.cli.main import main

    try:
        main()
    except SystemExit as end:
        status = end.code
        raise
    status = 0


if __name__ == "__main__":
    run()
