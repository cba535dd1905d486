# SPDX-License-Identifier: Apache-2.0
"""Arguments of an attention call: each is served as eager does, or refused by name."""

from __future__ import annotations

from typing import Any

import minference
import pytest
import torch
from families import (
    COMMON,
    VOCAB,
    KernelCalls,
    additive,
    assert_as_eager,
    logits_of,
    random_ids,
    tiny_model,
    transformers,
)
from hypothesis import given
from hypothesis import strategies as st
from reference import a_shape_mask, dense_mask
from torch import Tensor, nn

integration = pytest.importorskip("minference.integrations.transformers")
attend = integration.minference_attention_forward

BATCH, HEADS, HEADS_KV, DIM = 2, 4, 2, 16


class Layer(nn.Module):
    num_key_value_groups = HEADS // HEADS_KV

    def __init__(self, *, is_causal: bool = True, block_size: int | None = None) -> None:
        super().__init__()
        self.is_causal = is_causal
        if block_size is not None:
            self.indexer = nn.Module()
            self.indexer.block_size = block_size


def make_qkv(rows: int = 40, keys: int = 70, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(BATCH, HEADS, rows, DIM, generator=generator)
    k, v = torch.randn(2, BATCH, HEADS_KV, keys, DIM, generator=generator)
    return q, k, v


def eager(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scaling: float = DIM**-0.5,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """What transformers' eager functions compute, in float64; mask is bool or additive."""
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    if sinks is not None:
        of_rows = sinks.double().reshape(1, -1, 1, 1) if sinks.ndim == 1 else sinks.double()
        scores = torch.cat([scores, of_rows.expand(*scores.shape[:3], 1)], dim=3)
    return (scores.softmax(dim=3)[..., : k.shape[2]] @ v).transpose(1, 2)


def assert_same(got: Tensor, want: Tensor) -> None:
    """Within 1e-5: 80 float32 roundings of weighted means of values up to about 4."""
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def causal(rows: int, keys: int) -> Tensor:
    return dense_mask(rows, keys)[None, None]


# ---- Masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "keys"), [(1, 70), (2, 70), (40, 70), (69, 70), (70, 70)])
def test_none_is_causal_and_bottom_right_for_any_number_of_rows(rows, keys):
    q, k, v = make_qkv(rows, keys)
    with KernelCalls() as kernel:
        got, weights = attend(Layer(), q, k, v, None)
    assert weights is None
    assert len(kernel.calls) == 1
    assert_same(got, eager(q, k, v, causal(rows, keys)))


@pytest.mark.parametrize(("rows", "keys"), [(1, 70), (40, 70), (70, 70), (70, 40)])
@pytest.mark.parametrize("by_argument", [True, False])
def test_none_in_a_layer_that_is_not_causal_is_everything(rows, keys, by_argument):
    q, k, v = make_qkv(rows, keys)
    layer = Layer(is_causal=by_argument)
    got, _ = attend(layer, q, k, v, None, is_causal=False if by_argument else None)
    assert_same(got, eager(q, k, v, None))


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_mask_alone_says_what_is_visible(is_causal):
    q, k, v = make_qkv()
    window = a_shape_mask(40, 70, sink=3, window=9)[None, None]
    assert_same(attend(Layer(is_causal=is_causal), q, k, v, window)[0], eager(q, k, v, window))
    lazy = integration.minference_mask(BATCH, 40, 70, q_offset=30)
    with KernelCalls() as kernel:
        got, _ = attend(Layer(is_causal=is_causal), q, k, v, lazy)
    assert len(kernel.calls) == 1
    assert_same(got, eager(q, k, v, causal(40, 70)))


MASK_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
]


@pytest.mark.parametrize("dtype", MASK_DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (BATCH, 1), (1, HEADS), (BATCH, HEADS)], ids=["one", "batch", "heads", "all"]
)
def test_users_masks_of_any_dtype(dtype, shape):
    q, k, v = make_qkv()
    visible = torch.rand(*shape, 40, 70, generator=torch.Generator().manual_seed(1)) < 0.5
    visible[..., :2] = True
    mask = visible.to(dtype)
    if dtype.is_floating_point:
        mask = torch.zeros(visible.shape, dtype=dtype)
        mask.masked_fill_(~visible, torch.finfo(dtype).min)
    assert_same(attend(Layer(), q, k, v, mask)[0], eager(q, k, v, visible))


