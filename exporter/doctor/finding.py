"""What the doctor says: a finding, how bad it is, and of which kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum

from exporter.frozen import dataclass
from exporter.snapshot import Gpu


class Step(Enum):
    """The five steps, in their order; the value is the step's title."""

    GPUS = "GPUs, driver, CUDA"
    HEALTH = "Is the driver healthy and permitted?"
    NOW = "Resources now"
    TRIAL = "Trial: every reading of every GPU"
    NODE = "The node's fitness for inference"

    @property
    def number(self) -> int:
        """1 to 5."""
        return list(Step).index(self) + 1


class Severity(Enum):
    """How bad a finding is; the later, the worse. From WARNING on, something is wrong."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 to 3."""
        return list(Severity).index(self)

    @property
    def is_wrong(self) -> bool:
        """Whether the exit code is 1."""
        return self in (Severity.WARNING, Severity.ERROR)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found; `what` tells it, `remedy` what to do ("": nothing).

    `meaning` explains what is wrong; `gpus` are the indexes of those it is about, empty: the node.
    """

    step: Step
    severity: Severity
    name: str
    what: str
    meaning: str = ""
    remedy: str = ""
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A thing that may be wrong. The name is a promise; `<GPU>` in `remedy` stands for indexes."""

    name: str
    step: Step
    severity: Severity
    meaning: str
    remedy: str

    def found(self, what: str, gpus: Iterable[int] = ()) -> Finding:
        """Return the finding that it is so here."""
        indexes = tuple(gpus)
        remedy = self.remedy.replace("<GPU>", ",".join(map(str, indexes)) or "<GPU>")
        return Finding(self.step, self.severity, self.name, what, self.meaning, remedy, indexes)

    def each(self, gpus: Sequence[Gpu], say: Callable[[Gpu], str | None]) -> Iterator[Finding]:
        """Yield one finding for the GPUs of which something is to be said; None: nothing is."""
        said = list(alike(gpus, say))
        if said:
            lines = [f"{names(indexes)}: {what}" for what, indexes in said]
            yield self.found("\n".join(lines), sorted(i for _, indexes in said for i in indexes))


def fine(step: Step, name: str, what: str, gpus: Iterable[int] = ()) -> Finding:
    """Return a finding of what there is, with nothing wrong about it."""
    return Finding(step, Severity.OK, name, what, gpus=tuple(gpus))


def alike(
    gpus: Sequence[Gpu], say: Callable[[Gpu], str | None]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each text that is said of GPUs, with the indexes of these."""
    said: dict[str, list[int]] = {}
    for gpu in gpus:
        text = say(gpu)
        if text is not None:
            said.setdefault(text, []).append(gpu.index)
    for text, indexes in said.items():
        yield text, tuple(indexes)


def names(indexes: Sequence[int]) -> str:
    """Return "GPU 0-3, 7" for indexes that rise."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and runs[-1][-1] == index - 1:
            runs[-1] = [runs[-1][0], index]
        else:
            runs.append([index])
    return "GPU " + ", ".join("-".join(map(str, run)) for run in runs)


def change(what: str, mode: Mapping[str, float | None]) -> str | None:
    """Tell of a mode that will be another one after the next reset of the GPU."""
    now, then = mode.get("current"), mode.get("pending")
    if now is None or then is None or now == then:
        return None
    return f"{what} is {'on' if now else 'off'}, and will be {'on' if then else 'off'}"
