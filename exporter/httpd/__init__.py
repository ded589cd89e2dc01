"""The HTTP server: h11 parses, and every request, connection and buffer has a bound.

`listen` opens sockets, `server` accepts and keeps the deadlines, `connection` speaks HTTP/1.1 with
one client, `message` holds what passes between them and the handlers. `gate` is asked who may come
in, and with which TLS, where there is one; `tls` shakes hands.
"""

from exporter.httpd.gate import Gate, Verdict, Visitor
from exporter.httpd.listen import Address, ListenError, adopt, parse_address
from exporter.httpd.message import Handler, Limits, Request, Response, Route
from exporter.httpd.server import Server

__all__ = [
    "Address",
    "Gate",
    "Handler",
    "Limits",
    "ListenError",
    "Request",
    "Response",
    "Route",
    "Server",
    "Verdict",
    "Visitor",
    "adopt",
    "parse_address",
]
