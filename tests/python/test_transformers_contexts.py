# SPDX-License-Identifier: Apache-2.0
"""Calls that are traced, under autocast, or made under the user's default device."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import minference
import pytest
import torch
from families import (
    COMMON,
    FAMILIES,
    assert_as_eager,
    logits_of,
    random_ids,
    tiny_model,
    transformers,
)
from packaging.version import Version
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

integration = pytest.importorskip("minference.integrations.transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:minference. .* runs dense"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    # torch.jit.trace reads every attribute of a model.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

DENSE = minference.Dense()
SPARSE = minference.AShape(4, 20)


class Logits(nn.Module):
    """Takes ids and padding and returns logits, as tracers want."""

    def __init__(self, model: Any, *, use_cache: bool = False) -> None:
        super().__init__()
        self.model = model
        self.use_cache = use_cache

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.model(ids, attention_mask=attention_mask, use_cache=self.use_cache).logits


def paddings(seqlen: int) -> tuple[Tensor, Tensor]:
    """Return a padding to trace with, and another one."""
    traced, other = torch.ones(2, 2, seqlen, dtype=torch.int64)
    traced[1, :33] = 0
    other[0, :20] = 0
    return traced, other


def make(family: str = "llama", pattern: minference.Pattern = DENSE, **overrides: Any) -> Any:
    torch.compiler.reset()
    model = tiny_model(family, **overrides)
    minference.set_patterns(model, pattern, min_seqlen=1)
    return model


@torch.no_grad()
def check(run: Callable[..., Tensor], model: Any, ids: Tensor, padding: Tensor | None) -> None:
    got = run(ids) if padding is None else run(ids, padding)
    if padding is None:
        assert_as_eager(model, got, ids)
    else:
        assert_as_eager(model, got, ids, rows=padding.bool(), attention_mask=padding)
    model.set_attn_implementation("minference")


# gemma2: softcap, which is computed some rows at a time. gpt_oss: sinks and a window.
TRACED = ["llama", "mistral", "gemma2", "gpt_oss"]


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.6"),
    reason="until 5.6 transformers made masks that torch.jit could not trace, eager ones too",
)
@pytest.mark.parametrize("family", TRACED)
@pytest.mark.parametrize("padded", [False, True])
def test_jit_trace(family, padded):
    """The graph works for another padding and, if its mask allows, for another length."""
    model = make(family)
    seqlen = 140
    traced, other = paddings(seqlen)
    example = (random_ids(2, seqlen), traced) if padded else (random_ids(2, seqlen),)
    with torch.no_grad():
        graph = torch.jit.trace(Logits(model), example, check_trace=False)
    check(graph, model, random_ids(2, seqlen), other if padded else None)
    if family == "llama":
        longer = torch.ones(2, 170, dtype=torch.int64)
        check(graph, model, random_ids(2, 170), longer if padded else None)


# A cache with a sliding window keeps transformers' own attention functions from it too (5.24).
EXPORTED = [(family, False) for family in TRACED] + [("llama", True)]


@pytest.mark.parametrize(("family", "use_cache"), EXPORTED)
@pytest.mark.parametrize("padded", [False, True])
def test_export_with_any_length(family, padded, use_cache):
    model = make(family)
    seqlen = torch.export.Dim("seqlen", min=2, max=512)
    traced, _ = paddings(140)
    example = (random_ids(2, 140), traced) if padded else (random_ids(2, 140),)
    graph = torch.export.export(
        Logits(model, use_cache=use_cache),
        example,
        dynamic_shapes=tuple({1: seqlen} for _ in example),
        strict=False,
    ).module()
    _, other = paddings(90)
    check(graph, model, random_ids(2, 90), other if padded else None)


def test_export_that_would_choose_a_pattern_says_for_which_lengths():
    model = make(pattern=SPARSE)
    seqlen = torch.export.Dim("seqlen", min=2, max=512)
    with pytest.raises(Exception, match="min=64"):
        torch.export.export(
            Logits(model, use_cache=True),
            (random_ids(2, 140),),
            dynamic_shapes=({1: seqlen},),
            strict=False,
        )


def test_make_fx_of_a_padded_batch():
    model = make()
    traced, other = paddings(70)
    with torch.no_grad():
        graph = make_fx(Logits(model))(random_ids(2, 70), traced)
    check(graph, model, random_ids(2, 70), other)


@pytest.mark.parametrize("pattern", [DENSE, SPARSE])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "deepseek_v3"])
def test_fake_tensors(family, pattern):
    with FakeTensorMode(), torch.no_grad():
        model = tiny_model_without_values(family)
        minference.set_patterns(model, pattern, min_seqlen=1)
        ids = torch.ones(2, 70, dtype=torch.int64)
        for inputs in ({}, {"attention_mask": torch.ones_like(ids)}, {"use_cache": True}):
            assert model(ids, **inputs).logits.shape == (2, 70, 97)


def tiny_model_without_values(family: str) -> Any:
    config = tiny_model_config(family)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="minference")


def tiny_model_config(family: str) -> Any:
    name, extra = FAMILIES[family]
    return getattr(transformers, f"{name}Config")(**{**COMMON, **extra})


@pytest.mark.parametrize("pattern", [DENSE, SPARSE])
def test_meta_tensors(pattern):
    """A model on "meta", as large ones are before loading, takes patterns and runs."""
    with torch.device("meta"), torch.no_grad():
        model = tiny_model_without_values("llama")
        minference.set_patterns(model, pattern)
        ids = torch.ones(2, 70, dtype=torch.int64)
        out = model(ids, attention_mask=torch.ones_like(ids)).logits
    assert out.is_meta
    assert out.shape == (2, 70, 97)


def test_patterns_of_a_model_on_meta_are_checked_all_the_same():
    with torch.device("meta"):
        model = tiny_model_without_values("llama")
        with pytest.raises(ValueError, match="sink >= 0, got -1"):
            minference.set_patterns(model, minference.AShape(-1, 3))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("use_cache", [False, True])
def test_compiled_model(family, padded, use_cache):
    model = make(family)
    compiled = torch.compile(Logits(model, use_cache=use_cache), backend="aot_eager")
    for padding in paddings(70):
        check(compiled, model, random_ids(2, 70), padding if padded else None)


def test_compiled_layers():
    """The mask is made outside of the compiled part and passed in unchanged."""
    model = make()
    for layer in model.model.layers:
        layer.compile(backend="aot_eager", fullgraph=True)
    traced, other = paddings(70)
    for padding in (traced, None, other):
        check(Logits(model), model, random_ids(2, 70), padding)


def test_patterns_set_after_a_compiled_call_are_used():
    model = make()
    compiled = torch.compile(model, backend="aot_eager")
    ids = random_ids(1, 100)
    with torch.no_grad():
        dense = compiled(ids, use_cache=True).logits
        minference.set_patterns(compiled, SPARSE, min_seqlen=1)
        got = compiled(ids, use_cache=True).logits
        want = model(ids, use_cache=True).logits
    assert torch.equal(got, want)
    assert not torch.allclose(got, dense, rtol=0.1)


@pytest.mark.parametrize("family", TRACED)
def test_nothing_is_read_while_a_stream_is_captured(family, monkeypatch):
    """There is no GPU here, so transformers is told that a stream is being captured."""
    model, ids = make(family), random_ids(2, 70)
    padding = paddings(70)[0]
    utils = importlib.import_module("transformers.utils.import_utils")
    monkeypatch.setattr(utils, "is_cuda_stream_capturing", lambda: True)
    masks = []
    attention = integration.minference_attention_forward

    def watched(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> Any:
        masks.append(mask)
        return attention(module, q, k, v, mask, **options)

    transformers.AttentionInterface.register("minference", watched)
    try:
        got = logits_of(model, "minference", ids, attention_mask=padding)
    finally:
        integration.register()
    assert {type(mask) for mask in masks} == {Tensor}  # Written out by ops in the graph.
    monkeypatch.undo()
    assert_as_eager(model, got, ids, rows=padding.bool(), attention_mask=padding)


# ---- Autocast ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "deepseek_v3"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_as_with_eager_attention(family, padded, dtype):
    """Within 16 roundings of the dtype, of the largest logit, through two layers."""
    model, ids = make(family), random_ids(2, 70)
    inputs = {"attention_mask": paddings(70)[0]} if padded else {}
    rows = inputs.get("attention_mask", torch.ones_like(ids)).bool()
    with torch.autocast("cpu", dtype):
        want = logits_of(model, "eager", ids, **inputs)
        got = logits_of(model, "minference", ids, **inputs)
    assert got.dtype == want.dtype == dtype
    got, want = got[rows].float(), want[rows].float()
    largest = want.abs().max().item()
    if family == "gpt_oss":  # Its router may choose another expert because of a rounding.
        assert ((got - want).abs().amax(dim=-1) < 16 * torch.finfo(dtype).eps * largest).sum() > 40
    else:
        assert (got - want).abs().max() <= 16 * torch.finfo(dtype).eps * largest


def example_ops(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Any]]:
    return {
        "prefill_attn": lambda: minference.prefill_attn(q, k, v, SPARSE),
        "vs_attn": lambda: minference.vs_attn(q, k, v, 40, 110),
        "a_shape_attn": lambda: minference.a_shape_attn(q, k, v, 4, 20),
        "block_sparse_attn": lambda: minference.block_sparse_attn(q, k, v, 2),
        "estimate_vs": lambda: minference.estimate_vs(q, k, 40, 110),
        "estimate_blocks": lambda: minference.estimate_blocks(q, k, 2),
        "count_key_tiles": lambda: minference.count_key_tiles(q, k, SPARSE),
        "vs_sparse_attn": lambda: minference.vs_sparse_attn(
            q, k, v, *minference.estimate_vs(q, k, 40, 110)
        ),
        "block_index_attn": lambda: minference.block_index_attn(
            q, k, v, minference.estimate_blocks(q, k, 2)
        ),
    }


OPS = list(example_ops(*[torch.zeros(1)] * 3))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ops_under_autocast_cast_any_mixture(name, dtype):
    """As scaled_dot_product_attention does; rotary embeddings leave q and k in float32."""
    q, k, v = torch.randn(3, 1, 130, 4, 64)
    want = example_ops(q.to(dtype), k.to(dtype), v.to(dtype))[name]()
    with torch.autocast("cpu", dtype):
        got = example_ops(q, k, v.to(dtype))[name]()
        compiled = torch.compile(example_ops(q, k, v.to(dtype))[name], backend="aot_eager")()
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    torch.testing.assert_close(compiled, want, rtol=0, atol=0)


def test_merge_keeps_its_float32_under_autocast():
    out, lse = minference.prefill_attn(*torch.randn(3, 1, 70, 4, 64), DENSE)
    with torch.autocast("cpu", torch.bfloat16):
        merged, _ = minference.merge_attn(out, lse, out, lse)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, out)


def test_a_mixture_without_autocast_is_refused():
    q, k, v = torch.randn(3, 1, 70, 4, 64)
    with pytest.raises(ValueError, match="v: expected dtype float32 like q, got bfloat16"):
        minference.prefill_attn(q, k, v.bfloat16(), DENSE)


# ---- A default device of the user's --------------------------------------------------------------


@pytest.fixture
def default_device():
    yield torch.set_default_device
    torch.set_default_device(None)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("by_context", [False, True])
def test_default_device_changes_nothing(name, by_context, default_device):
    """ "meta" once made the patterns a tensor without values, and out one that nobody wrote."""
    q, k, v = torch.randn(3, 1, 130, 4, 64)
    call = example_ops(q, k, v)[name]
    want = call()
    if by_context:
        with torch.device("meta"):
            got = call()
    else:
        default_device("meta")
        got = call()
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("padded", [False, True])
def test_default_device_changes_no_model(family, padded, default_device):
    model, ids = tiny_model(family), random_ids(2, 100)
    inputs = {"attention_mask": paddings(100)[0]} if padded else {}
    minference.set_patterns(model, SPARSE, min_seqlen=1)
    want = logits_of(model, "minference", ids, **inputs)
    default_device("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minference.set_patterns(model, SPARSE, min_seqlen=1)
        got = logits_of(model, "minference", ids, **inputs)
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", ["prefill_attn", "count_key_tiles"])
def test_patterns_without_values_are_refused(name):
    q = torch.randn(1, 70, 4, 64)
    tensors = [q] * (3 if name == "prefill_attn" else 2)
    patterns = torch.zeros(4, 4, dtype=torch.int32, device="meta")
    with pytest.raises(RuntimeError, match="patterns: expected a tensor on the CPU, got meta"):
        getattr(torch.ops.minference, name)(*tensors, patterns)


# ---- The name ------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


CONFIG = """
    from transformers import AutoModelForCausalLM, LlamaConfig
    config = LlamaConfig(hidden_size=64, intermediate_size=48, num_hidden_layers=1, vocab_size=97,
                         num_attention_heads=4)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="minference")
    print(model.config._attn_implementation)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import minference",
        "import transformers, minference",
        "import minference, transformers",
        "import transformers.modeling_utils, minference",
        "import minference, sys; assert 'transformers' not in sys.modules",
        "import minference, importlib; importlib.reload(minference)",
        "import minference, importlib.util as u; u.find_spec('transformers.modeling_utils')",
    ],
)
def test_importing_minference_makes_the_name_known(imports):
    assert run_python(imports + textwrap.dedent(CONFIG)) == "minference"


def test_old_transformers_can_still_be_imported():
    """Importing minference must not break a transformers that it cannot serve."""
    code = """
        import minference, transformers
        transformers.__version__ = "5.3.0"
        import transformers.modeling_utils
        try:
            minference.set_patterns
        except ImportError as error:
            print(error)
    """
    assert run_python(code) == "minference: expected transformers 5.4 or later, got 5.3.0"
