"""The formulas: bytes of VRAM on each GPU that a model needs, part by part.

docs/fit.md has the source of each, and the published figures that they are checked against.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from exporter.fit.model import Model
from exporter.frozen import dataclass

# Bytes of a weight. int4: four bits, and for each group of 128 a scale of 16 bits and a zero of 4.
DTYPES: Mapping[str, float] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5 + 20 / 8 / 128,
}
KV_DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8")
# Bytes of a trained weight beside the weight itself: its master copy and two moments in fp32 for
# mixed precision, the moments alone where weights are fp32; sgd keeps one moment.
OPTIMIZERS: Mapping[str, float] = {"adamw": 8.0, "adamw-8bit": 2.0, "sgd": 4.0}
MASTER_BYTES = 4.0
PREFILL_TOKENS = 8192  # at once, however many there are: engines cut prompts into such pieces
COMPUTE_BYTES = 2.0  # activations are fp16 or bf16 unless all is fp32
LOGIT_BYTES = 4.0


class Training(Enum):
    """What is trained."""

    NONE = "none"
    FULL = "full"
    LORA = "lora"


class Activations(Enum):
    """What the forward pass keeps for the backward pass."""

    ALL = "all"
    SELECTIVE = "selective"
    CHECKPOINTED = "checkpointed"


@dataclass(frozen=True, slots=True)
class Use:
    """What is to be done with the model.

    Attributes:
        dtype: Of the weights, one of DTYPES.
        kv_dtype: Of the cache.
        context: Tokens of a sequence, prompt and answer.
        batch: Sequences at a time.
        training: Whether, and what, it is trained.
        optimizer: One of OPTIMIZERS.
        activations: What is kept for the backward pass.
        lora_rank: Of the adapters that are trained instead of the weights.
        overhead_bytes: Of the CUDA context, its libraries, graphs and the allocator's holes.
    """

    dtype: str
    kv_dtype: str
    context: int
    batch: int
    training: Training
    optimizer: str
    activations: Activations
    lora_rank: int
    overhead_bytes: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on each of so many GPUs, by part; None: cannot be told from what is known."""

    gpus: int
    parts: Mapping[str, float | None]

    @property
    def total_bytes(self) -> float:
        """All that is known of; at least so much is needed."""
        return sum(part for part in self.parts.values() if part is not None)

    @property
    def is_whole(self) -> bool:
        """Whether every part is known."""
        return None not in self.parts.values()


def need(model: Model, use: Use, gpus: int) -> Need:
    """Return what each of `gpus` needs, the model being parted over them (tensor parallel)."""
    parts: dict[str, float | None] = {"weights": weight_bytes(model, use.dtype) / gpus}
    if use.training is Training.NONE:
        parts["KV cache"] = _times(kv_bytes_per_token(model, use.kv_dtype, gpus), _kept(model, use))
        parts["activations"] = inference_activations(model, use, gpus)
    else:
        trained: float | None = model.parameters
        if use.training is Training.LORA:
            trained = lora_parameters(model, use.lora_rank)
            parts["adapters"] = _times(trained, DTYPES["fp32"] / gpus)
        parts["gradients"] = _times(trained, _gradient_bytes(use) / gpus)
        parts["optimizer"] = _times(trained, _optimizer_bytes(use) / gpus)
        parts["activations"] = training_activations(model, use, gpus)
    parts["CUDA context, libraries"] = float(use.overhead_bytes)
    return Need(gpus, parts)


def weight_bytes(model: Model, dtype: str) -> float:
    """Return bytes of all weights; token tables have 16 bits where the others have fewer."""
    of_tables = max(DTYPES[dtype], DTYPES["fp16"])
    return (model.parameters - model.tables) * DTYPES[dtype] + model.tables * of_tables


def kv_bytes_per_token(model: Model, kv_dtype: str, gpus: int = 1) -> float | None:
    """Return bytes of a token in the cache of one of `gpus`: a key and a value per layer and head.

    Heads are parted over the GPUs; one that has fewer than there are GPUs is kept on several. The
    latent of MLA is kept whole on each.
    """
    if model.layers is None:
        return None
    if model.latent is not None:
        return model.layers * model.latent * DTYPES[kv_dtype]
    if model.kv_heads is None or model.head_dim is None:
        return None
    heads = max(model.kv_heads / gpus, 1.0)
    return 2 * model.layers * heads * model.head_dim * DTYPES[kv_dtype]


def inference_activations(model: Model, use: Use, gpus: int) -> float | None:
    """Return bytes that live at once while one layer handles a piece of the prompts.

    The residual and its norm, queries, keys and values, and both halves of the MLP; then the
    logits of the last tokens. Our estimate; engines measure theirs at the start.
    """
    if not (model.hidden and model.intermediate and model.heads and model.head_dim):
        return None
    tokens = min(use.batch * use.context, PREFILL_TOKENS)
    heads = model.heads + 2 * (model.kv_heads or model.heads)
    width = 4 * model.hidden + (2 * model.intermediate + heads * model.head_dim) / gpus
    logits = use.batch * (model.vocabulary or 0) * LOGIT_BYTES
    return tokens * width * _compute_bytes(use) + logits


def training_activations(model: Model, use: Use, gpus: int) -> float | None:
    """Return bytes that the forward pass keeps: s b h (10 + 24/t + 5 a s / h t) of each layer.

    Without the attention's scores if these are computed anew (selective), as FlashAttention does;
    only 2 s b h of each layer and all of one if whole layers are (checkpointed).
    """
    if not (model.hidden and model.layers and model.heads):
        return None
    tokens = use.context * use.batch
    layer = tokens * model.hidden * (10 + 24 / gpus)
    layer *= _compute_bytes(use) / COMPUTE_BYTES
    if use.activations is Activations.CHECKPOINTED:
        kept = tokens * model.hidden * _compute_bytes(use)
        return model.layers * kept + layer
    if use.activations is Activations.ALL:
        layer += 5 * model.heads * use.context * tokens / gpus
    return model.layers * layer


def lora_parameters(model: Model, rank: int) -> float | None:
    """Return how many weights adapters of a rank have on all matrices of attention and MLP."""
    if not (model.hidden and model.layers and model.intermediate):
        return None
    if not (model.heads and model.kv_heads and model.head_dim):
        return None
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    attention = 2 * (model.hidden + queries) + 2 * (model.hidden + keys)
    mlp = 3 * (model.hidden + model.intermediate)
    return float(model.layers * rank * (attention + mlp))


def _kept(model: Model, use: Use) -> float:
    return use.batch * min(use.context, model.window or use.context)


def _gradient_bytes(use: Use) -> float:
    return DTYPES["fp32"] if use.training is Training.LORA else _compute_bytes(use)


def _optimizer_bytes(use: Use) -> float:
    """Return the moments, and the master copy where the weights that are trained are not fp32."""
    is_mixed = use.training is Training.FULL and use.dtype != "fp32"
    return OPTIMIZERS[use.optimizer] + (MASTER_BYTES if is_mixed else 0.0)


def _compute_bytes(use: Use) -> float:
    return DTYPES["fp32"] if use.dtype == "fp32" else COMPUTE_BYTES


def _times(one: float | None, count: float) -> float | None:
    return None if one is None else one * count
