"""Secrets live in files, and are read when needed: a rotated one counts at once."""

from __future__ import annotations

import stat
from os import stat_result
from pathlib import Path

MAX_BYTES = 64 * 1024


class SecretError(Exception):
    """A secret that cannot be used: which file, why, and what would be right. Never its content."""


def read_secret(path: Path) -> str:
    """Return the text of a file without the white space around it.

    Raises:
        SecretError: It is missing, empty, no text, too large, or readable by every user.
    """
    try:
        refuse_public(path, path.stat())
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise SecretError(f"{path} is larger than {MAX_BYTES} bytes; is it the right file?")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not text in UTF-8") from None
    if not text:
        raise SecretError(f"{path} is empty")
    return text


def refuse_public(path: Path, status: stat_result) -> None:
    """Refuse what is no regular file, or open to every user of the machine.

    Readable by its group is fine: that is how systemd and Kubernetes hand out secrets.

    Raises:
        SecretError: It is.
    """
    if not stat.S_ISREG(status.st_mode):
        raise SecretError(f"{path} is not a regular file")
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise SecretError(f"{path} is open to every user; chmod o= {path}")
