"""The catalogue: names that are a promise, and what every row must hold to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.catalogue import CATALOGUE, COLLECTORS, GPU_READERS, Table, reference
from exporter.metric import Kind, MetricVec, Row, unit_of
from exporter.processes_view import HOST_METRICS
from exporter.snapshot import Gpu

ROOT = Path(__file__).parent.parent
ROWS = [(table, metric) for table in CATALOGUE for metric in table.metrics]

# Renaming or dropping one of these breaks dashboards and rules of users.
PROMISED = """
gpu_info{name,pci_bus_id,architecture,compute_capability,serial,vbios_version}
gpu_driver_info{driver_version,nvml_version,cuda_version}
gpu_board_info{brand,part_number,inforom_version,gsp_firmware_version,module_id,minor_number,virtualization}
gpu_platform_info{chassis_serial,slot,tray,host,module_id,peer_type}
gpu_up gpu_fault{reason} gpu_devices{source}
gpu_memory_total_bytes gpu_memory_used_bytes gpu_memory_free_bytes gpu_memory_reserved_bytes
gpu_memory_used_ratio
gpu_bar1_memory_total_bytes gpu_bar1_memory_used_bytes gpu_bar1_memory_free_bytes
gpu_utilization_ratio gpu_memory_activity_ratio gpu_engine_utilization_ratio{engine}
gpu_busy_seconds_total
gpu_temperature_celsius gpu_memory_temperature_celsius
gpu_temperature_threshold_celsius{threshold} gpu_fan_speed_ratio{fan}
gpu_temperature_margin_celsius gpu_temperature_margin_threshold_celsius{threshold}
gpu_power_watts gpu_power_limit_watts{limit} gpu_energy_joules_total
gpu_clock_hertz{domain} gpu_clock_max_hertz{domain} gpu_clock_event_active{reason}
gpu_clock_event_seconds_total{reason} gpu_performance_state
gpu_graphics_engine_active_ratio gpu_sm_active_ratio gpu_sm_occupancy_ratio
gpu_tensor_active_ratio gpu_dram_active_ratio gpu_pipe_active_ratio{pipe}
gpu_mig_info{mig_uuid,gpu_instance,compute_instance,profile}
gpu_mig_memory_total_bytes{mig_uuid} gpu_mig_memory_used_bytes{mig_uuid}
gpu_mig_memory_free_bytes{mig_uuid} gpu_mig_memory_reserved_bytes{mig_uuid}
gpu_mig_memory_used_ratio{mig_uuid} gpu_mig_graphics_engine_active_ratio{mig_uuid}
gpu_mig_sm_active_ratio{mig_uuid} gpu_mig_sm_occupancy_ratio{mig_uuid}
gpu_mig_tensor_active_ratio{mig_uuid} gpu_mig_dram_active_ratio{mig_uuid}
gpu_mig_pipe_active_ratio{mig_uuid,pipe}
gpu_pcie_transmit_bytes_per_second gpu_pcie_receive_bytes_per_second
gpu_pcie_link_generation{kind} gpu_pcie_link_width{kind} gpu_pcie_replays_total
gpu_pcie_errors_total{type}
gpu_nvlink_transmit_bytes_per_second gpu_nvlink_receive_bytes_per_second
gpu_nvlink_transmit_bytes_total gpu_nvlink_receive_bytes_total
gpu_nvlink_active{link} gpu_nvlink_errors_total{link,type}
gpu_nvlink_link_transmit_bytes_total{link} gpu_nvlink_link_receive_bytes_total{link}
gpu_nvlink_speed_bytes_per_second{link} gpu_nvlink_bit_error_ratio{link,type}
gpu_nvlink_data_errors_total{type}
gpu_nvlink_info{link,version,remote_type,remote_pci_bus_id}
gpu_recovery_action gpu_recovery_action_info{action}
gpu_ecc_errors_total{type,counter} gpu_ecc_location_errors_total{type,counter,location}
gpu_ecc_sram_errors_total{type,counter} gpu_ecc_sram_source_errors_total{source}
gpu_ecc_sram_threshold_exceeded gpu_ecc_mode{kind}
gpu_remapped_rows{type} gpu_remapped_rows_inactive{type}
gpu_row_remap_pending gpu_row_remap_failure gpu_row_remap_banks{availability}
gpu_repair_pending{unit} gpu_retired_pages{cause} gpu_retired_pages_pending
gpu_fabric_info{state,status,health,configuration,clique_id,cluster_uuid}
gpu_fabric_registered gpu_fabric_healthy gpu_fabric_condition{condition}
gpu_persistence_mode gpu_compute_mode{mode} gpu_mig_mode{kind}
gpu_confidential_compute_enabled gpu_confidential_compute_ready
gpu_confidential_compute_devtools_enabled gpu_vgpu_licensed{product}
gpu_memory_protected_total_bytes gpu_memory_protected_used_bytes gpu_memory_protected_free_bytes
gpu_xid_errors_total{xid} gpu_xid_last_timestamp_seconds{xid,mnemonic,class,action}
gpu_xid_unlisted_errors_total{pci_bus_id,xid}
gpu_xid_unlisted_last_timestamp_seconds{pci_bus_id,xid,mnemonic,class,action}
gpu_exporter_xid_source_up{source} gpu_exporter_xid_events_total{source,result}
host_memory_total_bytes host_memory_available_bytes host_memory_used_bytes
host_memory_free_bytes host_memory_cached_bytes host_memory_used_ratio
host_swap_total_bytes host_swap_used_bytes host_swap_free_bytes
host_swap_in_bytes_total host_swap_out_bytes_total
host_pressure_seconds_total{resource,kind} host_oom_kills_total host_cpu_seconds_total{mode}
host_load{window} host_disk_read_bytes_total{device} host_disk_written_bytes_total{device}
host_thermal_zone_celsius{zone,type}
gpu_utilization_window_min_ratio{window} gpu_utilization_window_min_peak_ratio{window}
gpu_sampler_coverage_ratio
gpu_rule_state{rule} gpu_rule_firings_total{rule} gpu_rule_condition_seconds_total{rule}
gpu_rule_threshold{rule}
gpu_recorder_active gpu_recorder_recordings_total{reason} gpu_recorder_dropped_total
gpu_recorder_stored_bytes
scaleout_events_total{action,result} scaleout_deliveries_total{receiver,result}
scaleout_outbox_events{state} scaleout_outbox_durable
scaleout_cooldown_remaining_seconds{action} scaleout_paused
scaleout_last_delivery_timestamp_seconds{receiver}
gpu_processes gpu_processes_left_out gpu_processes_left_out_memory_used_bytes
gpu_process_memory_used_bytes{pid,process} gpu_process_sm_utilization_ratio{pid,process}
gpu_process_memory_activity_ratio{pid,process}
gpu_process_engine_utilization_ratio{pid,process,engine}
gpu_process_mig_info{pid,process,gpu_instance,compute_instance}
gpu_process_resident_memory_bytes{pid,process} gpu_process_cpu_seconds_total{pid,process}
gpu_process_start_time_seconds{pid,process}
gpu_process_info{pid,process,user,systemd_unit,container_id,pod_uid,slurm_job_id,workload}
gpu_workload_processes{workload} gpu_workload_memory_used_bytes{workload}
gpu_workload_gpu_seconds_total{workload} gpu_workload_busy_seconds_total{workload}
gpu_workload_energy_joules_total{workload}
gpu_exporter_build_info{version,python_version,simulated} gpu_exporter_nvml_up
gpu_exporter_nvml_paused gpu_exporter_nvml_pause_remaining_seconds
gpu_exporter_sample_age_seconds{gpu} gpu_exporter_read_duration_seconds{group}
gpu_exporter_read_errors_total{group,error} gpu_exporter_polls_total{result}
gpu_exporter_config_last_reload_successful gpu_exporter_inference_server_up{server}
gpu_exporter_config_last_reload_success_timestamp_seconds
process_cpu_seconds_total process_resident_memory_bytes process_virtual_memory_bytes
process_start_time_seconds process_open_fds process_max_fds
""".split()

ON_HOST = {metric.name for metric in HOST_METRICS}


def own_labels(metric: Row[object]) -> tuple[str, ...]:
    """Return the labels that a metric adds to those of its table."""
    return metric.labels if isinstance(metric, MetricVec) else ()


def test_names_and_labels_are_those_promised() -> None:
    """The catalogue has exactly the promised metrics, each with the promised labels."""
    promised = {}
    for entry in PROMISED:
        name, _, labels = entry.rstrip("}").partition("{")
        promised[name] = tuple(labels.split(",")) if labels else ()
    assert {metric.name: own_labels(metric) for _, metric in ROWS} == promised


def test_every_gpu_series_has_gpu_and_uuid_and_nothing_else_has() -> None:
    """Tables of GPUs are labelled gpu and uuid; gpu_up stands among them."""
    for table, metric in ROWS:
        expected = table.labels == ("gpu", "uuid")
        of_node = metric.name in {"gpu_driver_info", "gpu_devices"}
        # A process or workload that uses several GPUs has one RSS, one user, one sum.
        of_node |= metric.name in ON_HOST or metric.name.startswith("gpu_workload_")
        of_node |= metric.name.startswith("gpu_xid_unlisted_")
        ours = metric.name.startswith(("gpu_exporter_", "gpu_rule_", "gpu_recorder_"))
        is_gpu = metric.name.startswith("gpu_") and not ours
        assert expected == (is_gpu and not of_node), metric.name


@pytest.mark.parametrize(("table", "metric"), ROWS, ids=lambda value: getattr(value, "name", ""))
def test_row_is_well_formed(table: Table, metric: Row[object]) -> None:
    """Name, suffix, help and labels follow Prometheus's conventions."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (
        metric.kind is Kind.COUNTER
    ) or metric.name.startswith("process_")
    assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    labels = (*table.labels, *own_labels(metric))
    assert len(labels) == len(set(labels))
    assert not {"job", "instance", "le", "quantile"} & set(labels)


