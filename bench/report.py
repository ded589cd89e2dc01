"""The measurements as tables, and the goals that they meet or miss."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from daemons import FULL, NODE, NVITOP, OURS
from decide import Deciding
from hostile import DRIPPING, SILENT, Siege
from render import Rendering
from rounds import Round, Visit
from tables import P99, Goal, Table, number, percentile, quotient

NAMES = (OURS, FULL, NVITOP, NODE)
MIB = 1 << 20


Measure = Callable[[Sequence[Visit]], float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A measure of a daemon, from its visits of all rounds; ratios to peers that are goals."""

    name: str
    value: Measure
    to_nvitop: float | None = None  # ours may be at most so many times the peer's
    to_node: float | None = None


def _median(part: Callable[[Visit], float]) -> Callable[[Sequence[Visit]], float]:
    return lambda visits: statistics.median(map(part, visits))


def _typical(times: Callable[[Visit], list[float]]) -> Callable[[Sequence[Visit]], float]:
    """Return the median over the rounds of their median scrape, in milliseconds."""
    return _median(lambda visit: 1e3 * statistics.median(times(visit)))


def _worst(times: Callable[[Visit], list[float]]) -> Callable[[Sequence[Visit]], float]:
    """Return the 99th percentile of all rounds' scrapes together, in milliseconds."""
    return lambda visits: 1e3 * percentile([t for visit in visits for t in times(visit)], P99)


def _for_one_series(measure: Callable[[Sequence[Visit]], float]) -> Measure:
    """Return the same in microseconds, divided by the series of the page."""
    return lambda visits: 1e3 * measure(visits) / statistics.median(v.series for v in visits)


def _soaked(scrapes: int) -> Measure:
    def value(visits: Sequence[Visit]) -> float | None:
        seen = [v.soaked[scrapes].rss_bytes / MIB for v in visits if scrapes in v.soaked]
        return statistics.median(seen) if seen else None

    return value


FRESH_P50, FRESH_P99 = _typical(lambda v: v.fresh), _worst(lambda v: v.fresh)
FRESH_CPU, LOOP_CPU = _median(lambda v: 1e3 * v.fresh_cpu), _median(lambda v: 1e3 * v.alone_cpu)
# docs/decisions/0014-budgets.md says where these come from.
LINES = (
    Line("series on the page", _median(lambda v: v.series)),
    Line("page, KiB", _median(lambda v: v.page_bytes / 1024)),
    Line("page in gzip, KiB", _median(lambda v: v.gzip_bytes / 1024)),
    Line("exec to first complete page, s", _median(lambda v: v.start_seconds), 1.0),
    Line("scrape p50, every page fresh, ms", FRESH_P50, 0.5, 0.5),
    Line("scrape p50 for one series, every page fresh, us", _for_one_series(FRESH_P50), 0.12, 0.20),
    Line("scrape p99, every page fresh, ms", FRESH_P99, 0.75, 0.75),
    Line("scrape p99 for one series, every page fresh, us", _for_one_series(FRESH_P99), 0.15, 0.30),
    Line("scrape p50, each 105 ms, ms", _typical(lambda v: v.paced)),
    Line("scrape p99, each 105 ms, ms", _worst(lambda v: v.paced), 0.5, 0.5),
    Line("scrape p50, closed loop, 1 client, ms", _typical(lambda v: v.alone)),
    Line("scrape p99, closed loop, 1 client, ms", _worst(lambda v: v.alone)),
    Line("scrape p50, closed loop, 10 clients, ms", _typical(lambda v: v.crowd)),
    Line("scrape p99, closed loop, 10 clients, ms", _worst(lambda v: v.crowd), 0.10, 0.10),
    Line("CPU of a scrape, page fresh, ms", FRESH_CPU, 0.5, 0.5),
    Line("CPU of a scrape for one series, page fresh, us", _for_one_series(FRESH_CPU), 0.15, 0.15),
    Line("CPU of a scrape, closed loop, ms", LOOP_CPU, 0.05, 0.05),
    Line("CPU of a scrape for one series, closed loop, us", _for_one_series(LOOP_CPU)),
    Line("CPU of a minute without scrapes, s", _median(lambda v: 60 * v.idle_cpu_per_second), 0.25),
    Line("RSS at rest, MiB", _median(lambda v: v.rest.rss_bytes / MIB), 1.5),
    Line("PSS at rest, MiB", _median(lambda v: v.rest.pss_bytes / MIB)),
    Line("RSS after scrapes, MiB", _median(lambda v: v.loaded.rss_bytes / MIB), 1.75),
    Line("PSS after scrapes, MiB", _median(lambda v: v.loaded.pss_bytes / MIB)),
)


