"""Rules: what is sustained on this node, decided once a second. No I/O, no clock, no log.

samples    a snapshot as samples by GPU and metric
readings   those as one rule sees them: whether its condition holds
series     the state machine: inactive, pending, firing
sustained  what "for 10 s" means
windows    the lowest utilization of the last 10 s
step       all of it for one tick
engine     holds the state
"""

from exporter.rules.engine import Engine, Firing
from exporter.rules.series import Fired

__all__ = ["Engine", "Fired", "Firing"]
