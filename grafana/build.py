"""Writes the dashboards, and their list in docs/dashboards.md.

    build.py [FOLDER]

With a folder, all of it goes there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from frame import written
from gpu_detail import DETAIL
from gpu_fleet import FLEET
from gpu_node import NODE
from gpu_scaleout import SCALEOUT
from reference import listed

PAGES = (FLEET, NODE, DETAIL, SCALEOUT)
HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def main(json_folder: Path, docs_folder: Path) -> None:
    """Write one file a dashboard, and the list."""
    files = {f"{page.uid}.json": written(page) for page in PAGES}
    for name, text in files.items():
        (json_folder / name).write_text(text, encoding="utf-8")
    document = (DOCS / "dashboards.md").read_text(encoding="utf-8")
    text = listed(document, list(files.values()))
    (docs_folder / "dashboards.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*([Path(sys.argv[1])] * 2 if len(sys.argv) > 1 else (HERE, DOCS)))
