"""Takes out of a bundle what names a person, a machine or a secret.

The same thing gets the same alias throughout one bundle. Aliases are made with a key that is
thrown away, so that nobody can find out by trying names what stands behind one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from ipaddress import ip_address
from typing import Any

from exporter.doctor.facts import Facts, Space
from exporter.snapshot import Gpu, Snapshot

REMOVED = "removed"
# Words of a config that stay: whatever else is text there is an alias or gone.
KEPT = frozenset(
    {
        ("Rule", "alert"),
        ("Rule", "metric"),
        ("Condition", "metric"),
        ("Aggregate", "kind"),
        ("WebhookConfig", "format"),
        ("TlsConfig", "min_version"),
        ("ScaleTargetRef", "api_version"),
        ("ScaleTargetRef", "kind"),
    }
)
SHORTEST_NAME = 3
COMMON_NAMES = frozenset({"root", "localhost", "nobody", "gpu", "host", "node", "nvidia", "none"})

_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>]+", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HEX = r"[0-9a-fA-F]"
_UUID = re.compile(rf"\b{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}\b")
_LONG_HEX = re.compile(rf"\b{_HEX}{{32,}}\b")
_MAC = re.compile(rf"(?<![\w:]){_HEX}{{2}}(?::{_HEX}{{2}}){{5}}(?![\w:])")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:"
    r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w.])"  # v4
    r"|[0-9a-fA-F:]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(?![\w:])"  # v6
    r")"
)
_HOME = re.compile(r"(?<=/home/)[^/\s\"']+")


class Redactor:
    """Replaces what must not leave the machine. One for each bundle."""

    def __init__(self, names: Collection[str]) -> None:
        """Take the names of this machine and of its users."""
        self._key = secrets.token_bytes(32)
        known = {n for n in names if len(n) >= SHORTEST_NAME and n.lower() not in COMMON_NAMES}
        longest_first = sorted(map(re.escape, known), key=len, reverse=True)
        self._names = re.compile(
            rf"(?<![A-Za-z0-9])(?:{'|'.join(longest_first) or '(?!)'})(?![A-Za-z0-9])",
            re.IGNORECASE,
        )

    def alias(self, what: str, secret: str) -> str:
        """Return the alias of one thing: "uuid-3f2a91c0"."""
        digest = hmac.new(self._key, secret.encode(errors="replace"), hashlib.sha256).hexdigest()
        return f"{what}-{digest[:8]}" if secret else ""

    def facts(self, facts: Facts) -> Facts:
        """Return the facts with aliases; what users run is left out."""
        machine, file = facts.machine, facts.model_file
        return replace(
            facts,
            snapshot=self._snapshot(facts.snapshot),
            machine=replace(
                machine, models=self._space(machine.models), storage=self._space(machine.storage)
            ),
            model_file=file and replace(file, path=self.alias("path", file.path)),
        )

    def text(self, text: str) -> str:
        """Return a text without addresses, URLs, identifiers and known names."""
        text = _URL.sub(lambda m: self.alias("url", m[0]), text)
        text = _MAIL.sub(lambda m: self.alias("mail", m[0]), text)
        text = _UUID.sub(lambda m: self.alias("uuid", m[0]), text)
        text = _LONG_HEX.sub(lambda m: self.alias("id", m[0]), text)
        text = _MAC.sub(lambda m: self.alias("mac", m[0]), text)
        text = _ADDRESS.sub(self._address, text)
        text = _HOME.sub(lambda m: self.alias("user", m[0]), text)
        return self._names.sub(lambda m: self.alias("name", m[0]), text)

    def config(self, value: Any) -> Any:  # noqa: ANN401  any part of a config
        """Return a part of the config as JSON: numbers, switches, and words of our own."""
        if is_dataclass(value):
            owner = type(value).__name__
            return {
                field.name: self._setting(owner, field.name, getattr(value, field.name))
                for field in fields(value)
            }
        if isinstance(value, Mapping):
            return {
                name if isinstance(part, bool) else self.alias("name", str(name)): self.config(part)
                for name, part in value.items()
            }
        if isinstance(value, (tuple, list)):
            return [self.config(part) for part in value]
        if isinstance(value, Enum):
            return value.value
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.alias("text", str(value))

    def _setting(self, owner: str, name: str, value: object) -> Any:  # noqa: ANN401  as config
        if (owner, name) in KEPT:
            return value
        if name == "template" and value is not None:
            return REMOVED
        return self.config(value)

    def _snapshot(self, snapshot: Snapshot) -> Snapshot:
        return replace(
            snapshot, gpus=tuple(self._gpu(gpu) for gpu in snapshot.gpus), processes=None
        )

    def _gpu(self, gpu: Gpu) -> Gpu:
        identity, place, fabric, mig = gpu.identity, gpu.platform, gpu.fabric, gpu.mig
        if identity is not None:
            identity = replace(identity, serial=self.alias("serial", identity.serial))
        if place is not None and place.chassis_serial is not None:
            place = replace(place, chassis_serial=self.alias("serial", place.chassis_serial))
        if fabric is not None and fabric.info is not None:
            cluster = self.alias("uuid", fabric.info[-1])
            fabric = replace(fabric, info=(*fabric.info[:-1], cluster))
        if mig is not None:
            devices = {self.alias("uuid", uuid): part for uuid, part in mig.instances.items()}
            mig = replace(mig, instances=devices)
        return replace(
            gpu,
            uuid=self.alias("uuid", gpu.uuid),
            identity=identity,
            platform=place,
            fabric=fabric,
            mig=mig,
        )

    def _space(self, space: Space | None) -> Space | None:
        return space and replace(space, path=self.alias("path", space.path))

    def _address(self, match: re.Match[str]) -> str:
        try:
            ip_address(match[0])
        except ValueError:
            return match[0]
        return self.alias("address", match[0])