def test_units_are_base_units() -> None:
    """No name carries a scaled unit, and the unit is read off the name's end."""
    scaled = re.compile(r"_(percent|milli|micro|kilo|mega|mib|gib|mhz|ms|us|ns|kb|mb|gb)(_|$)")
    assert not [metric.name for _, metric in ROWS if scaled.search(metric.name)]
    assert unit_of("gpu_pcie_transmit_bytes_per_second") == "bytes_per_second"
    assert unit_of("gpu_energy_joules_total") == "joules"
    assert unit_of("gpu_pcie_link_width") == ""


def test_every_reader_fills_an_attribute_of_the_snapshot() -> None:
    """A reader's group is an attribute of Gpu, and no two readers fill the same."""
    groups = [reader.group for reader in GPU_READERS]
    assert len(groups) == len(set(groups))
    for group in groups:
        assert group in Gpu.__slots__


def test_collectors_that_can_be_switched() -> None:
    """The names of --collector.NAME, which are a promise as well."""
    assert COLLECTORS == (
        "memory",
        "utilization",
        "temperature",
        "power",
        "clocks",
        "profiling",
        "mig",
        "pcie",
        "nvlink",
        "recovery",
        "ecc",
        "row_remap",
        "fabric",
        "modes",
        "confidential",
        "vgpu",
        "processes",
        "utilization_samples",
        "xid",
        "host_memory",
        "host_swap",
        "host_pressure",
        "host_cpu",
        "host_disk",
        "host_thermal",
    )


def test_reference_is_current() -> None:
    """docs/metrics.md is what the catalogue says; `make docs` writes it."""
    assert (ROOT / "docs/metrics.md").read_text() == reference()
