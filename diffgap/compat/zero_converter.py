"""DeepSpeed's converter of checkpoints, or a stand-in, run without the code that a file may name.

    python -m diffgap.compat.zero_converter MODULE ARGUMENTS...

Can go when DeepSpeed's converter reads checkpoints with ``weights_only``.
"""

from __future__ import annotations

import runpy
import sys

from diffgap.compat.deepspeed import plain_loading


def main() -> None:
    """Runs the module that the first argument names, as ``python -m`` would."""
    del sys.argv[0]
    with plain_loading():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