def test_one_row_of_a_mask_is_for_all_rows():
    q, k, v = make_qkv()
    visible = torch.rand(BATCH, 1, 1, 70) < 0.5
    visible[..., 0] = True
    want = eager(q, k, v, visible)
    assert_same(attend(Layer(), q, k, v, visible)[0], want)
    assert_same(attend(Layer(), q, k, v, visible, s_aux=torch.full((HEADS,), -90.0))[0], want)
    one_row = integration.minference_mask(BATCH, 40, 70, q_offset=30)[:, :, -1:]
    assert_same(attend(Layer(), q, k, v, one_row)[0], eager(q, k, v, None))


def test_smallest_number_of_a_wider_dtype_makes_no_nan():
    """float64's would be -inf in float32, and a row of only -inf has no softmax."""
    q, k, v = make_qkv()
    mask = torch.zeros(1, 1, 40, 70, dtype=torch.float64)
    mask[:, :, 3] = torch.finfo(torch.float64).min
    got, _ = attend(Layer(), q, k, v, mask)
    assert got.isfinite().all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 70) > 0, "attention_mask: expected 4 dimensions, got 2"),
        (torch.ones(2, 40, 70) > 0, "attention_mask: expected 4 dimensions, got 3"),
        (torch.ones(1, 1, 1, 40, 70) > 0, "attention_mask: expected 4 dimensions, got 5"),
        (
            torch.ones(3, 1, 40, 70) > 0,
            r"expected \[2 or 1, 4 or 1, 40 or 1, 70\], got \(3, 1, 40, 70\)",
        ),
        (torch.ones(2, 2, 40, 70) > 0, r"got \(2, 2, 40, 70\)"),
        (torch.ones(2, 1, 39, 70) > 0, r"got \(2, 1, 39, 70\)"),
        (torch.ones(2, 1, 40, 71) > 0, r"got \(2, 1, 40, 71\)"),
        (torch.ones(2, 1, 40, 1) > 0, r"got \(2, 1, 40, 1\)"),
        (torch.full((2, 1, 40, 70), 2), "expected integers 0 and 1 in a mask of torch.int64"),
        (torch.full((2, 1, 40, 70), -1, dtype=torch.int8), "expected integers 0 and 1"),
        (torch.ones(2, 1, 40, 70) * 1j, "expected bool or floating point, got torch.complex64"),
        ((torch.ones(2, 1, 40, 70)).to_sparse(), "expected a dense tensor, got torch.sparse"),
        ("causal", "expected a dense tensor, got str"),
        ({"full_attention": None}, "expected a dense tensor, got dict"),
    ],
)
def test_masks_that_mean_nothing_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        attend(Layer(), *make_qkv(), mask)


def test_mask_cut_from_another_call_is_refused():
    lazy = integration.minference_mask(BATCH, 40, 70, q_offset=30)
    with pytest.raises(ValueError, match=r"got \(2, 1, 39, 70\)"):
        attend(Layer(), *make_qkv(), lazy[:, :, 1:])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integer_mask_is_that_of_bools_in_a_model(dtype):
    """It was once mistaken for indices of this library."""
    model, ids = tiny_model("llama"), random_ids(1, 2)
    visible = torch.eye(2, dtype=torch.bool)[None, None]
    got = logits_of(model, "minference", ids, attention_mask=visible.to(dtype))
    assert_as_eager(model, got, ids, attention_mask=additive(visible))


# ---- Softcap, sinks, biases ----------------------------------------------------------------------

