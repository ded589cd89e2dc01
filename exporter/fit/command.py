"""`gpu-node-exporter fit`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from exporter.fit import report
from exporter.fit.model import Model, ModelError, complete, from_config
from exporter.fit.parts import (
    DTYPES,
    KV_DTYPES,
    OPTIMIZERS,
    Activations,
    Training,
    Use,
)
from exporter.fit.verdict import Offer, judge
from exporter.flags import Parser, add_simulate
from exporter.gpu import identity, memory
from exporter.once import look
from exporter.schema import size

DEFAULT_CONTEXT = 4096
DEFAULT_OVERHEAD = "1GiB"
LEAST, MOST = 1e3, 1e15  # parameters
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def run(arguments: Sequence[str]) -> tuple[str, bool]:
    """Do what the command line says; return what to print, and whether the model fits.

    Without GPUs to compare with it is told what is needed, and that counts as done.

    Raises:
        ModelError: what is known of the model is not enough, or makes no sense.
    """
    parser = _parser()
    flags = parser.parse_args(arguments)
    model = _model(flags)
    use = _use(flags, model)
    offers, problem = _offers(flags)
    counts = [flags.tensor_parallel] if flags.tensor_parallel else _counts(model, len(offers))
    if model.heads and model.heads % counts[-1]:
        raise ModelError(
            f"--tensor-parallel: {model.heads} heads cannot be parted over {counts[-1]} GPUs; "
            "give a divisor"
        )
    verdicts = [judge(model, use, count, offers) for count in counts]
    fits = not offers or any(verdict.fits for verdict in verdicts)
    if flags.json:
        return report.as_json(model, use, offers, verdicts), fits
    return report.text(model, use, offers, verdicts, problem), fits


def _model(flags: argparse.Namespace) -> Model:
    if flags.config is not None:
        return from_config(flags.config, flags.params)
    if flags.params is None:
        raise ModelError("how large is the model? give --params 13e9, or --config config.json")
    given = {n: getattr(flags, n) for n in ("layers", "hidden", "heads", "kv_heads", "head_dim")}
    if given["heads"] and given["kv_heads"] and given["heads"] % given["kv_heads"]:
        raise ModelError(
            f"--kv-heads: {given['heads']} heads cannot share {given['kv_heads']} KV heads; "
            "give a divisor"
        )
    return complete(Model(flags.params, **given))


def _use(flags: argparse.Namespace, model: Model) -> Use:
    training = Training(flags.training)
    if training is Training.FULL and flags.dtype in {"fp8", "int8", "int4"}:
        raise ModelError(f"--dtype: {flags.dtype} weights are not trained; give --training lora")
    default = "fp32" if flags.dtype == "fp32" else "fp16"
    context = flags.context or min(model.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    if model.context is not None and context > model.context:
        raise ModelError(f"--context: {context} tokens; the model was made for {model.context}")
    return Use(
        dtype=flags.dtype,
        kv_dtype=flags.kv_dtype or default,
        context=context,
        batch=flags.batch,
        training=training,
        optimizer=flags.optimizer,
        activations=Activations(flags.activations),
        lora_rank=flags.lora_rank,
        overhead_bytes=flags.overhead,
    )


def _offers(flags: argparse.Namespace) -> tuple[list[Offer], str]:
    """Return the GPUs that there are to compare with, or why there are none."""
    if flags.gpu_memory is not None:
        return [Offer(i, "as given", flags.gpu_memory) for i in range(flags.gpus)], ""
    snapshot = look(flags.simulate, (identity.READER, memory.READER))
    offers = [
        Offer(gpu.index, gpu.identity.name or "GPU", gpu.memory.free_bytes)
        for gpu in snapshot.gpus
        if gpu.identity and gpu.memory and gpu.memory.free_bytes is not None
    ]
    return offers, snapshot.driver_problem or "no GPU tells how much memory is free"


def _counts(model: Model, gpus: int) -> list[int]:
    """Return 1, 2, 4, ... up to the GPUs that there are, as far as heads can be parted."""
    counts = [1 << power for power in range(max(gpus, 1).bit_length())]
    return [n for n in counts if not model.heads or model.heads % n == 0]


def _parser() -> Parser:
    parser = Parser(
        prog="gpu-node-exporter fit",
        description="Does a model fit the VRAM that is free on this node?",
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--config", type=Path, metavar="FILE", help="its config.json (Hugging Face)")
    model.add_argument("--params", type=_parameters, metavar="N", help="such as 13e9 or 13B")
    for name in ("layers", "hidden", "heads", "kv-heads", "head-dim"):
        model.add_argument(f"--{name}", type=_count, metavar="N", help="without --config")
    use = parser.add_argument_group("its use")
    use.add_argument("--dtype", choices=DTYPES, default="fp16", help="of the weights (fp16)")
    use.add_argument("--kv-dtype", choices=KV_DTYPES, help="of the KV cache (fp16)")
    use.add_argument("--context", type=_count, metavar="TOKENS", help=f"({DEFAULT_CONTEXT})")
    use.add_argument("--batch", type=_count, default=1, metavar="N", help="sequences at a time (1)")
    use.add_argument("--training", choices=[t.value for t in Training], default="none")
    use.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    use.add_argument(
        "--activations",
        choices=[a.value for a in Activations],
        default="selective",
        help="what training keeps for the backward pass; selective is what FlashAttention does",
    )
    use.add_argument("--lora-rank", type=_count, default=16, metavar="N", help="(16)")
    use.add_argument(
        "--overhead",
        type=_size,
        default=_size(DEFAULT_OVERHEAD),
        metavar="SIZE",
        help=f"of CUDA context and libraries on each GPU ({DEFAULT_OVERHEAD})",
    )
    where = parser.add_argument_group("the GPUs")
    where.add_argument(
        "--tensor-parallel",
        type=_count,
        metavar="N",
        help="part it over N GPUs (default: 1, 2, 4, ... are all told)",
    )
    where.add_argument("--gpu-memory", type=_size, metavar="SIZE", help="of GPUs that are not here")
    where.add_argument("--gpus", type=_count, default=1, metavar="N", help="how many of these (1)")
    add_simulate(where)
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _parameters(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?)([kmbt]?)", text.lower())
    count = float(match[1]) * SCALES[match[2]] if match else 0.0
    if not LEAST <= count <= MOST:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of parameters; write 13e9 or 13B')
    return count


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no count; write a whole number from 1 on')
    return int(text)


def _size(text: str) -> int:
    try:
        return size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{text}" {error}') from None
