"""`fit`: the formulas beside published figures, the answer, and mistakes told in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chaos import ROUNDS
from daemon import COMMAND
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.fit.model import GATED, KEYS, Model, ModelError, complete, from_config
from exporter.fit.parts import (
    Activations,
    Training,
    Use,
    kv_bytes_per_token,
    lora_parameters,
    need,
    training_activations,
    weight_bytes,
)

GB, GIB = 1e9, 1 << 30
LLAMA2_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
LLAMA2_13B = {
    **LLAMA2_7B,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}
LLAMA2_70B = {
    **LLAMA2_7B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
LLAMA31_8B = {
    **LLAMA2_7B,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
LLAMA31_70B = {**LLAMA2_70B, "vocab_size": 128256}
LLAMA31_405B = {
    **LLAMA31_70B,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
}
MISTRAL_7B = {
    **LLAMA31_8B,
    "model_type": "mistral",
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
}
MIXTRAL_8X7B = {
    **MISTRAL_7B,
    "model_type": "mixtral",
    "num_local_experts": 8,
    "sliding_window": None,
}
QWEN25_7B = {
    **LLAMA2_7B,
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "sliding_window": 131072,
    "use_sliding_window": False,
}
GEMMA_2B = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 256000,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "vocab_size": 129280,
}
OPT_13B = complete(Model(13e9, layers=40, hidden=5120, heads=40))
GPT3 = complete(Model(175e9, layers=96, hidden=12288, heads=96))
MT_NLG = complete(Model(530e9, layers=105, hidden=20480, heads=128))
INFERENCE = Use(
    "fp16", "fp16", 4096, 1, Training.NONE, "adamw", Activations.SELECTIVE, 16, overhead_bytes=0
)
TRAINING = Use(
    "fp16", "fp16", 2048, 1, Training.FULL, "adamw", Activations.SELECTIVE, 16, overhead_bytes=0
)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Model]:
    """Return what reads a config.json of these contents."""

    def from_contents(contents: Any, parameters: float | None = None) -> Model:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(contents))
        return from_config(path, parameters)

    return from_contents


def states(model: Model) -> float:
    """Return bytes of weights, gradients and optimizer."""
    parts = need(model, TRAINING, 1).parts
    return sum(parts[name] or 0.0 for name in ("weights", "gradients", "optimizer"))


def recomputed_share(model: Model) -> float:
    """Return the share of the activations that selective recomputation saves."""
    some = training_activations(model, TRAINING, 1)
    whole = need(model, replace(TRAINING, activations=Activations.ALL), 1).parts["activations"]
    assert some
    assert whole
    return 1 - some / whole


def test_published_parameter_counts(read: Callable[..., Model]) -> None:
    """Counted from config.json, models have exactly as many parameters as their cards say."""
    published = {
        6_738_415_616: LLAMA2_7B,
        13_015_864_320: LLAMA2_13B,
        68_976_648_192: LLAMA2_70B,
        8_030_261_248: LLAMA31_8B,
        70_553_706_496: LLAMA31_70B,
        405_853_388_800: LLAMA31_405B,
        7_241_732_096: MISTRAL_7B,
        46_702_792_704: MIXTRAL_8X7B,
        7_615_616_512: QWEN25_7B,
        2_506_172_416: GEMMA_2B,
    }
    assert {read(config).parameters for config in published.values()} == set(published)


# Where each is published: docs/fit.md.
PUBLISHED: dict[str, tuple[float, Callable[[Callable[..., Model]], float]]] = {
    "Llama 2 7B, GPTQ 4 bit, group 128": (
        3.90 * GB,
        lambda read: weight_bytes(read(LLAMA2_7B), "int4"),
    ),
    "Llama 2 13B, GPTQ 4 bit, group 128": (
        7.26 * GB,
        lambda read: weight_bytes(read(LLAMA2_13B), "int4"),
    ),
    "Llama 2 70B, GPTQ 4 bit, group 128": (
        36.65 * GB,
        lambda read: weight_bytes(read(LLAMA2_70B), "int4"),
    ),
    "Llama 3.1 405B, FP16": (810 * GB, lambda read: weight_bytes(read(LLAMA31_405B), "fp16")),
    "Llama 2 7B, FP16": (14 * GB, lambda _: weight_bytes(Model(7e9), "fp16")),
    "Llama 2 7B, cache of 4096 tokens": (
        2 * GIB,
        lambda read: 4096 * (kv_bytes_per_token(read(LLAMA2_7B), "fp16") or 0),
    ),
    "OPT 13B, cache of a token": (
        800 * 1024,
        lambda _: kv_bytes_per_token(OPT_13B, "fp16") or 0,
    ),
    "Llama 3.1 8B, cache of 128k tokens": (
        15.62 * GIB,
        lambda read: 128_000 * (kv_bytes_per_token(read(LLAMA31_8B), "fp16") or 0),
    ),
    "Llama 3.1 70B, cache of 128k tokens": (
        39.06 * GIB,
        lambda read: 128_000 * (kv_bytes_per_token(read(LLAMA31_70B), "fp16") or 0),
    ),
    "Llama 3.1 405B, cache of a token": (
        516_096,
        lambda read: kv_bytes_per_token(read(LLAMA31_405B), "bf16") or 0,
    ),
    "DeepSeek V3, cache of a token": (
        70_272,
        lambda read: kv_bytes_per_token(read(DEEPSEEK_V3, 671e9), "bf16") or 0,
    ),
    "7.5B parameters, Adam, mixed precision": (120 * GB, lambda _: states(Model(7.5e9))),
    "GPT-2 1.5B, Adam, mixed precision": (24 * GB, lambda _: states(Model(1.5e9))),
    "GPT-3, saved by selective recomputation": (0.70, lambda _: recomputed_share(GPT3)),
    "MT-NLG, saved by selective recomputation": (0.65, lambda _: recomputed_share(MT_NLG)),
    "Llama 2 7B, adapters of rank 64 on all matrices": (
        159_907_840,
        lambda read: lora_parameters(read(LLAMA2_7B), 64) or 0,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str, read: Callable[..., Model]) -> None:
    """Each published figure is met within 5 %, and the documentation gives its source."""
    figure, ours = PUBLISHED[name]
    assert ours(read) == pytest.approx(figure, rel=0.05)
    documentation = (Path(__file__).parents[1] / "docs" / "fit.md").read_text()
    assert f"| {name} |" in documentation


def test_window_bounds_the_cache(read: Callable[..., Model]) -> None:
    """A model that looks back 4096 tokens caches no more, however long the context."""
    model = read(MISTRAL_7B)
    caches = [
        need(model, replace(INFERENCE, context=tokens), 1).parts["KV cache"]
        for tokens in (2048, 4096, 32768)
    ]
    assert caches == [0.25 * GIB, 0.5 * GIB, 0.5 * GIB]


def test_heads_are_kept_on_several_gpus_where_there_are_few(read: Callable[..., Model]) -> None:
    """Over more GPUs than KV heads, each GPU keeps one: the cache is not parted further."""
    model = read(LLAMA31_70B)
    of = [kv_bytes_per_token(model, "fp16", gpus) for gpus in (1, 2, 8, 16)]
    assert of == [327_680, 163_840, 40_960, 40_960]


@given(
    batch=st.integers(1, 4096),
    context=st.integers(1, 1 << 20),
    gpus=st.sampled_from([1, 2, 4, 8]),
    training=st.sampled_from(Training),
    activations=st.sampled_from(Activations),
)
def test_needs_grow_with_use_and_shrink_with_gpus(
    batch: int, context: int, gpus: int, training: Training, activations: Activations
) -> None:
    """More sequences or tokens never need less, more GPUs never need more on each."""
    use = replace(
        TRAINING, batch=batch, context=context, training=training, activations=activations
    )
    total = need(GPT3, use, gpus).total_bytes
    assert total <= need(GPT3, replace(use, batch=batch + 1), gpus).total_bytes
    assert total <= need(GPT3, replace(use, context=context + 1), gpus).total_bytes
    assert total >= need(GPT3, use, 2 * gpus).total_bytes


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"weights", "not JSON"),
        (b"[]", "not an object"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (1 << 20) + b"{}", "more than 1 MiB"),
        (
            json.dumps({**LLAMA2_7B, "hidden_size": "big"}).encode(),
            'hidden_size: "big" is no count',
        ),
        (json.dumps({**LLAMA2_7B, "hidden_size": -1}).encode(), "hidden_size: -1 is no count"),
        (json.dumps({**LLAMA2_7B, "hidden_size": True}).encode(), "hidden_size: true is no count"),
        (json.dumps({**LLAMA2_7B, "model_type": "opt"}).encode(), "give --params"),
        (b'{"model_type": "llama", "hidden_size": 8}', "lacks num_hidden_layers"),
    ],
)
def test_bad_config_is_told(content: bytes, problem: str, tmp_path: Path) -> None:
    """A file that is no config.json, or says too little, is named with what would be right."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json") as bad:
        from_config(path)
    assert problem in str(bad.value)