SINKS = {
    "none": None,
    "per head": torch.randn(HEADS, generator=torch.Generator().manual_seed(2)),
    "per row": torch.randn(BATCH, HEADS, 40, 1, generator=torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("mask", ["none", "causal", "padded", "users"])
@pytest.mark.parametrize("name", ["s_aux", "sinks"])
@pytest.mark.parametrize("kind", ["per head", "per row"])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_sinks_under_every_name(mask, name, kind, softcap):
    q, k, v = make_qkv()
    padding = torch.ones(BATCH, 70, dtype=torch.bool)
    padding[1, :33] = False
    given = {
        "none": None,
        "causal": integration.minference_mask(BATCH, 40, 70, q_offset=30),
        "padded": integration.minference_mask(BATCH, 40, 70, q_offset=30, attention_mask=padding),
        "users": a_shape_mask(40, 70, sink=3, window=9)[None, None],
    }[mask]
    visible = causal(40, 70) if given is None else given.clone()
    if visible.dtype != torch.bool:
        visible = visible == 0
    got, _ = attend(Layer(), q, k, v, given, softcap=softcap, **{name: SINKS[kind]})
    want = eager(q, k, v, visible, sinks=SINKS[kind], softcap=softcap)
    rows = visible.any(dim=3)[:, 0].expand(BATCH, -1)
    assert_same(got[rows], want[rows])


@pytest.mark.parametrize("kind", SINKS)
@pytest.mark.parametrize("mask", [None, causal(40, 70), additive(causal(40, 70))])
@pytest.mark.parametrize(
    "shape", [(1, HEADS, 40), (BATCH, HEADS, 40), (1, HEADS, 1), (BATCH, 1, 1)]
)
@pytest.mark.parametrize("listed", [False, True])
def test_position_bias(kind, mask, shape, listed):
    q, k, v = make_qkv()
    bias = torch.randn(*shape, 70, generator=torch.Generator().manual_seed(4))
    if listed:  # These are computed some rows at a time.
        every_key = torch.arange(70).expand(BATCH, 40, 70)
        got, _ = attend(
            Layer(), q, k, v, mask, position_bias=bias, sinks=SINKS[kind], indices=every_key
        )
        assert_same(got, eager(q, k, v, causal(40, 70), bias=bias, sinks=SINKS[kind]))
        return
    got, _ = attend(Layer(), q, k, v, mask, position_bias=bias, sinks=SINKS[kind])
    assert_same(got, eager(q, k, v, causal(40, 70), bias=bias, sinks=SINKS[kind]))


def test_position_bias_without_causality():
    q, k, v = make_qkv()
    bias = torch.randn(1, HEADS, 40, 70)
    got, _ = attend(Layer(is_causal=False), q, k, v, None, position_bias=bias)
    assert_same(got, eager(q, k, v, None, bias=bias))


def test_biases_over_many_parts_of_rows():
    q, k, v = make_qkv(300, 333)
    every_key = torch.arange(333).expand(BATCH, 300, 333)
    for shape in [(1, HEADS, 1, 333), (1, HEADS, 300, 333)]:
        bias = torch.randn(shape)
        want = eager(q, k, v, causal(300, 333), bias=bias)
        got, _ = attend(Layer(), q, k, v, None, position_bias=bias, indices=every_key)
        assert_same(got, want)
        sinks = torch.full((HEADS,), -90.0)
        assert_same(attend(Layer(), q, k, v, None, position_bias=bias, sinks=sinks)[0], want)


def test_softcap_over_many_parts_of_rows():
    q, k, v = make_qkv(300, 333)
    got, _ = attend(Layer(), q, k, v, None, softcap=1.5)
    assert_same(got, eager(q, k, v, causal(300, 333), softcap=1.5))


def test_users_own_subclass_of_a_layer_is_served():
    """Nothing is looked up in the module that defines a class."""
    from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention

    class Own(Gemma2Attention):
        pass

    model, ids = tiny_model("gemma2"), random_ids(1, 80)
    for layer in model.model.layers:
        layer.self_attn.__class__ = Own
    assert_as_eager(model, logits_of(model, "minference", ids), ids)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dropout": 0.1}, NotImplementedError, r"dropout: expected 0, got 0\.1"),
        ({"cache": object()}, NotImplementedError, "cache: caches of continuous batching"),
        ({"cu_seq_lens_q": torch.arange(3)}, NotImplementedError, "Layer: cu_seq_lens_q: packed"),
        ({"block_table": torch.arange(3)}, NotImplementedError, "block_table: paged caches"),
        ({"alibi": torch.ones(4)}, NotImplementedError, "Layer: alibi: not known, and it may"),
        ({"tomorrow": 0}, NotImplementedError, "Layer: tomorrow: not known"),
        (
            {"softcap": 2.0, "position_bias": torch.ones(1, HEADS, 40, 70)},
            NotImplementedError,
            "softcap, position_bias: both in one call are not supported",
        ),
        (
            {"s_aux": torch.ones(HEADS), "sinks": torch.ones(HEADS)},
            ValueError,
            "s_aux, sinks: expected one of them, got both",
        ),
        (
            {"position_bias": torch.ones(HEADS, 40, 70)},
            ValueError,
            r"position_bias: expected \[2, 4, 40, 70\], or 1 of any, got \(4, 40, 70\)",
        ),
        (
            {"indices": torch.full((2, 40, 3), 70)},
            ValueError,
            "indices: expected entries within 70",
        ),
        ({"indices": torch.zeros(2, 40, 3)}, ValueError, "expected integers, got torch.float32"),
        ({"s_aux": torch.ones(3)}, ValueError, r"sinks: expected \[4\] or .*, got \(3,\)"),
        (
            {
                "indices": torch.zeros(2, 40, 3, dtype=torch.int32),
                "block_indices": torch.zeros(2, 2, 40, 3, dtype=torch.int32),
            },
            ValueError,
            "indices, block_indices: expected one of them, got both",
        ),
        (
            {"indices": torch.zeros(2, 39, 3, dtype=torch.int32)},
            ValueError,
            r"indices: expected \[2, 40, keys per row\], got \(2, 39, 3\)",
        ),
        (
            {"block_indices": torch.zeros(2, 2, 40, 3, dtype=torch.int32)},
            NotImplementedError,
            "Layer: block_indices: expected a layer with an indexer.block_size",
        ),
    ],
)
def test_what_may_change_the_result_is_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=f"minference: .*{message}"):
        attend(Layer(), *make_qkv(), None, **arguments)


