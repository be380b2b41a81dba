"""The `diffgap` command, which is also `python -m diffgap`."""

import atexit
import os
import sys


def run() -> None:
    """Runs the command line, in a process that ends as soon as its work is done.

    Python would first free all modules and objects one by one, which takes a second after a sweep.
    """
    status: object = 1  # of an error that nobody catches

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))

    atexit.register(leave)  # before anything else can register: so it is the last one called
    from diffgap.cli.main import main

    try:
        main()
    except SystemExit as end:
        status = end.code
        raise
    status = 0


if __name__ == "__main__":
    run()
