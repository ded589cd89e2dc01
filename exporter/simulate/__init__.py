"""A simulated node behind the driver's seam: for machines without a GPU, demos and tests."""

from exporter.simulate.driver import SimulatedDriver
from exporter.simulate.planted import Planted
from exporter.simulate.profiles import PROFILES
from exporter.simulate.xids import PlantedXid, planted_xid

__all__ = ["PROFILES", "Planted", "PlantedXid", "SimulatedDriver", "planted_xid"]
