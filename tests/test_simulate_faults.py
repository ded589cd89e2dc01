"""GPUs of the simulated node that are lost, hang, or cannot be listed."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest

from exporter.catalogue import GPU_READERS
from exporter.fields import Field
from exporter.sampling import DeviceGoneError, Fault, OpenDevice, ReadFailedError, Tier
from exporter.simulate import SimulatedDriver


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.LOST, "gpu_is_lost"), (Fault.RESET_REQUIRED, "reset_required")]
)
def test_gpu_that_is_gone(fault: Fault, error: str) -> None:
    """It answers nothing and cannot be opened, the others go on; and it may come back."""
    faults: dict[int, Fault] = {}
    driver = SimulatedDriver("h100x8", faults=faults)
    _, gpus = driver.connect()
    sick, well = (driver.open(gpus[index], GPU_READERS, 3.0) for index in (3, 4))
    faults[3] = fault
    for question in (
        lambda: sick.ask("nvmlDeviceGetName"),
        lambda: sick.field(Field.ENERGY),
        sick.gpm,
        lambda: driver.open(gpus[3], GPU_READERS, 3.0),
    ):
        sick.begin(Tier.FAST)
        with pytest.raises(DeviceGoneError) as raised:
            question()
        assert (raised.value.error, raised.value.fault) == (error, fault)
    assert well.ask("nvmlDeviceGetName")
    del faults[3]
    assert driver.open(gpus[3], GPU_READERS, 3.0).ask("nvmlDeviceGetName")


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.NO_PERMISSION, "no_permission"), (Fault.ERROR, "unknown")]
)
def test_gpu_that_cannot_be_listed(fault: Fault, error: str) -> None:
    """It has its fault in the list already, and no UUID."""
    driver = SimulatedDriver("h100x8", faults={1: fault})
    _, gpus = driver.connect()
    assert (gpus[1].fault, gpus[1].uuid) == (fault, "")
    assert [gpu.fault for gpu in gpus].count(None) == 7
    with pytest.raises(ReadFailedError) as raised:
        driver.open(gpus[1], GPU_READERS, 3.0)
    assert raised.value.error == error
    assert driver.pci_gpus() == 8


@pytest.fixture
def hung() -> Iterator[tuple[SimulatedDriver, OpenDevice]]:
    """A node whose first GPU hangs; let go at the end whatever happens."""
    driver = SimulatedDriver("t4", faults={0: Fault.HUNG})
    yield driver, driver.open(driver.connect()[1][0], GPU_READERS, 3.0)
    driver.release()


def test_gpu_that_hangs(hung: tuple[SimulatedDriver, OpenDevice]) -> None:
    """A question really blocks, and is answered once the GPU is let go."""
    driver, device = hung
    names: list[str] = []
    thread = Thread(target=lambda: names.append(device.ask("nvmlDeviceGetName")), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert not names
    driver.release()
    thread.join(10.0)
    assert names == ["Tesla T4"]
