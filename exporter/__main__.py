"""python -m exporter, and the command gpu-node-exporter."""

import os
import sys

from exporter.cli import run


def main() -> None:
    """Run the command line and end the process.

    os._exit: a thread that hangs in a driver call must not hold the exit.
    """
    os._exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
