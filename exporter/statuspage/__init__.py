"""The page for the person who is logged into one node, and the JSON behind it."""

from exporter.statuspage.past import Past
from exporter.statuspage.problems import unready
from exporter.statuspage.site import StatusPage

__all__ = ["Past", "StatusPage", "unready"]
