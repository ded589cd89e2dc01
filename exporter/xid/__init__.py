"""XID errors: the NVIDIA driver's own account of what went wrong on a GPU."""

from exporter.xid.journal import Journal
from exporter.xid.kernel_log import Opener
from exporter.xid.kmsg import Kmsg
from exporter.xid.monitor import Monitor, SeenGpu
from exporter.xid.store import Store
from exporter.xid.view import XidView

__all__ = ["Journal", "Kmsg", "Monitor", "Opener", "SeenGpu", "Store", "XidView"]