def fit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    environment = {**os.environ, "LD_LIBRARY_PATH": ""}
    return subprocess.run(
        [COMMAND, "fit", *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give --params 13e9, or --config"),
        (["--params", "many"], '"many" is no number of parameters; write 13e9 or 13B'),
        (["--params", "nan"], "is no number of parameters"),
        (["--params", "7B", "--batch", "0"], '"0" is no count'),
        (["--params", "7B", "--gpu-memory", "80GB"], "write 80GiB"),
        (["--params", "7B", "--dtype", "int4", "--training", "full"], "give --training lora"),
        (["--params", "7B", "--heads", "32", "--kv-heads", "5"], "cannot share 5 KV heads"),
        (["--params", "7B", "--heads", "9", "--tensor-parallel", "2"], "9 heads cannot be parted"),
        (["--config", "/nowhere/config.json"], "No such file"),
        (["--params", "7B", "--simulate=h100"], "no profile h100"),
    ],
)
def test_bad_usage_is_told(arguments: list[str], problem: str) -> None:
    """A mistake is one line that says what would be right."""
    done = fit(*arguments)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_answer_for_the_simulated_node(tmp_path: Path) -> None:
    """A model is compared with what is free on this node: too large for one GPU, not for eight."""
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA31_70B}))
    done = fit("--config", str(tmp_path / "config.json"), "--simulate", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert len(answer["gpus"]) == 8
    assert [v["tensor_parallel"] for v in answer["verdicts"]] == [1, 2, 4, 8]
    assert [v["fits"] for v in answer["verdicts"]][::3] == [False, True]
    for verdict in answer["verdicts"]:
        free = [gpu["free_bytes"] for gpu in answer["gpus"] if gpu["index"] in verdict["on_gpus"]]
        assert len(free) == verdict["tensor_parallel"]
        assert verdict["spare_bytes"] == min(free) - verdict["total_bytes_per_gpu"]
        parts = verdict["bytes_per_gpu"].values()
        assert sum(parts) == pytest.approx(verdict["total_bytes_per_gpu"])
    text = fit("--config", str(tmp_path / "config.json"), "--simulate").stdout
    assert "on GPU" in text
    assert "over 8 GPUs: fits" in text


def test_largest_batch_is_the_largest(tmp_path: Path) -> None:
    """The batch that is said to fit does, and one more does not."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA31_8B))
    given_ = ("--config", str(tmp_path / "config.json"), "--gpu-memory", "24GiB", "--json")
    (verdict,) = json.loads(fit(*given_).stdout)["verdicts"]
    batch = verdict["largest_batch"]
    assert batch > 1
    assert fit(*given_, "--batch", str(batch)).returncode == 0
    assert fit(*given_, "--batch", str(batch + 1)).returncode == 1


def test_without_gpus_the_need_is_told() -> None:
    """Without a driver the need is told all the same, and why it is compared with nothing."""
    done = fit("--params", "13e9", "--layers", "40", "--hidden", "5120", "--heads", "40")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no GPU to compare with: " in done.stdout
    assert "weights" in done.stdout


def test_what_is_not_known_is_not_counted_as_nothing() -> None:
    """Without the model's shape, cache and activations are unknown, and the answer says so."""
    done = fit("--params", "13e9", "--gpu-memory", "80GiB")
    assert "KV cache                        ?" in done.stdout
    assert "more is needed than the total says" in done.stdout
    assert "what is known of fits" in done.stdout


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
COUNTS = st.integers(1, 100) | st.integers(1, 1 << 40)
SHAPES = st.fixed_dictionaries(
    {"model_type": st.sampled_from(sorted(GATED)) | JSON},
    optional=dict.fromkeys(
        [*(keys[0] for keys in KEYS.values()), "tie_word_embeddings", "text_config"], COUNTS | JSON
    ),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that each example of a property writes anew."""
    return tmp_path_factory.mktemp("fit") / "config.json"


@pytest.mark.chaos
@settings(max_examples=150 * ROUNDS, deadline=None)
@given(
    data=st.binary() | st.one_of(SHAPES, JSON).map(lambda value: json.dumps(value).encode()),
    parameters=st.none() | st.just(13e9),
)
@example(data=b'{"model_type": []}', parameters=None)
@example(data=b"[" * 100_000, parameters=None)
@example(data=b'{"vocab_size": ' + b"9" * 5000 + b"}", parameters=13e9)
@example(
    data=b'{"model_type": "llama", "hidden_size": 4, "num_attention_heads": 8, "vocab_size": 1,'
    b' "num_hidden_layers": 1, "intermediate_size": 1}',
    parameters=None,
)
def test_any_config_is_a_model_or_a_mistake(
    data: bytes, parameters: float | None, scratch: Path
) -> None:
    """Whatever config.json holds: a model with a need, or one line that names a cause."""
    scratch.write_bytes(data)
    mistake = ""
    try:
        model = from_config(scratch, parameters)
    except ModelError as bad:
        mistake = str(bad)
    else:
        assert 0 < need(model, TRAINING, 1).total_bytes < float("inf")
    assert not mistake or re.fullmatch(rf"{scratch}: \S.*; \S.*", mistake)
    assert "lacks ;" not in mistake
