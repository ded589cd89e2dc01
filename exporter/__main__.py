"""python -m exporter, and the command gpu-node-exporter."""

import gc
import os
import sys


def main() -> None:
    """Run the command line and end the process.

    os._exit: a thread that hangs in a driver call must not hold the exit.
    """
    # What is loaded stays: to look through it for garbage takes 10 ms here, and 30 ms in a poll.
    gc.disable()
    from exporter.cli import run  # noqa: PLC0415  after the line above

    gc.freeze()
    gc.enable()
    os._exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