@dataclass(frozen=True, slots=True)
class Results:
    """All that was measured."""

    rounds: Sequence[Round]
    renderings: Sequence[Rendering]
    siege: Siege
    deciding: Deciding

    def visits(self, name: str) -> list[Visit]:
        """Return what the rounds saw of one daemon."""
        return [visit for one in self.rounds for visit in one.visits if visit.name == name]

    def tables(self) -> list[Table]:
        """Return everything, the goals last."""
        return [
            self._side_by_side(),
            self._polls(),
            self._rendering(),
            self._siege(),
            self.deciding.table(),
            self._goals(),
        ]

    def data(self) -> dict[str, object]:
        """Return what the tables say, unrounded and also by round, as JSON takes it."""
        return {
            "measures": [
                {
                    "name": line.name,
                    **dict(zip(NAMES, figures, strict=True)),
                    "rounds": {n: [line.value([v]) for v in self.visits(n)] for n in NAMES},
                }
                for line, figures in self.lines()
            ],
            "polls": [asdict(one.polls) for one in self.rounds],
            "renderings": [asdict(one) for one in self.renderings],
            "deciding": asdict(self.deciding),
            "goals": [goal.data() for goal in self.goals()],
        }

    def lines(self) -> Iterator[tuple[Line, list[float | None]]]:
        """Yield every measure with the figures of all daemons, ours first."""
        soaks = sorted({count for visit in self.visits(OURS) for count in visit.soaked})
        more = [Line(f"RSS after {count:,} scrapes, MiB", _soaked(count)) for count in soaks]
        for line in (*LINES, *more):
            yield line, [line.value(self.visits(name)) for name in NAMES]

    def goals(self) -> list[Goal]:
        """Return every goal with its figure."""
        return [
            *self._ratio_goals(),
            *self._memory_goals(),
            *self._own_goals(),
            *self.deciding.goals(),
        ]

    def _ratio_goals(self) -> Iterator[Goal]:
        for line, (ours, full, nvitop, node) in self.lines():
            for peer, figure, most in (
                (NVITOP, nvitop, line.to_nvitop),
                (NODE, node, line.to_node),
            ):
                if most is not None and ours is not None and full is not None and figure:
                    name = line.name.rpartition(",")[0]
                    yield Goal(f"{name}: times {peer}'s", ours / figure, most, full=full / figure)

    def _memory_goals(self) -> Iterator[Goal]:
        nvitop = self.visits(NVITOP)
        peer = statistics.median(visit.loaded.rss_bytes for visit in nvitop) / MIB
        soaks = sorted({count for visit in self.visits(OURS) for count in visit.soaked})
        few = f"{nvitop[0].scrapes:,}"
        for count in soaks:
            ours, full = (self._soaked(name, count) for name in (OURS, FULL))
            name = f"RSS after {count:,} scrapes: times {NVITOP}'s after {few} or more"
            yield Goal(name, ours[1] / peer, 1.75, full=full[1] / peer)
            if count == soaks[-1]:
                name = f"RSS growth up to {count:,} scrapes, MiB"
                yield Goal(name, ours[1] - ours[0], 1.0, full=full[1] - full[0])

    def _soaked(self, name: str, scrapes: int) -> tuple[float, float]:
        """Return a daemon's RSS in MiB before and after so many scrapes."""
        seen = [visit for visit in self.visits(name) if scrapes in visit.soaked]
        return (
            statistics.median(visit.loaded.rss_bytes for visit in seen) / MIB,
            statistics.median(visit.soaked[scrapes].rss_bytes for visit in seen) / MIB,
        )

    def _own_goals(self) -> Iterator[Goal]:
        for one in self.renderings:
            for what, seconds, most in (
                ("usual tick", one.usual, 250.0),
                ("all renewed", one.renewed, 400.0),
            ):
                where = f"rendering {one.series:,} series, {what}"
                yield Goal(f"{where}: ns a series", 1e9 * seconds / one.series, most)
                faster = one.client / seconds
                yield Goal(f"{where}: times generate_latest's speed", faster, least=15)
        yield Goal("scrape p99 among hostile clients: times unloaded", self._siege_ratio(), 2.0)
        stay = self.siege.longest_stay_seconds
        yield Goal("longest stay of a hostile client, s", stay, 10.0)

    def _poll_ratios(self) -> tuple[float, float, float]:
        polls = [one.polls for one in self.rounds]
        return (
            statistics.median(poll.our_calls / poll.floor_calls for poll in polls),
            statistics.median(poll.our_process / poll.floor_process for poll in polls),
            statistics.median(poll.full_process / poll.floor_process for poll in polls),
        )

    def _siege_ratio(self) -> float:
        return percentile(self.siege.loaded, P99) / percentile(self.siege.unloaded, P99)

    def _side_by_side(self) -> Table:
        rows = []
        for line, figures in self.lines():
            ours, full, *peers = figures
            ratios = [quotient(one, peer) for one in (ours, full) for peer in peers]
            rows.append((line.name, *map(number, figures), *ratios))
        over = [f"{one} / {peer}" for one in ("ours", "all on") for peer in (NVITOP, NODE)]
        return Table("Side by side", ("", *NAMES, *over), tuple(rows))

    def _polls(self) -> Table:
        polls = [asdict(one.polls) for one in self.rounds]

        def costs(*names: str) -> list[str]:
            return [number(statistics.median(1e6 * poll[name] for poll in polls)) for name in names]

        calls, whole, full = (f"{ratio:.1f}" for ratio in self._poll_ratios())
        daemons = costs("floor_process", "our_process", "full_process")
        rows = (
            (
                "the NVML calls and what is made of them",
                *costs("floor_calls", "our_calls"),
                "",
                calls,
                "",
            ),
            ("the whole process", *daemons, whole, full),
        )
        head = ("", "C program", OURS, FULL, "ours / C", "all on / C")
        return Table("CPU of a poll at 1 Hz, us", head, rows)

    def _rendering(self) -> Table:
        rows = []
        for one in self.renderings:
            for what, seconds in (("from tick to tick", one.usual), ("all renewed", one.renewed)):
                figures = (1e3 * seconds, 1e9 * seconds / one.series, 1e3 * one.client)
                ratio = f"{one.client / seconds:.1f}"
                rows.append((f"{one.series:,} series, {what}", *map(number, figures), ratio))
        head = ("", f"{OURS}, ms", "ns a series", "generate_latest, ms", "ratio")
        return Table("CPU of rendering a page", head, tuple(rows))

    def _siege(self) -> Table:
        times = (self.siege.unloaded, self.siege.loaded)
        rows = [
            (name, *(number(1e3 * percentile(one, share)) for one in times))
            for name, share in (("scrape p50, ms", 0.5), ("scrape p99, ms", P99))
        ]
        rows.append(("longest stay, s", "", number(self.siege.longest_stay_seconds)))
        title = f"{SILENT} silent clients and {DRIPPING} that send a byte a second"
        return Table(title, ("", "without", "with"), tuple(rows))

    def _goals(self) -> Table:
        rows = tuple(goal.row() for goal in self.goals())
        return Table("Goals", ("", "goal", OURS, "", FULL, ""), rows)