@pytest.mark.parametrize("lists", [0, 3])
def test_lists_for_a_wrong_number_of_heads_are_refused(lists):
    index = torch.zeros(2, lists, 40, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"block_indices: .*, got \(2, {lists}, 40, 1\)"):
        attend(Layer(block_size=64), *make_qkv(), None, block_indices=index)


def test_harmless_arguments_change_nothing():
    q, k, v = make_qkv()
    harmless = {"position_ids": torch.arange(40), "use_cache": True, "sliding_window": 3}
    harmless |= {"past_key_values": transformers.DynamicCache(), "max_new_tokens": 5}
    got, _ = attend(Layer(), q, k, v, None, **harmless, alibi=None)
    assert torch.equal(got, attend(Layer(), q, k, v, None)[0])


def test_unknown_argument_of_a_model_call_is_refused():
    model = tiny_model("llama")
    with pytest.raises(NotImplementedError, match="LlamaAttention: attention_boost: not known"):
        logits_of(model, "minference", random_ids(1, 9), attention_boost=2.0)


def test_output_attentions_warns_and_gives_none():
    model, ids = tiny_model("llama"), random_ids(1, 9)
    with pytest.warns(UserWarning, match="output_attentions=True gives none; set the model to"):
        got = logits_of(model, "minference", ids, output_attentions=True)
    assert_as_eager(model, got, ids)


def test_config_refuses_attention_weights_as_for_sdpa():
    model = tiny_model("llama")
    model.set_attn_implementation("minference")
    with pytest.raises(ValueError, match="output_attentions"):
        model.config.output_attentions = True


# ---- Keys that the model has chosen --------------------------------------------------------------


