"""The answer as text for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from exporter.fit.model import Model
from exporter.fit.parts import Training, Use
from exporter.fit.verdict import Offer, Verdict

GIB = 1 << 30
UNKNOWN = "?"
MISSING = (
    "?: not counted, so that more is needed than the total says; "
    "give --config, or --layers, --hidden and --heads"
)


def text(
    model: Model, use: Use, offers: Sequence[Offer], verdicts: Sequence[Verdict], problem: str
) -> str:
    """Return the answer for people; `problem`: why there are no GPUs to compare with."""
    lines = [f"model: {_model(model, use)}", f"use: {_use(use)}", ""]
    lines += _table(verdicts)
    if not all(verdict.need.is_whole for verdict in verdicts):
        lines += ["", MISSING]
    lines.append("")
    if not offers:
        lines += [
            f"no GPU to compare with: {problem}",
            "give --gpu-memory 80GiB to compare with one that is not here",
        ]
    for offer in offers:
        lines.append(f"GPU {offer.index}, {offer.name}: {offer.free_bytes / GIB:.2f} GiB free")
    lines += [line for verdict in verdicts if (line := _sentence(verdict, use))]
    return "\n".join(lines) + "\n"


def as_json(model: Model, use: Use, offers: Sequence[Offer], verdicts: Sequence[Verdict]) -> str:
    """Return the answer for programs: bytes, and null for what is not known."""
    answer = {
        "model": asdict(model),
        "use": {
            **asdict(use),
            "training": use.training.value,
            "activations": use.activations.value,
        },
        "gpus": [asdict(offer) for offer in offers],
        "verdicts": [
            {
                "tensor_parallel": verdict.need.gpus,
                "bytes_per_gpu": dict(verdict.need.parts),
                "total_bytes_per_gpu": verdict.need.total_bytes,
                "is_whole": verdict.need.is_whole,
                "fits": verdict.fits,
                "on_gpus": list(verdict.chosen),
                "spare_bytes": verdict.spare_bytes,
                "largest_batch": verdict.largest_batch,
            }
            for verdict in verdicts
        ],
    }
    return json.dumps(answer, indent=1) + "\n"


def _model(model: Model, use: Use) -> str:
    words = [f"{model.parameters / 1e9:.4g} billion parameters in {use.dtype}"]
    if model.layers:
        words.append(f"{model.layers} layers")
    if model.latent:
        words.append(f"a latent of {model.latent} values in the cache")
    elif model.kv_heads and model.head_dim:
        words.append(f"{model.kv_heads} KV heads of {model.head_dim}")
    if model.window:
        words.append(f"attention over {model.window} tokens")
    return ", ".join(words)


def _use(use: Use) -> str:
    what = {
        Training.NONE: "inference",
        Training.FULL: f"training of all weights with {use.optimizer}",
        Training.LORA: f"training of adapters of rank {use.lora_rank} with {use.optimizer}",
    }[use.training]
    return f"{what}, {use.batch} x {use.context} tokens"


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the parts as lines, a column for each number of GPUs."""
    head = [f"{v.need.gpus} GPU{'s' if v.need.gpus > 1 else ''}" for v in verdicts]
    rows = [
        ("GiB on each of", head),
        *((n, [_gib(v.need.parts[n]) for v in verdicts]) for n in verdicts[0].need.parts),
        ("total", [_gib(verdict.need.total_bytes) for verdict in verdicts]),
    ]
    wide = max(len(name) for name, _ in rows)
    return [f"{name:<{wide}}" + "".join(f"{cell:>10}" for cell in cells) for name, cells in rows]


def _gib(size: float | None) -> str:
    return UNKNOWN if size is None else f"{size / GIB:.2f}"


def _sentence(verdict: Verdict, use: Use) -> str:
    if verdict.spare_bytes is None:
        return ""
    count = verdict.need.gpus
    where = f"on GPU {verdict.chosen[0]}" if count == 1 else f"over {count} GPUs"
    if verdict.spare_bytes < 0:
        return f"{where}: does not fit, {-verdict.spare_bytes / GIB:.2f} GiB too little"
    if not verdict.need.is_whole:
        return f"{where}: what is known of fits; {verdict.spare_bytes / GIB:.2f} GiB are left"
    batch = verdict.largest_batch
    left = f"{verdict.spare_bytes / GIB:.2f} GiB left"
    return f"{where}: fits, {left}; up to {batch} sequences of {use.context} tokens"
