"""Queries as the panels name them, and what they mean to Grafana."""

from __future__ import annotations

import re
from dataclasses import dataclass

from grafana_foundation_sdk.models.common import DataSourceRef

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

# Words that stand in selectors: gpu_up{NODE}. Each is the matchers that the dashboard's variables
# make of it.
_NODE = 'cluster=~"$cluster", job=~"$job", instance=~"$instance"'
SELECTIONS = {
    "NODE": _NODE,
    "GPU": f'{_NODE}, gpu=~"$gpu"',
    "CLUSTER": 'cluster=~"$cluster"',
    # Other programs on the same machine: a job of their own, and mostly another port.
    "HOST": 'cluster=~"$cluster", instance=~"$host(:[0-9]+)?"',
    # Only our alerts have a family. That the job is absent has no instance.
    "FIRING": 'alertstate="firing", family!="", cluster=~"$cluster", instance=~"$instance|"',
    "FIRING_HERE": (
        'alertstate="firing", family!="", cluster=~"$cluster", instance=~"$host(:[0-9]+)?"'
    ),
}
_SELECTION = re.compile(rf"(?<=[{{ ])(?:{'|'.join(SELECTIONS)})(?=[,}}])")


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and the name of each series that it gives."""

    expr: str
    legend: str = ""

    @property
    def written(self) -> str:
        """The expression with its selections spelled out, on one line."""
        line = " ".join(self.expr.split())
        return _SELECTION.sub(lambda match: SELECTIONS[match.group()], line)


# How a series of a GPU is called.
GPU = "{{instance}} GPU {{gpu}}"
# The reasons that heat gives for slower clocks, as their alert names them.
HEAT = 'reason=~"thermal|sw_thermal_slowdown|hw_thermal_slowdown"'