def random_lists(shape: tuple[int, ...], num_blocks: int, seed: int) -> Tensor:
    """Draw lists without duplicates, some of them with -1 at the end."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(*shape[:-1], num_blocks, generator=generator)
    lists = scores.topk(shape[-1], dim=-1).indices
    counts = torch.randint(1, shape[-1] + 1, (*shape[:-1], 1), generator=generator)
    return torch.where(torch.arange(shape[-1]) < counts, lists, -1)


def mask_of_lists(lists: Tensor, block_size: int, keys: int, heads: int) -> Tensor:
    """``[batch, heads, rows, keys]`` of ``[batch, lists, rows, blocks per row]``, one by one."""
    batch, count, rows, _ = lists.shape
    mask = torch.zeros(batch, count, rows, keys, dtype=torch.bool)
    for at in torch.cartesian_prod(*map(torch.arange, (batch, count, rows))).tolist():
        for block in lists[tuple(at)].tolist():
            if block >= 0:
                mask[(*at, slice(block * block_size, (block + 1) * block_size))] = True
    return mask.repeat_interleave(heads // count, dim=1)


@given(
    st.integers(1, 90),
    st.integers(0, 60),
    st.integers(1, 12),
    st.sampled_from([None, *SINKS.values()][:2]),
    st.sampled_from([torch.int32, torch.int64]),
    st.integers(0, 3),
)
def test_indices_of_keys(rows, before, per_row, sinks, dtype, seed):
    keys = rows + before
    q, k, v = make_qkv(rows, keys)
    indices = random_lists((BATCH, rows, min(per_row, keys)), keys, seed)
    indices[:, :, 0] = 0  # Otherwise a row without any key would be NaN in eager attention.
    mask = integration.minference_mask(BATCH, rows, keys, q_offset=before)
    got, _ = attend(Layer(), q, k, v, mask, indices=indices.to(dtype), s_aux=sinks)
    visible = mask_of_lists(indices[:, None], 1, keys, HEADS) & causal(rows, keys)
    assert_same(got, eager(q, k, v, visible, sinks=sinks))


@pytest.mark.parametrize("lists", [1, HEADS_KV, HEADS])
@pytest.mark.parametrize("mask", ["none", "users", "additive"])
@pytest.mark.parametrize("block_size", [16, 64])
def test_indices_of_blocks(lists, mask, block_size):
    q, k, v = make_qkv(150, 200)
    num_blocks = -(-200 // block_size)
    index = random_lists((BATCH, lists, 150, 2), num_blocks, seed=5)
    index[..., 0] = 0
    visible = causal(150, 200)
    if mask != "none":
        visible = visible & a_shape_mask(150, 200, sink=3, window=90)
    given = {"none": None, "users": visible, "additive": additive(visible)}[mask]
    got, _ = attend(Layer(block_size=block_size), q, k, v, given, block_indices=index)
    assert_same(got, eager(q, k, v, visible & mask_of_lists(index, block_size, 200, HEADS)))


class BlockCalls(KernelCalls):
    """Counts calls of block_index_attn."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.minference.block_index_attn.default
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("block_size", [64, 128])
@pytest.mark.parametrize(("rows", "keys"), [(150, 150), (150, 200), (64, 192)])
@pytest.mark.parametrize("sinks", ["none", "per head"])
def test_blocks_of_64_that_rows_share_go_to_the_kernel(block_size, rows, keys, sinks):
    q, k, v = make_qkv(rows, keys)
    num_blocks = -(-keys // block_size)
    of_row_blocks = random_lists((BATCH, HEADS_KV, -(-rows // 64), 2), num_blocks, seed=6)
    of_row_blocks[..., 0] = torch.where((of_row_blocks == 0).any(dim=-1), of_row_blocks[..., 0], 0)
    index = of_row_blocks.repeat_interleave(64, dim=2)[:, :, :rows]
    order = torch.rand(index.shape, generator=torch.Generator().manual_seed(7)).argsort(dim=-1)
    index = index.gather(3, order)  # Lists are sets: their order means nothing.
    mask = integration.minference_mask(BATCH, rows, keys, q_offset=keys - rows)
    with BlockCalls() as kernel:
        layer = Layer(block_size=block_size)
        got, _ = attend(layer, q, k, v, mask, block_indices=index, sinks=SINKS[sinks])
    assert kernel.count == 1
    visible = mask_of_lists(index, block_size, keys, HEADS) & causal(rows, keys)
    assert_same(got, eager(q, k, v, visible, sinks=SINKS[sinks]))


@pytest.mark.parametrize("which", ["a row of its own", "a block twice"])
def test_blocks_that_the_kernel_does_not_take_are_a_mask(which):
    q, k, v = make_qkv(150, 192)
    index = torch.tensor([0, 1]).expand(BATCH, HEADS_KV, 150, 2).clone()
    index[1, 0, 7] = torch.tensor([0, 0] if which == "a block twice" else [0, 2])
    if which == "a block twice":
        index[...] = 0
    with BlockCalls() as kernel:
        got, _ = attend(Layer(block_size=64), q, k, v, None, block_indices=index)
    assert kernel.count == 0
    visible = mask_of_lists(index, 64, 192, HEADS) & causal(150, 192)
    assert_same(got, eager(q, k, v, visible))


DSA = {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "qk_head_dim": 24,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 16,
}


@pytest.mark.parametrize("family", ["DeepseekV32", "GlmMoeDsa"])
@pytest.mark.parametrize("padded", [False, True])
def test_models_that_choose_keys(family, padded):
    if not hasattr(transformers, f"{family}Config"):
        pytest.skip(f"this transformers has no {family}")
    config = getattr(transformers, f"{family}Config")(**{**COMMON, **DSA})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    ids = random_ids(2, 70)
    padding = torch.ones_like(ids)
    padding[1, :33] = 0
    inputs = {"attention_mask": padding} if padded else {}
    minference.set_patterns(model, minference.Dense())
    got = logits_of(model, "minference", ids, **inputs)
    assert_as_eager(model, got, ids, rows=padding.bool() if padded else None, **inputs)


@pytest.mark.parametrize("block_size", [16, 64])
def test_a_model_that_chooses_blocks(block_size):
    module = pytest.importorskip("transformers.models.minimax_m3_vl.modeling_minimax_m3_vl")
    config = transformers.MiniMaxM3VLTextConfig(
        **{**COMMON, "num_hidden_layers": 3, "bos_token_id": 1, "eos_token_id": 2},
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["minimax_m3_sparse"] * 3,
        index_n_heads=2,
        index_head_dim=16,
        index_block_size=block_size,
        index_topk_blocks=2,
        index_local_blocks=1,
    )
    torch.manual_seed(0)
    model, ids = module.MiniMaxM3VLTextModel(config).eval(), random_ids(2, 200)
    with torch.no_grad():
        model.set_attn_implementation("eager")
        want = model(ids).last_hidden_state
        minference.set_patterns(model, minference.Dense())
        got = model(ids).last_hidden_state
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * want.abs().max().item())


def test_columns_that_a_model_appends_to_its_mask():
    """DeepSeek-V4 concatenates compressed keys and a mask for them."""
    if not hasattr(transformers, "DeepseekV4Config"):
        pytest.skip("this transformers has no DeepSeek-V4")
    config = transformers.DeepseekV4Config(
        vocab_size=VOCAB,
        hidden_size=64,
        moe_intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        head_dim=16,
        q_lora_rank=24,
        o_lora_rank=16,
        o_groups=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        sliding_window=24,
        index_n_heads=2,
        index_head_dim=16,
        index_topk=5,
        layer_types=[
            "sliding_attention",
            "compressed_sparse_attention",
            "heavily_compressed_attention",
        ],
        compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model, ids = transformers.DeepseekV4ForCausalLM(config).eval(), random_ids(2, 70)
    minference.set_patterns(model, minference.Dense())
    assert_as_eager(model, logits_of(model, "minference", ids), ids)
