"""Where the kernel keeps the host's figures, and how its `key value` files are read."""

import os
from pathlib import Path

PROC = Path("/proc")
SYS = Path("/sys")

PART_BYTES = 1 << 14  # all of most files; the kernel may give less at a time


def text(path: str) -> str:
    """Return the text of a file of the kernel.

    By bare system calls: half the time of `Path.read_text`, several times a second.

    Raises:
        OSError: this kernel has no such file, or refuses to read it.
        ValueError: the file is not UTF-8.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        content = b""
        while part := os.read(file, PART_BYTES):
            content += part
        return content.decode()
    finally:
        os.close(file)


def text_or_empty(path: str) -> str:
    """Return the text of a file that not every kernel has, or "" where it cannot be read."""
    try:
        return text(path)
    except OSError:
        return ""


def number(content: str, key: str) -> int | None:
    """Return the number behind `key` in the format of /proc/meminfo and /proc/vmstat.

    Args:
        content: lines of `key value` or `key value kB`.
        key: how the line begins, its delimiter included: "SwapFree:" or "oom_kill ".

    Returns:
        The number as it stands there, kB not yet multiplied; None without such a line.

    Raises:
        ValueError: the line holds no integer.
    """
    _, found, rest = ("\n" + content).partition("\n" + key)
    if not found:
        return None
    value = rest.partition("\n")[0].removesuffix("kB").strip()
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{key.strip()} {value!r} is no integer") from None


def names(folder: Path) -> list[str]:
    """Return the names in a folder of sysfs, sorted; none where this kernel has no such folder.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return []
