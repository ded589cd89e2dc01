# noqa: INP001  a script, in no package
"""Draws docs/images/status-light.webp and status-dark.webp: the status page of a simulated node.

One GPU of eight was lost two minutes ago, and two rules fire. It needs `make setup` and Chromium:

    .venv/bin/python docs/images/status.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from browser import Tab, chromium
from http_client import serving
from status_site import sites

from exporter.sampling import Fault

FOLDER = Path(__file__).parent
WIDTH = 1280
SECONDS, LOST_AT = 398, 278


def main() -> None:
    """Lets the node run in its own time, then looks at its page."""
    with tempfile.TemporaryDirectory() as storage, sites(Path(storage)) as site:
        site.run(LOST_AT)
        site.faults[5] = Fault.LOST
        site.run(SECONDS - LOST_AT)
        with serving(site.routes()) as server, chromium() as browser:
            for name, dark in (("light", False), ("dark", True)):
                tab = Tab(browser, f"http://127.0.0.1:{server.port}/", width=WIDTH, dark=dark)
                # A quarter of the bytes of a PNG.
                (FOLDER / f"status-{name}.webp").write_bytes(tab.picture("webp"))


if __name__ == "__main__":
    main()
