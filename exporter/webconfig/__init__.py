"""The HTTP server's web config file, in the format of Prometheus's exporter-toolkit.

`model` is the file, `tls` its TLS, `passwords` its users; `entrance` is the gate made of them.
"""

from exporter.webconfig.entrance import Entrance, load, warnings

__all__ = ["Entrance", "load", "warnings"]
