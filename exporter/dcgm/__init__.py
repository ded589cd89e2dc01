"""The default counters of NVIDIA's dcgm-exporter, from our readings, for the time of a move."""

from exporter.dcgm.page import DcgmPage

__all__ = ["DcgmPage"]
