"""The same unit tests in other surroundings: scraped more or less often, relabelled, in a fleet."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SCRAPE_SECONDS = 15
_JOB = "gpu-node"
_INSTANCE = re.compile(r'instance="([^"]*)"')
_VALUE = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_REPEATED = re.compile(rf"({_VALUE})(?:([+-]\d+(?:\.\d+)?))?x(\d+)")

Document = dict[str, Any]


def samples(notation: str) -> list[str]:
    """Return a series in promtool's notation, sample by sample; `_` is none."""
    found: list[str] = []
    for word in notation.split():
        repeated = _REPEATED.fullmatch(word)
        if repeated:
            first, step, times = float(repeated[1]), float(repeated[2] or 0), int(repeated[3])
            found += [repr(first + step * number) for number in range(times + 1)]
        elif word.startswith("_x"):
            found += ["_"] * int(word[2:])
        else:
            found.append(word)
    return found


def every_5s(case: Mapping[str, Any]) -> Document:
    """Return a test whose series are scraped every 5 s: what holds is seen three times."""

    def thrice(value: str) -> list[str]:
        return ["stale", "_", "_"] if value == "stale" else [value] * 3

    return _resampled(case, "5s", lambda all_: [v for value in all_ for v in thrice(value)])


def every_30s(case: Mapping[str, Any]) -> Document:
    """Return a test whose series are scraped every 30 s: each second sample is not seen."""
    return _resampled(case, "30s", lambda all_: all_[::2])


def _resampled(
    case: Mapping[str, Any], interval: str, change: Callable[[list[str]], list[str]]
) -> Document:
    changed = copy.deepcopy(dict(case))
    changed["interval"] = interval
    for series in changed.get("input_series", ()):
        series["values"] = " ".join(change(samples(series["values"])))
    return changed


def in_a_fleet(case: Mapping[str, Any]) -> Document:
    """Return a test of two clusters whose nodes have the same names, but each another's state.

    Every series has two labels more, from relabelling. A second job has series of the same
    names: another exporter's, not ours to judge.
    """
    changed = copy.deepcopy(dict(case))
    text = str(changed.get("input_series", ""))
    nodes = list(dict.fromkeys(_INSTANCE.findall(text)))
    clusters = {"eu1": dict(zip(nodes, nodes, strict=True)), "us1": _turned(nodes)}
    changed["input_series"] = [
        {"series": series, "values": each["values"]}
        for each in case.get("input_series", ())
        for series in (
            *(_moved(each["series"], cluster, names) for cluster, names in clusters.items()),
            *_strangers(each["series"], clusters["us1"]),
        )
    ]
    for test in changed["promql_expr_test"]:
        test["exp_samples"] = list(_expected(test, clusters))
        test["expr"] = re.sub(r"by \(([^)]*)\)", r"by (cluster, \1)", test["expr"])
        test["expr"] = _INSTANCE.sub(r'cluster="eu1", \g<0>', test["expr"])
    return changed


def _turned(nodes: list[str]) -> dict[str, str]:
    return dict(zip(nodes, nodes[1:] + nodes[:1], strict=True))


def _moved(labels: str, cluster: str, names: Mapping[str, str]) -> str:
    """Return a series or label set of a node as that of another, in a cluster."""

    def renamed(found: re.Match[str]) -> str:
        return f'{found[1]}="{names.get(found[2], found[2])}"'

    moved = re.sub(r'\b(instance|uuid)="([^"]*)"', renamed, labels)
    return moved.replace("{", f'{{cluster="{cluster}", rack="r7", ', 1)


def _strangers(series: str, names: Mapping[str, str]) -> Iterator[str]:
    if f'job="{_JOB}"' in series:
        yield _moved(series, "eu1", names).replace(f'job="{_JOB}"', 'job="other"')


def _expected(
    test: Mapping[str, Any], clusters: Mapping[str, Mapping[str, str]]
) -> Iterator[Document]:
    whole = "ALERTS{" in test["expr"] and not test["expr"].startswith("count")
    for sample in test["exp_samples"]:
        of_node = "instance=" in sample["labels"]
        if not of_node:  # no node is left to tell a cluster
            yield sample
            continue
        for cluster, names in clusters.items():
            if whole:
                if cluster == "eu1":
                    yield {**sample, "labels": _moved(sample["labels"], cluster, names)}
                continue
            labels = _moved(sample["labels"], cluster, names).replace(' rack="r7",', "")
            yield {**sample, "labels": labels}
