"""What is known of a model: from flags, or from its config.json as Hugging Face has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.frozen import dataclass

MAX_BYTES = 1 << 20  # of a config.json; real ones have a few KiB

# Whose MLP has three matrices (gate, up, down), whose attention has q, k, v and o, and whose norms
# have no bias: their parameters can be counted from the config.
GATED = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "granite"}
)
TIED = frozenset({"gemma", "gemma2"})  # one token table at both ends, which their configs leave out
# What a config calls it, by our name; the first that is there counts.
KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim",),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "vocabulary": ("vocab_size",),
    "window": ("sliding_window",),
    "latent": ("kv_lora_rank",),
    "rope_dim": ("qk_rope_head_dim",),
    "experts": ("num_local_experts",),
    "context": ("max_position_embeddings", "n_positions", "max_sequence_length"),
}


class ModelError(Exception):
    """What is known of a model is not enough, or makes no sense: where, and what would be right."""


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer. None: not known.

    Attributes:
        parameters: How many weights there are.
        layers: Transformer blocks.
        hidden: Width of the residual stream.
        heads: Attention heads for queries.
        kv_heads: Those for keys and values; fewer with grouped or multi-query attention.
        head_dim: Width of a head.
        intermediate: Width of the MLP.
        vocabulary: Entries of the token table.
        window: Tokens that attention looks back on, where that is less than the context.
        latent: Values that a token has in a layer's cache instead of keys and values (MLA).
        context: Tokens that it was made for.
        tables: Weights of the token tables, which are left in 16 bits when the rest is quantized.
    """

    parameters: float
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    intermediate: int | None = None
    vocabulary: int | None = None
    window: int | None = None
    latent: int | None = None
    context: int | None = None
    tables: float = 0.0


def complete(model: Model) -> Model:
    """Return the model with what follows from the rest: every head its own keys, 4 x MLP."""
    head_dim = model.head_dim
    if head_dim is None and model.hidden and model.heads:
        head_dim = model.hidden // model.heads
    intermediate = model.intermediate or (4 * model.hidden if model.hidden else None)
    return replace(
        model,
        kv_heads=model.kv_heads or model.heads,
        head_dim=head_dim,
        intermediate=intermediate,
    )


def from_config(path: Path, parameters: float | None = None) -> Model:
    """Read a config.json.

    Args:
        path: The file.
        parameters: How many there are, where that is known better than by counting.

    Raises:
        ModelError: the file cannot be read, is none, or leaves open how many parameters there are.
    """
    config = _load(path)
    text = config.get("text_config")  # of a model that also sees or hears
    config = {**config, **text} if isinstance(text, dict) else config
    found = {name: _number(path, config, keys) for name, keys in KEYS.items()}
    if config.get("use_sliding_window") is False or _kind(config) != "mistral":
        found["window"] = None  # elsewhere only some layers have one: counted as if none had
    if config.get("multi_query") is True:
        found["kv_heads"] = 1
    if found["latent"]:
        found["latent"] = found["latent"] + (found.pop("rope_dim") or 0)
    experts = found.pop("experts") or 1
    found.pop("rope_dim", None)
    sizes: dict[str, Any] = found
    shape = complete(Model(parameters or 0.0, **sizes))
    if shape.vocabulary and shape.hidden:
        is_tied = config.get("tie_word_embeddings", _kind(config) in TIED)
        shape = replace(shape, tables=float(shape.vocabulary * shape.hidden * (2 - bool(is_tied))))
    if parameters is not None:
        return shape
    return _counted(path, config, shape, experts)


def _counted(path: Path, config: Mapping[str, Any], shape: Model, experts: int) -> Model:
    kind = _kind(config)
    if kind not in GATED:
        right = f"give --params; only {', '.join(sorted(GATED))} can be counted"
        given = json.dumps(config.get("model_type"))
        raise ModelError(f"{path}: model_type {given} cannot be counted; {right}")
    hidden, layers, heads = shape.hidden, shape.layers, shape.heads
    kv_heads, head_dim, vocabulary = shape.kv_heads, shape.head_dim, shape.vocabulary
    intermediate = _number(path, config, KEYS["intermediate"])
    if hidden and heads and head_dim == 0:
        right = "correct one, or add head_dim"
        raise ModelError(f"{path}: {heads} heads are more than hidden_size ({hidden}); {right}")
    if not (hidden and layers and heads and kv_heads and head_dim and vocabulary and intermediate):
        missing = [
            KEYS[name][0]
            for name in ("hidden", "layers", "heads", "vocabulary", "intermediate")
            if not _number(path, config, KEYS[name])
        ]
        raise ModelError(f"{path}: lacks {', '.join(missing)}; add it, or give --params")
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    biases = head_dim * (heads + 2 * kv_heads) if kind == "qwen2" else 0
    norms = hidden * (4 if kind == "gemma2" else 2) + (2 * head_dim if kind == "qwen3" else 0)
    mlp = 3 * hidden * intermediate * experts + (hidden * experts if experts > 1 else 0)
    total = layers * (attention + biases + mlp + norms) + shape.tables + hidden
    return replace(shape, parameters=float(total))


def _kind(config: Mapping[str, Any]) -> str:
    kind = config.get("model_type")
    return kind if isinstance(kind, str) else ""


def _load(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; name a config.json") from None
    if len(raw) > MAX_BYTES:
        raise ModelError(f"{path}: more than 1 MiB; name a config.json, not the weights")
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error}); name a config.json") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: not an object; name a config.json")
    return config


def _number(path: Path, config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if type(value) is not int or not 0 < value < 1 << 40:
            raise ModelError(f"{path}: {key}: {json.dumps(value)} is no count; write a number")
        return value
    return None
