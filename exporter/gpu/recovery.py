"""What the driver says must be done to a GPU that is not well."""

from __future__ import annotations

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import within
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

# nvmlDeviceGpuRecoveryAction_t. A number that is not here is exported as it stands.
ACTIONS = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}

MAX_ACTION = 255


@dataclass(frozen=True, slots=True)
class Recovery:
    """The action by NVML's number, a key of ACTIONS."""

    action: int | None

    @property
    def word(self) -> str | None:
        """The action in a word."""
        return None if self.action is None else ACTIONS.get(self.action, str(self.action))


def read(device: Device, _previous: Recovery | None) -> Recovery:
    """Read field 230 (570)."""
    number = within(device.field(Field.RECOVERY_ACTION), 0, MAX_ACTION)
    return Recovery(int(number) if number is not None and number == int(number) else None)


READER = Reader("recovery", "recovery", Tier.SLOW, read, (FieldRequest(Field.RECOVERY_ACTION),))

METRICS: tuple[Row[Recovery], ...] = (
    Metric(
        "gpu_recovery_action",
        "What the driver wants done: 0 nothing, 1 reset the GPU, 2 reboot the node, 3 drain P2P, "
        "4 drain P2P and reset, 5 recover the IMEX domain, 6 reset the bus, 7 reboot the system.",
        lambda r: r.action,
    ),
    MetricVec(
        "gpu_recovery_action_info",
        "The same in a word; always 1.",
        ("action",),
        lambda r: {} if r.word is None else {r.word: 1},
        Kind.INFO,
    ),
)
