"""NVIDIA's catalogue of XID errors: the one place that says what a number means and asks for.

Numbers, mnemonics and immediate actions are those of
https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html (October 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from exporter.frozen import dataclass

UNKNOWN = "UNKNOWN"  # the mnemonic or action that the catalogue does not have


class Severity(Enum):
    """What an XID says of the GPU: the label `class`."""

    CRITICAL = "critical"  # the GPU, its memory or a link is hurt: reset, reboot or service
    APPLICATION = "application"  # work was lost; the GPU is fine
    INFORMATIONAL = "informational"  # nothing to be done for now


_SEVERITY_OF_ACTION: Mapping[str, Severity] = MappingProxyType(
    {
        "RESTART_APP": Severity.APPLICATION,
        "UPDATE_SWFW": Severity.APPLICATION,
        "WORKFLOW_XID_45": Severity.APPLICATION,  # follows another XID, or a killed process
        "IGNORE": Severity.INFORMATIONAL,
        "XID_154": Severity.INFORMATIONAL,  # gpu_recovery_action says what it changed to
    }
)
# No action in the catalogue, and no harm: power smoothing came, went or wears out.
_HARMLESS = frozenset({162, 163, 164, 165})


@dataclass(frozen=True, slots=True)
class Xid:
    """One row of the catalogue; `action` is NVIDIA's word for what to do at once."""

    number: int
    mnemonic: str
    action: str

    @property
    def severity(self) -> Severity:
        """What it says of the GPU. Critical where nothing better is known."""
        if self.number in _HARMLESS:
            return Severity.INFORMATIONAL
        return _SEVERITY_OF_ACTION.get(self.action, Severity.CRITICAL)


# Counted from 0 on every GPU, so that increase() sees the first: what hurts inference nodes most.
ANNOUNCED = (
    *(13, 31, 43, 45, 48, 62, 63, 64, 74, 79),
    *(92, 94, 95, 109, 119, 120, 140, 143, 149, 154),
)


def xid(number: int) -> Xid:
    """Return the row of a number; a number that is not in the catalogue has one of unknowns."""
    return CATALOGUE.get(number) or Xid(number, UNKNOWN, UNKNOWN)


