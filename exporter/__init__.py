"""gpu-node-exporter: every NVIDIA GPU of a node and its host, once a second, for Prometheus."""

__version__ = "0.1.0"
