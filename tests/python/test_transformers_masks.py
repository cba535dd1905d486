# SPDX-License-Identifier: Apache-2.0
"""A mask that is not written out means the same as one that is, whatever is done with it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import minference
import pytest
import torch
from families import (
    COMMON,
    KernelCalls,
    assert_as_eager,
    logits_of,
    random_ids,
    tiny_model,
    transformers,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

integration = pytest.importorskip("minference.integrations.transformers")

from minference.integrations.transformers.causal_mask import CausalMask, Placement  # noqa: E402
from transformers.masking_utils import (  # noqa: E402
    bidirectional_mask_function,
    eager_mask,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)

ROWS, KEYS = 7, 11
SHIFT = KEYS - ROWS


def make(window: int = 0, dtype: torch.dtype = torch.bool) -> CausalMask:
    """Two sequences, the second one padded on both sides."""
    placements = [
        Placement(0, KEYS, SHIFT, window),
        Placement(3, KEYS - 1, SHIFT, window),
    ]
    return CausalMask(placements, ROWS, KEYS, "cpu", dtype)


def written_out(window: int = 0, dtype: torch.dtype = torch.bool) -> Tensor:
    """The same mask, element by element."""
    mask = torch.zeros(2, 1, ROWS, KEYS, dtype=torch.bool)
    for sequence, (first, end) in enumerate([(0, KEYS), (3, KEYS - 1)]):
        for row in range(ROWS):
            for key in range(first, end):
                distance = row + SHIFT - key
                mask[sequence, 0, row, key] = distance >= 0 and (not window or distance < window)
    if dtype == torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)


def plain(value: Tensor) -> Tensor:
    return value.dense() if isinstance(value, CausalMask) else value


def saved_and_loaded(mask: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(mask, file)
    file.seek(0)
    return torch.load(file)


ROW_IS_EVEN = torch.arange(ROWS) % 2 == 0

# What models and users do with masks. `stays`: the result is not written out either.
READS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "last rows": (lambda m: m[:, :, -2:], True),
    "rows and keys": (lambda m: m[:, :, 1:4, :9], True),
    "rows after the last key": (lambda m: m[:, :, 1:4, :5], True),
    "keys from": (lambda m: m[..., 4:], True),
    "no rows": (lambda m: m[:, :, 3:3], True),
    "more rows than there are": (lambda m: m[:, :, -50:], True),
    "one sequence": (lambda m: m[1:], True),
    "expand heads": (lambda m: m.expand(-1, 4, -1, -1), True),
    "expand a batch": (lambda m: m[:1].expand(3, -1, -1, -1), True),
    "narrow": (lambda m: m.narrow(3, 2, 9), True),
    "detach": (lambda m: m.detach(), True),
    "contiguous": (lambda m: m.contiguous(), True),
    "to device": (lambda m: m.to("cpu", non_blocking=True), True),
    "its own dtype": (lambda m: m.to(m.dtype), True),
    "row": (lambda m: m[:, :, 3], False),
    "sequence": (lambda m: m[1], False),
    "every second row": (lambda m: m[:, :, ::2], False),
    "every second key": (lambda m: m[..., ::2], False),
    "flip": (lambda m: m.flip(2), False),
    "list of rows": (lambda m: m[:, :, [1, 3, -1]], False),
    "tensor of rows": (lambda m: m[:, :, torch.tensor([5, 0], dtype=torch.int32)], False),
    "rows by bool": (lambda m: m[:, :, ROW_IS_EVEN], False),
    "list of sequences": (lambda m: m[[1, 0, 1]], False),
    "rows of sequences": (lambda m: m[torch.tensor([0, 1]), :, torch.tensor([2, 3])], False),
    "None": (lambda m: m[None], False),
    "iterate": (lambda m: torch.stack(list(m)), False),
    "expand and reshape": (lambda m: m.expand(-1, 4, -1, -1).reshape(8, ROWS, KEYS), False),
    "cut and reshape": (lambda m: m[..., 1:].reshape(2, -1), False),
    "cut and view": (lambda m: m[..., 1:].contiguous().view(-1), False),
    "strided": (lambda m: (x := m[..., 1:]).as_strided(x.shape, x.stride()), False),
    "index_select": (lambda m: m.index_select(2, torch.tensor([2, 1])), False),
    "gather": (lambda m: m.gather(3, torch.zeros(2, 1, ROWS, 2, dtype=torch.int64)), False),
    "concatenate": (lambda m: torch.cat([m, m[..., :2]], dim=-1), False),
    "concatenate with others": (lambda m: torch.cat([m, m.new_ones(2, 1, ROWS, 1)], -1), False),
    "pad": (lambda m: F.pad(m, (0, 3)), False),
    "pad with True": (lambda m: F.pad(m, (2, 0), value=True), False),
    "to float64": (lambda m: m.double(), False),
    "add a bias": (lambda m: m + torch.arange(KEYS), False),
    "is 0": (lambda m: m == 0, False),
    "to int64": (lambda m: m.to(torch.int64), False),
    "type_as": (lambda m: m.type_as(torch.zeros(1).double()), False),
    "not": (lambda m: m.logical_not(), False),
    "and": (lambda m: m.bool() & (torch.arange(KEYS) % 2 == 0), False),
    "and itself": (lambda m: m.logical_and(m), False),
    "where": (lambda m: torch.where(m.bool(), 0.0, -1e9), False),
    "arithmetic": (lambda m: (1.0 - m.float()) * -1e4, False),
    "masked_fill": (lambda m: torch.zeros(m.shape).masked_fill(m.bool(), -1.0), False),
    "masked_fill of itself": (lambda m: m.masked_fill(torch.arange(KEYS) == 6, 0), False),
    "repeat": (lambda m: m.repeat(1, 3, 1, 1), False),
    "repeat_interleave": (lambda m: m.repeat_interleave(2, dim=0), False),
    "squeeze": (lambda m: m.squeeze(1), False),
    "view": (lambda m: m.view(2, ROWS, KEYS), False),
    "transpose": (lambda m: m.transpose(2, 3), False),
    "flatten": (lambda m: m.flatten(2), False),
    "split": (lambda m: torch.cat(m.split(3, dim=2), dim=2), False),
    "chunk": (lambda m: torch.cat(m.chunk(2, dim=0)), False),
    "roll": (lambda m: m.roll(1, dims=-1), False),
    "tril": (lambda m: m.tril(), False),
    "any": (lambda m: m.any(dim=-1), False),
    "sum": (lambda m: m.sum(dim=-1), False),
    "equal": (lambda m: m == written_out(dtype=m.dtype), False),
    "ones_like": (lambda m: torch.ones_like(m), False),
    "vmap": (lambda m: torch.vmap(lambda x: x.float() * 2)(m), False),
    "item": (lambda m: torch.tensor(m[0, 0, 0, 0].item()), False),
    "tolist": (lambda m: torch.tensor(m.tolist()), False),
    "numpy": (lambda m: torch.from_numpy(m.numpy().copy()), False),
    "dlpack": (lambda m: torch.from_dlpack(m), False),
    "clone": (lambda m: m.clone(), False),
    "deepcopy": (lambda m: copy.deepcopy(m), False),
    "pickle": (lambda m: pickle.loads(pickle.dumps(m)), False),
    "save": (saved_and_loaded, False),
}


DTYPES = [torch.bool, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("name", READS)
def test_reading_equals_reading_the_written_out_mask(name, window, dtype):
    if (name, dtype) == ("numpy", torch.bfloat16):
        pytest.skip("numpy has no bfloat16")
    read, stays = READS[name]
    mask = make(window, dtype)
    got, want = read(mask), read(written_out(window, dtype))
    assert isinstance(got, CausalMask) == stays
    assert (got.shape, got.dtype, got.device) == (want.shape, want.dtype, want.device)
    assert torch.equal(plain(got), want)
    if stays:
        assert got.placements is not None
    assert torch.equal(mask.dense(), written_out(window, dtype))


def write_item(m: Tensor) -> Tensor:
    m[:, :, 2, 3] = False
    return m


def write_through_slice(m: Tensor) -> Tensor:
    rows = m[:, :, 2:]
    rows[..., 0] = False
    return m


def write_before_reading_slice(m: Tensor) -> Tensor:
    rows = m[:, :, 3:]
    m[...] = True
    return rows


def write_through_expanded(m: Tensor) -> Tensor:
    m.expand(-1, 1, -1, -1)[0] = False
    return m


def write_through_row(m: Tensor) -> Tensor:
    m[1].zero_()
    return m[:, :, 3:]


def write_where_masked(m: Tensor) -> Tensor:
    m[m.clone().bool()] = False
    return m


def write_out(m: Tensor) -> Tensor:
    torch.maximum(m, m.flip(3), out=m)
    return m


def write_and(m: Tensor) -> Tensor:
    m *= torch.arange(KEYS) > 4
    return m


def write_to_picked_rows(m: Tensor) -> Tensor:
    picked = m.expand(-1, 4, -1, -1)[:, :, torch.tensor([0, 1])]
    picked[:, 0] = 0
    return picked


WRITES = [
    write_to_picked_rows,
    write_item,
    write_through_slice,
    write_before_reading_slice,
    write_through_expanded,
    write_through_row,
    write_where_masked,
    write_out,
    write_and,
    lambda m: m.logical_not_(),
    lambda m: m.masked_fill_(torch.ones(ROWS, KEYS, dtype=torch.bool).tril(), value=False),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_never_lost(write, dtype):
    got, want = write(make(dtype=dtype)), write(written_out(dtype=dtype))
    assert torch.equal(plain(got), want)
    if isinstance(got, CausalMask):
        assert got.placements is None  # The kernels must not use the old placements.


@pytest.mark.parametrize("name", ["data_ptr", "untyped_storage", "share_memory_"])
def test_memory_of_a_mask_not_written_out_is_refused(name):
    with pytest.raises(NotImplementedError, match=r"the mask is not written out; mask\.clone"):
        getattr(make(), name)()


def test_repr_names_shape_and_first_key():
    assert "shape=(2, 1, 7, 11)" in repr(make())
    assert "first_key=3" in str(make())


def test_sdpa_takes_it():
    q, k = torch.randn(2, 4, ROWS, 16), torch.randn(2, 4, KEYS, 16)
    got = F.scaled_dot_product_attention(q, k, k, make())
    assert torch.equal(got, F.scaled_dot_product_attention(q, k, k, written_out()))
    added = F.scaled_dot_product_attention(q, k, k, make(dtype=torch.float32))
    torch.testing.assert_close(added, got)


# ---- Properties ----------------------------------------------------------------------------------


@st.composite
def slices(draw: st.DrawFn) -> tuple[slice, ...]:
    bound = st.one_of(st.none(), st.integers(-13, 13))
    return tuple(slice(draw(bound), draw(bound)) for _ in range(draw(st.integers(1, 4))))


def write_every_second_key(mask: Tensor) -> Tensor:
    if mask.shape[1] == 1:  # torch does not write to an expanded one.
        mask.masked_fill_(torch.arange(mask.shape[3]) % 2 == 0, False)
    return mask


OPERATIONS = st.one_of(
    slices().map(lambda parts: lambda m: m[parts]),
    st.just(lambda m: m.expand(-1, 3, -1, -1) if m.shape[1] == 1 else m),
    st.just(lambda m: m.detach()),
    st.just(lambda m: m.clone()),
    st.just(lambda m: torch.cat([m, m], dim=2)),
    st.just(lambda m: F.pad(m, (1, 0), value=True)),
    st.just(lambda m: m.logical_not()),
    st.just(write_every_second_key),
)


@given(
    st.integers(0, 5),
    st.lists(OPERATIONS, min_size=1, max_size=5),
    st.booleans(),
)
def test_any_chain_of_operations(window, operations, keep_first):
    """Views of views, and writes through them; the original mask sees the writes."""
    got, want = make(window), written_out(window)
    first, first_want = got, want
    for operation in operations:
        got, want = operation(got), operation(want)
    assert torch.equal(plain(got), want)
    if keep_first:
        assert torch.equal(first.dense(), first_want)


@given(
    seqlen_q=st.integers(1, 9),
    before=st.integers(0, 6),
    capacity=st.integers(0, 5),
    kv_offset=st.integers(0, 3),
    window=st.one_of(st.none(), st.integers(1, 12)),
    padding=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=3),
)
def test_mask_function_means_what_eager_attentions_does(
    seqlen_q, before, capacity, kv_offset, window, padding
):
    """Chunks over a cache that may have dropped its first keys, have free space, or be padded."""
    before = max(before, kv_offset)
    written = before + seqlen_q
    attention_mask = None
    if padding:
        attention_mask = torch.ones(len(padding), written, dtype=torch.bool)
        for sequence, (left, right) in enumerate(padding):
            attention_mask[sequence, :left] = False
            attention_mask[sequence, max(0, written - right) :] = False
    arguments = {
        "batch_size": max(1, len(padding)),
        "q_length": seqlen_q,
        "kv_length": written - kv_offset + capacity,
        "q_offset": before,
        "kv_offset": kv_offset,
        "attention_mask": attention_mask,
    }
    if window is not None:
        arguments["mask_function"] = sliding_window_causal_mask_function(window)
        arguments["local_size"] = window
    want = eager_mask(**arguments, dtype=torch.float16)
    got = integration.minference_mask(**arguments, dtype=torch.float16)
    assert isinstance(got, CausalMask)
    assert torch.equal(got.dense(), want)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_oss", "gemma2"])
def test_rows_after_the_last_key_are_eager(family):
    """Padding on the right, whose logits some users read; it once gave no rows at all."""
    model, ids = tiny_model(family), random_ids(2, 40)
    padding = torch.ones_like(ids)
    padding[0, 35:] = 0
    got = logits_of(model, "minference", ids, attention_mask=padding)
    assert_as_eager(model, got, ids, attention_mask=padding)


@pytest.mark.parametrize("arguments", [{"softcap": 5.0}, {"sinks": torch.zeros(4)}])
def test_one_row_of_a_mask_for_many_rows(arguments):
    q, k = torch.randn(2, 4, 129, 16), torch.randn(2, 4, 300, 16)
    mask = CausalMask([Placement(0, 300, 280, 0)] * 2, 1, 300, "cpu", torch.float32)
    attend = integration.minference_attention_forward
    got, _ = attend(torch.nn.Module(), q, k, k, mask, **arguments)
    want, _ = attend(torch.nn.Module(), q, k, k, mask.dense(), **arguments)
    torch.testing.assert_close(got, want)


def test_rows_after_the_keys_that_are_left_see_them_all():
    """Rows after the last key are usually padding, but not if a model has cut keys off."""
    q, k = torch.randn(1, 4, KEYS, 16), torch.randn(1, 4, 5, 16)
    mask = integration.minference_mask(1, KEYS, KEYS)[..., :5]
    got, _ = integration.minference_attention_forward(torch.nn.Module(), q, k, k, mask)
    want = F.scaled_dot_product_attention(q, k, k, torch.ones(KEYS, 5, dtype=torch.bool).tril())
    torch.testing.assert_close(got.transpose(1, 2), want)


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_mask_that_hides_nothing_is_none(is_causal):
    """Masks of encoders; some models pass one of another size to a cache that drops keys."""
    everything = integration.minference_mask(
        2,
        ROWS,
        KEYS,
        mask_function=bidirectional_mask_function,
        allow_is_causal_skip=False,
        allow_is_bidirectional_skip=True,
        attention_mask=torch.ones(2, KEYS, dtype=torch.bool),
    )
    assert isinstance(everything, CausalMask)
    assert torch.equal(everything.dense(), torch.zeros(2, 1, ROWS, KEYS))
    layer = torch.nn.Module()
    layer.is_causal = is_causal
    for keys in (KEYS, KEYS + 5):
        q, k = torch.randn(2, 4, ROWS, 16), torch.randn(2, 4, keys, 16)
        got, _ = integration.minference_attention_forward(layer, q, k, k, everything[:, :, 2:])
        want = F.scaled_dot_product_attention(q, k, k)
        torch.testing.assert_close(got.transpose(1, 2), want)


@pytest.mark.parametrize("hidden", ["a key", "by a window", "as the mask is too short"])
def test_a_bidirectional_mask_that_hides_something_is_written_out(hidden):
    attention_mask = torch.ones(2, KEYS - (hidden == "as the mask is too short"), dtype=torch.bool)
    arguments = {"mask_function": bidirectional_mask_function}
    if hidden == "a key":
        attention_mask[1, 4] = False
    elif hidden == "by a window":
        window = sliding_window_bidirectional_mask_function(3)
        arguments = {"mask_function": window, "local_size": 3}
    arguments |= {"attention_mask": attention_mask, "allow_is_bidirectional_skip": True}
    got = integration.minference_mask(2, ROWS, KEYS, allow_is_causal_skip=False, **arguments)
    assert not isinstance(got, CausalMask)
    assert torch.equal(got, eager_mask(2, ROWS, KEYS, **arguments))


# ---- In a model ----------------------------------------------------------------------------------


def test_mask_of_three_dimensions_is_refused():
    model, ids = tiny_model("llama"), random_ids(1, 8)
    with pytest.raises(ValueError, match=r"attention_mask: expected \[batch, keys\] or 4 dim"):
        logits_of(model, "minference", ids, attention_mask=torch.ones(1, 8, 8))


def test_generate_hands_masks_back():
    """generate() makes 4D masks for a cache of fixed size; the model takes them unchanged."""
    model, ids = tiny_model("gemma3"), random_ids(2, 40)
    padding = torch.ones_like(ids)
    padding[1, :11] = 0
    mask = integration.minference_mask(2, 40, 40, attention_mask=padding.bool(), device=ids.device)
    with KernelCalls() as kernel:
        got = logits_of(
            model,
            "minference",
            ids,
            attention_mask={"full_attention": mask, "sliding_attention": mask},
        )
    assert len(kernel.calls) == 4  # Two layers, two sequences each.
    additive_mask = mask.dense()
    assert_as_eager(
        model,
        got,
        ids,
        rows=padding.bool(),
        attention_mask={"full_attention": additive_mask, "sliding_attention": additive_mask},
    )


@pytest.mark.skipif(
    not hasattr(transformers, "Gemma4TextConfig"), reason="this transformers has no Gemma 4"
)
def test_last_rows_stay_with_the_kernels():
    """Gemma 4's last layers only see the rows whose logits are asked for."""
    config = transformers.Gemma4TextConfig(
        **{**COMMON, "num_hidden_layers": 4, "initializer_range": 0.2},
        global_head_dim=32,
        vocab_size_per_layer_input=97,
        hidden_size_per_layer_input=8,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
    )
    torch.manual_seed(0)
    model, ids = transformers.Gemma4ForCausalLM(config).eval(), random_ids(2, 70)
    padding = torch.ones_like(ids)
    padding[1, :33] = 0
    calls = [
        {"logits_to_keep": 1},
        {"logits_to_keep": 1, "attention_mask": padding},
        {"logits_to_keep": 3},
    ]
    for inputs in calls:
        with torch.no_grad():
            model.set_attn_implementation("eager")
            want = model(ids, use_cache=True, **inputs).logits
            minference.set_patterns(model, minference.Dense())
            with KernelCalls() as kernel:
                got = model(ids, use_cache=True, **inputs).logits
        assert {q[1] for q, _, _ in kernel.calls} >= {inputs["logits_to_keep"]}
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * want.abs().max().item())