CATALOGUE: Mapping[int, Xid] = MappingProxyType(
    {
        row.number: row
        for row in (
            Xid(1, "ROBUST_CHANNEL_FIFO_ERROR_FIFO_METHOD", "CONTACT_SUPPORT"),
            Xid(2, "ROBUST_CHANNEL_FIFO_ERROR_SW_METHOD", "CONTACT_SUPPORT"),
            Xid(3, "ROBUST_CHANNEL_FIFO_ERROR_UNK_METHOD", "CONTACT_SUPPORT"),
            Xid(4, "ROBUST_CHANNEL_FIFO_ERROR_CHANNEL_BUSY", "CONTACT_SUPPORT"),
            Xid(5, "ROBUST_CHANNEL_FIFO_ERROR_RUNOUT_OVERFLOW", "CONTACT_SUPPORT"),
            Xid(6, "ROBUST_CHANNEL_FIFO_ERROR_PARSE_ERR", "CONTACT_SUPPORT"),
            Xid(7, "ROBUST_CHANNEL_FIFO_ERROR_PTE_ERR", "CONTACT_SUPPORT"),
            Xid(8, "ROBUST_CHANNEL_FIFO_ERROR_IDLE_TIMEOUT", "RESTART_APP"),
            Xid(9, "ROBUST_CHANNEL_GR_ERROR_INSTANCE", "CONTACT_SUPPORT"),
            Xid(10, "ROBUST_CHANNEL_GR_ERROR_SINGLE_STEP", "CONTACT_SUPPORT"),
            Xid(11, "ROBUST_CHANNEL_GR_ERROR_MISSING_HW", "RESTART_APP"),
            Xid(12, "ROBUST_CHANNEL_GR_ERROR_SW_METHOD", "CONTACT_SUPPORT"),
            Xid(13, "ROBUST_CHANNEL_GR_EXCEPTION", "RESTART_APP"),
            Xid(14, "ROBUST_CHANNEL_FAKE_ERROR", "IGNORE"),
            Xid(15, "ROBUST_CHANNEL_SCANLINE_TIMEOUT", "CONTACT_SUPPORT"),
            Xid(16, "ROBUST_CHANNEL_VBLANK_CALLBACK_TIMEOUT", "CONTACT_SUPPORT"),
            Xid(17, "ROBUST_CHANNEL_PARAMETER_ERROR", "CONTACT_SUPPORT"),
            Xid(18, "ROBUST_CHANNEL_BUS_MASTER_TIMEOUT_ERROR", "CONTACT_SUPPORT"),
            Xid(19, "ROBUST_CHANNEL_DISP_MISSED_NOTIFIER", "CONTACT_SUPPORT"),
            Xid(20, "ROBUST_CHANNEL_MPEG_ERROR_SW_METHOD", "CONTACT_SUPPORT"),
            Xid(21, "ROBUST_CHANNEL_ME_ERROR_SW_METHOD", "CONTACT_SUPPORT"),
            Xid(22, "ROBUST_CHANNEL_VP_ERROR_SW_METHOD", "CONTACT_SUPPORT"),
            Xid(23, "ROBUST_CHANNEL_RC_LOGGING_ENABLED", "CONTACT_SUPPORT"),
            Xid(24, "ROBUST_CHANNEL_GR_SEMAPHORE_TIMEOUT", "CONTACT_SUPPORT"),
            Xid(25, "ROBUST_CHANNEL_GR_ILLEGAL_NOTIFY", "RESTART_APP"),
            Xid(26, "ROBUST_CHANNEL_FIFO_ERROR_FBISTATE_TIMEOUT", "CONTACT_SUPPORT"),
            Xid(27, "ROBUST_CHANNEL_VP_ERROR", "CONTACT_SUPPORT"),
            Xid(28, "ROBUST_CHANNEL_VP2_ERROR", "CONTACT_SUPPORT"),
            Xid(29, "ROBUST_CHANNEL_BSP_ERROR", "CONTACT_SUPPORT"),
            Xid(30, "ROBUST_CHANNEL_BAD_ADDR_ACCESS", "CONTACT_SUPPORT"),
            Xid(31, "ROBUST_CHANNEL_FIFO_ERROR_MMU_ERR_FLT", "RESTART_APP"),
            Xid(32, "ROBUST_CHANNEL_PBDMA_ERROR", "RESTART_APP"),
            Xid(33, "ROBUST_CHANNEL_SEC_ERROR", "CONTACT_SUPPORT"),
            Xid(34, "ROBUST_CHANNEL_MSVLD_ERROR", "CONTACT_SUPPORT"),
            Xid(35, "ROBUST_CHANNEL_MSPDEC_ERROR", "CONTACT_SUPPORT"),
            Xid(36, "ROBUST_CHANNEL_MSPPP_ERROR", "CONTACT_SUPPORT"),
            Xid(37, "ROBUST_CHANNEL_FECS_ERR_UNIMP_FIRMWARE_METHOD", "IGNORE"),
            Xid(38, "ROBUST_CHANNEL_FECS_ERR_WATCHDOG_TIMEOUT", "IGNORE"),
            Xid(39, "ROBUST_CHANNEL_CE0_ERROR", "RESTART_APP"),
            Xid(40, "ROBUST_CHANNEL_CE1_ERROR", "RESTART_APP"),
            Xid(41, "ROBUST_CHANNEL_CE2_ERROR", "RESTART_APP"),
            Xid(42, "ROBUST_CHANNEL_VIC_ERROR", "CONTACT_SUPPORT"),
            Xid(43, "ROBUST_CHANNEL_RESETCHANNEL_VERIF_ERROR", "IGNORE"),
            Xid(44, "ROBUST_CHANNEL_GR_FAULT_DURING_CTXSW", "IGNORE"),
            Xid(45, "ROBUST_CHANNEL_PREEMPTIVE_REMOVAL", "WORKFLOW_XID_45"),
            Xid(46, "ROBUST_CHANNEL_GPU_TIMEOUT_ERROR", "RESET_GPU"),
            Xid(47, "ROBUST_CHANNEL_NVENC0_ERROR", "CONTACT_SUPPORT"),
            Xid(48, "ROBUST_CHANNEL_GPU_ECC_DBE", "WORKFLOW_XID_48"),
            Xid(49, "SILENT_RUNNING_CONSTANT_LEVEL_SET_BY_REGISTRY", "CONTACT_SUPPORT"),
            Xid(50, "SILENT_RUNNING_LEVEL_TRANSITION_DUE_TO_RC_ERROR", "CONTACT_SUPPORT"),
            Xid(51, "SILENT_RUNNING_STRESS_TEST_FAILURE", "CONTACT_SUPPORT"),
            Xid(52, "SILENT_RUNNING_LEVEL_TRANS_DUE_TO_TEMP_RISE", "CONTACT_SUPPORT"),
            Xid(53, "SILENT_RUNNING_TEMP_REDUCED_CLOCKING", "CONTACT_SUPPORT"),
            Xid(54, "SILENT_RUNNING_PWR_REDUCED_CLOCKING", "CHECK_MECHANICALS"),
            Xid(55, "SILENT_RUNNING_TEMPERATURE_READ_ERROR", "CONTACT_SUPPORT"),
            Xid(56, "DISPLAY_CHANNEL_EXCEPTION", "CONTACT_SUPPORT"),
            Xid(57, "FB_LINK_TRAINING_FAILURE_ERROR", "CONTACT_SUPPORT"),
            Xid(58, "FB_MEMORY_ERROR", "CONTACT_SUPPORT"),
            Xid(59, "PMU_ERROR", "CONTACT_SUPPORT"),
            Xid(60, "ROBUST_CHANNEL_SEC2_ERROR", "RESTART_APP"),
            Xid(61, "PMU_BREAKPOINT", "CONTACT_SUPPORT"),
            Xid(62, "PMU_HALT_ERROR", "RESET_GPU"),
            Xid(63, "INFOROM_DRAM_RETIREMENT_EVENT", "IGNORE"),
            Xid(64, "INFOROM_DRAM_RETIREMENT_FAILURE", "RESET_GPU"),
            Xid(65, "ROBUST_CHANNEL_NVENC1_ERROR", "CONTACT_SUPPORT"),
            Xid(66, "ROBUST_CHANNEL_FECS_ERR_REG_ACCESS_VIOLATION", "IGNORE"),
            Xid(67, "ROBUST_CHANNEL_FECS_ERR_VERIF_VIOLATION", "IGNORE"),
            Xid(68, "ROBUST_CHANNEL_NVDEC0_ERROR", "RESTART_APP"),
            Xid(69, "ROBUST_CHANNEL_GR_CLASS_ERROR", "RESTART_APP"),
            Xid(70, "ROBUST_CHANNEL_CE3_ERROR", "RESTART_APP"),
            Xid(71, "ROBUST_CHANNEL_CE4_ERROR", "RESTART_APP"),
            Xid(72, "ROBUST_CHANNEL_CE5_ERROR", "RESTART_APP"),
            Xid(73, "ROBUST_CHANNEL_NVENC2_ERROR", "CONTACT_SUPPORT"),
            Xid(74, "NVLINK_ERROR", "WORKFLOW_NVLINK_ERR"),
            Xid(75, "ROBUST_CHANNEL_CE6_ERROR", "RESTART_APP"),
            Xid(76, "ROBUST_CHANNEL_CE7_ERROR", "RESTART_APP"),
            Xid(77, "ROBUST_CHANNEL_CE8_ERROR", "RESTART_APP"),
            Xid(78, "VGPU_START_ERROR", "UPDATE_SWFW"),
            Xid(79, "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS", "RESTART_BM"),
            Xid(80, "PBDMA_PUSHBUFFER_CRC_MISMATCH", "RESTART_APP"),
            Xid(81, "ROBUST_CHANNEL_VGA_SUBSYSTEM_ERROR", "CONTACT_SUPPORT"),
            Xid(82, "ROBUST_CHANNEL_NVJPG0_ERROR", "RESTART_APP"),
            Xid(83, "ROBUST_CHANNEL_NVDEC1_ERROR", "RESTART_APP"),
            Xid(84, "ROBUST_CHANNEL_NVDEC2_ERROR", "RESTART_APP"),
            Xid(85, "ROBUST_CHANNEL_CE9_ERROR", "RESTART_APP"),
            Xid(86, "ROBUST_CHANNEL_OFA0_ERROR", "RESTART_APP"),
            Xid(87, "NVTELEMETRY_DRIVER_REPORT", "CONTACT_SUPPORT"),
            Xid(88, "ROBUST_CHANNEL_NVDEC3_ERROR", "RESTART_APP"),
            Xid(89, "ROBUST_CHANNEL_NVDEC4_ERROR", "RESTART_APP"),
            Xid(90, "LTC_ERROR", "CONTACT_SUPPORT"),
            Xid(91, "RESERVED_XID", "CONTACT_SUPPORT"),
            Xid(92, "EXCESSIVE_SBE_INTERRUPTS", "IGNORE"),
            Xid(93, "INFOROM_ERASE_LIMIT_EXCEEDED", "IGNORE"),
            Xid(94, "ROBUST_CHANNEL_CONTAINED_ERROR", "RESTART_APP"),
            Xid(95, "ROBUST_CHANNEL_UNCONTAINED_ERROR", "RESET_GPU"),
            Xid(96, "ROBUST_CHANNEL_NVDEC5_ERROR", "RESTART_APP"),
            Xid(97, "ROBUST_CHANNEL_NVDEC6_ERROR", "RESTART_APP"),
            Xid(98, "ROBUST_CHANNEL_NVDEC7_ERROR", "RESTART_APP"),
            Xid(99, "ROBUST_CHANNEL_NVJPG1_ERROR", "RESTART_APP"),
            Xid(100, "ROBUST_CHANNEL_NVJPG2_ERROR", "RESTART_APP"),
            Xid(101, "ROBUST_CHANNEL_NVJPG3_ERROR", "RESTART_APP"),
            Xid(102, "ROBUST_CHANNEL_NVJPG4_ERROR", "RESTART_APP"),
            Xid(103, "ROBUST_CHANNEL_NVJPG5_ERROR", "RESTART_APP"),
            Xid(104, "ROBUST_CHANNEL_NVJPG6_ERROR", "RESTART_APP"),
            Xid(105, "ROBUST_CHANNEL_NVJPG7_ERROR", "RESTART_APP"),
            Xid(106, "SMBPBI_TEST_MESSAGE", "IGNORE"),
            Xid(107, "SMBPBI_TEST_MESSAGE_SILENT", "IGNORE"),
            Xid(108, "NVLINK_REMOTE_TRANSLATION_ERROR", "IGNORE"),
            Xid(109, "ROBUST_CHANNEL_CTXSW_TIMEOUT_ERROR", "RESET_GPU"),
            Xid(110, "SEC_FAULT_ERROR", "RESET_GPU"),
            Xid(111, "BUNDLE_ERROR_EVENT", "CONTACT_SUPPORT"),
            Xid(112, "DISP_SUPERVISOR_ERROR", "CONTACT_SUPPORT"),
            Xid(113, "DP_LT_FAILURE", "CONTACT_SUPPORT"),
            Xid(114, "HEAD_RG_UNDERFLOW", "CONTACT_SUPPORT"),
            Xid(115, "CORE_CHANNEL_REGS", "CONTACT_SUPPORT"),
            Xid(116, "WINDOW_CHANNEL_REGS", "CONTACT_SUPPORT"),
            Xid(117, "CURSOR_CHANNEL_REGS", "CONTACT_SUPPORT"),
            Xid(118, "HEAD_REGS", "CONTACT_SUPPORT"),
            Xid(119, "GSP_RPC_TIMEOUT", "RESET_GPU"),
            Xid(120, "GSP_ERROR", "RESET_GPU"),
            Xid(121, "C2C_ERROR", "IGNORE"),
            Xid(122, "SPI_PMU_RPC_READ_FAIL", "CONTACT_SUPPORT"),
            Xid(123, "SPI_PMU_RPC_WRITE_FAIL", "CONTACT_SUPPORT"),
            Xid(124, "SPI_PMU_RPC_ERASE_FAIL", "CONTACT_SUPPORT"),
            Xid(125, "INFOROM_FS_ERROR", "CONTACT_SUPPORT"),
            Xid(126, "ROBUST_CHANNEL_CE10_ERROR", "RESTART_APP"),
            Xid(127, "ROBUST_CHANNEL_CE11_ERROR", "RESTART_APP"),
            Xid(128, "ROBUST_CHANNEL_CE12_ERROR", "RESTART_APP"),
            Xid(129, "ROBUST_CHANNEL_CE13_ERROR", "RESTART_APP"),
            Xid(130, "ROBUST_CHANNEL_CE14_ERROR", "RESTART_APP"),
            Xid(131, "ROBUST_CHANNEL_CE15_ERROR", "RESTART_APP"),
            Xid(132, "ROBUST_CHANNEL_CE16_ERROR", "RESTART_APP"),
            Xid(133, "ROBUST_CHANNEL_CE17_ERROR", "RESTART_APP"),
            Xid(134, "ROBUST_CHANNEL_CE18_ERROR", "RESTART_APP"),
            Xid(135, "ROBUST_CHANNEL_CE19_ERROR", "RESTART_APP"),
            Xid(136, "ALI_TRAINING_FAIL", "RESET_GPU"),
            Xid(137, "NVLINK_PRIV_ERR", "IGNORE"),
            Xid(138, "ROBUST_CHANNEL_DLA_ERROR", "CONTACT_SUPPORT"),
            Xid(139, "ROBUST_CHANNEL_OFA1_ERROR", "RESTART_APP"),
            Xid(140, "UNRECOVERABLE_ECC_ERROR_ESCAPE", "RESET_GPU"),
            Xid(141, "ROBUST_CHANNEL_FAST_PATH_ERROR", "IGNORE"),
            Xid(142, "ROBUST_CHANNEL_NVENC3_ERROR", "CONTACT_SUPPORT"),
            Xid(143, "GPU_INIT_ERROR", "RESET_GPU"),
            Xid(144, "NVLINK_SAW_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(145, "NVLINK_RLW_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(146, "NVLINK_TLW_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(147, "NVLINK_TREX_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(148, "NVLINK_NVLPW_CTRL_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(149, "NVLINK_NETIR_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(150, "NVLINK_MSE_ERROR", "WORKFLOW_NVLINK5_ERR"),
            Xid(151, "ROBUST_CHANNEL_KEY_ROTATION_ERROR", "RESTART_VM"),
            Xid(152, "ROBUST_CHANNEL_DLA_SMMU_ERROR", "IGNORE"),
            Xid(153, "ROBUST_CHANNEL_DLA_TIMEOUT", "IGNORE"),
            Xid(154, "GPU_RECOVERY_ACTION_CHANGED", "XID_154"),
            Xid(155, "NVLINK_SW_DEFINED_ERROR", "RESET_GPU"),
            Xid(156, "RESOURCE_RETIREMENT_EVENT", "RESET_GPU"),
            Xid(157, "RESOURCE_RETIREMENT_FAILURE", "IGNORE"),
            Xid(158, "GPU_FATAL_TIMEOUT", "RESET_GPU"),
            Xid(159, "ROBUST_CHANNEL_CHI_NON_DATA_ERROR", "CHECK_UVM"),
            Xid(160, "CHANNEL_RETIREMENT_EVENT", "IGNORE"),
            Xid(161, "CHANNEL_RETIREMENT_FAILURE", "IGNORE"),
            Xid(162, "PSHC_REENGAGED", "UNKNOWN"),
            Xid(163, "PSHC_DISENGAGED", "UNKNOWN"),
            Xid(164, "PSHC_LOW_LIFETIME", "UNKNOWN"),
            Xid(165, "PSHC_ZERO_LIFETIME", "UNKNOWN"),
            Xid(166, "NVLINK_SECURE_CRYPTO_ERR", "UNKNOWN"),
            Xid(167, "PCIE_FATAL_TIMEOUT", "UNKNOWN"),
            Xid(168, "REDUCED_GPU_MEMORY_CAPACITY", "UNKNOWN"),
            Xid(169, "SEC2_HALT_ERROR", "UNKNOWN"),
            Xid(170, "NVLINK_SECURE_OTHER", "UNKNOWN"),
            Xid(171, "UNCORRECTABLE_DRAM_ERROR", "UNKNOWN"),
            Xid(172, "UNCORRECTABLE_SRAM_ERROR", "UNKNOWN"),
        )
    }
)
