"""URLs that requests may be sent to, in the file or in a file that it names."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit


def url(text: str) -> str:
    """Read an absolute URL of http or https whose host may be asked.

    Link-local addresses are refused: what answers there are the metadata services of clouds,
    which hand out the machine's own credentials.
    """
    parts = _split(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError("is not a URL of http or https; write https://HOST/PATH")
    if "@" in parts.netloc:
        raise ValueError("holds a user name; write it as http_config: {basic_auth: ...}")
    if "#" in text:
        raise ValueError('has a part after "#", which is never sent; remove it')
    _check_host(parts)
    return text


def base_url(text: str) -> str:
    """Read a URL that paths are put behind."""
    if "?" in url(text):
        raise ValueError('has a part after "?"; write only what stands before it')
    return text


def is_exposed(text: str) -> bool:
    """Return whether what is sent to this URL can be read on its way: no TLS, another host."""
    parts = urlsplit(text)
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _split(text: str) -> SplitResult:
    if not re.fullmatch(r"[!#-;=?-\[\]_a-z~]+", text):
        raise ValueError("is not a URL; write https://HOST/PATH, other characters as %XX")
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL; write https://HOST/PATH") from None


def _check_host(parts: SplitResult) -> None:
    try:
        port_is_good = parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        port_is_good = False
    if not port_is_good:
        raise ValueError("has a port that is not 1 to 65535; write one, or remove the colon")
    host = (parts.hostname or "").removesuffix(".")
    address = _address(host)
    if address is None:
        if not re.fullmatch(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", host):
            raise ValueError("has no host; write https://HOST/PATH")
        if re.fullmatch(r"(.*\.)?([0-9]+|0x[0-9a-f]*)", host):  # other notations of IPv4
            raise ValueError("has neither name nor address; write four numbers of 0 to 255")
    elif address.is_link_local:
        raise ValueError("is a link-local address, as of metadata services; write another host")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback
