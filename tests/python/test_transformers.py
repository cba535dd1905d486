# SPDX-License-Identifier: Apache-2.0
"""attn_implementation="minference" against the model's own eager attention, on tiny models."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import minference
import pytest
import torch
from families import (
    COMMON,
    FAMILIES,
    HEAD_DIM,
    NUM_HEADS,
    NUM_HEADS_KV,
    NUM_LAYERS,
    VOCAB,
    KernelCalls,
    additive,
    assert_as_eager,
    cache_argument,
    logits_of,
    random_ids,
    row,
    tiny_model,
)
from hypothesis import given
from hypothesis import strategies as st
from reference import a_shape_mask, dense_mask, tri_shape_mask
from torch import Tensor

transformers = pytest.importorskip("transformers")
integration = pytest.importorskip("minference.integrations.transformers")

# ---- Every family, dense -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_these_models_notice_a_wrong_mask(family):
    """Control for assert_as_eager: hiding one key from the last rows moves their logits."""
    model, ids = tiny_model(family), random_ids(1, 100)
    hidden = dense_mask(100, 100).clone()
    hidden[95:, 94] = False
    want = logits_of(model, "eager", ids, attention_mask=additive(dense_mask(100, 100))[None, None])
    got = logits_of(model, "eager", ids, attention_mask=additive(hidden)[None, None])
    assert (got - want)[:, 95:].abs().max() > 1e-2 * want.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_is_eager(family):
    model, ids = tiny_model(family), random_ids(2, 100)
    with KernelCalls() as kernel:
        got = logits_of(model, "minference", ids)
    assert_as_eager(model, got, ids)

    dense, window = [row(0)], [row(1, 0, 24)]
    patterns = {
        "mistral": [window, window],
        "gemma2": [],  # softcap: the model uses its eager function.
        "gemma3": [window, dense],
        "gpt_oss": [window, dense],
    }.get(family, [dense, dense])
    q_shape, k_shape = (2, 100, NUM_HEADS, HEAD_DIM), (2, 100, NUM_HEADS_KV, HEAD_DIM)
    if family == "deepseek_v3":
        q_shape = k_shape = (2, 100, NUM_HEADS, 24)
    assert kernel.calls == [(q_shape, k_shape, pattern) for pattern in patterns]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_is_eager(family, side):
    model, ids = tiny_model(family), random_ids(3, 90)
    mask = torch.ones_like(ids)
    for sequence, padding in enumerate([0, 50, 89]):
        mask[sequence, slice(0, padding) if side == "left" else slice(90 - padding, 90)] = 0
    got = logits_of(model, "minference", ids, attention_mask=mask)
    assert got.isfinite().all()
    assert_as_eager(model, got, ids, rows=mask.bool(), attention_mask=mask)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunks", [[100], [70, 30], [1, 98, 1], [20] * 5])
def test_chunked_prefill_is_eager(family, chunks):
    model, ids = tiny_model(family), random_ids(2, 100)
    model.set_attn_implementation("minference")
    cache = cache_argument(model, transformers.DynamicCache(config=model.config))
    with torch.no_grad():
        got = [model(part, use_cache=True, **cache).logits for part in ids.split(chunks, dim=1)]
    assert_as_eager(model, torch.cat(got, dim=1), ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_static_cache_is_eager(family):
    """The cache passes its whole capacity; what lies past the rows must not be attended."""
    model, ids = tiny_model(family), random_ids(2, 100)
    model.set_attn_implementation("minference")
    cache = transformers.StaticCache(config=model.config, max_cache_len=160)
    cache = cache_argument(model, cache)
    with torch.no_grad():
        got = [
            model(part, use_cache=True, **cache).logits for part in ids.split([70, 29, 1], dim=1)
        ]
    assert_as_eager(model, torch.cat(got, dim=1), ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_from_a_left_padded_batch_is_eager(family, cache):
    model, ids = tiny_model(family), random_ids(2, 60)
    mask = torch.ones_like(ids)
    mask[1, :33] = 0
    steps = {}
    for attn in ("eager", "minference"):
        model.set_attn_implementation(attn)
        steps[attn] = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=6,
            do_sample=False,
            disable_compile=True,
            cache_implementation=cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert torch.equal(steps["minference"].sequences, steps["eager"].sequences)
    want = torch.stack(steps["eager"].logits)
    got = torch.stack(steps["minference"].logits)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * want.abs().max().item())


# ---- Masks that no kernel has --------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_users_own_4d_mask_is_honoured(family, dtype):
    model, ids = tiny_model(family), random_ids(1, 80)
    visible = a_shape_mask(80, 80, sink=3, window=20)[None, None]
    mask = additive(visible)
    given = visible if dtype is torch.bool else mask
    with KernelCalls() as kernel:
        got = logits_of(model, "minference", ids, attention_mask=given)
    assert kernel.calls == []
    assert_as_eager(model, got, ids, attention_mask=mask)


def test_padding_with_holes_is_honoured():
    model, ids = tiny_model("llama"), random_ids(2, 80)
    mask = torch.ones_like(ids)
    mask[1, 30:40] = 0
    got = logits_of(model, "minference", ids, attention_mask=mask)
    assert_as_eager(model, got, ids, rows=mask.bool(), attention_mask=mask)


def test_packed_sequences_do_not_see_each_other():
    model, ids = tiny_model("llama"), random_ids(1, 90)
    position_ids = torch.cat([torch.arange(40), torch.arange(50)])[None]
    got = logits_of(model, "minference", ids, position_ids=position_ids)
    assert_as_eager(model, got, ids, position_ids=position_ids)
    assert_as_eager(model, got[:, 40:], ids[:, 40:])


def test_chunked_attention_is_eager():
    """Llama 4: a local mask that is not a sliding window."""
    config = transformers.Llama4TextConfig(
        **{**COMMON, "intermediate_size_mlp": 48, "num_local_experts": 2, "moe_layers": []},
        attention_chunk_size=32,
        layer_types=["chunked_attention", "full_attention"],
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model, ids = transformers.Llama4ForCausalLM(config).eval(), random_ids(2, 100)
    with KernelCalls() as kernel:
        got = logits_of(model, "minference", ids)
    assert len(kernel.calls) == 1  # The one layer with full attention.
    assert_as_eager(model, got, ids)


def test_bidirectional_model_is_eager():
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model, ids = transformers.BertModel(config, add_pooling_layer=False).eval(), random_ids(2, 70)
    mask = torch.ones_like(ids)
    mask[1, 50:] = 0
    with torch.no_grad():
        for attention_mask in (None, mask):
            model.set_attn_implementation("eager")
            want = model(ids, attention_mask=attention_mask).last_hidden_state
            model.set_attn_implementation("minference")
            got = model(ids, attention_mask=attention_mask).last_hidden_state
            torch.testing.assert_close(got[mask.bool()], want[mask.bool()])


# ---- Patterns ------------------------------------------------------------------------------------

HEAD_PATTERNS = [
    minference.Dense(),
    minference.AShape(4, 20),
    minference.TriShape(2, 16, 7),
    minference.AShape(0, 33),
]


def head_masks(seqlen: int) -> Tensor:
    """The masks of HEAD_PATTERNS, bool ``[num_heads, seqlen, seqlen]``."""
    return torch.stack(
        [
            dense_mask(seqlen, seqlen),
            a_shape_mask(seqlen, seqlen, 4, 20),
            tri_shape_mask(seqlen, seqlen, 2, 16, 7),
            a_shape_mask(seqlen, seqlen, 0, 33),
        ]
    )


@pytest.mark.parametrize("family", ["llama", "qwen3", "deepseek_v3"])
def test_each_head_attends_its_pattern(family):
    model, ids = tiny_model(family), random_ids(2, 110)
    config = minference.set_patterns(model, HEAD_PATTERNS, min_seqlen=1)
    assert config.layers == (tuple(HEAD_PATTERNS),) * NUM_LAYERS
    got = logits_of(model, "minference", ids)
    assert_as_eager(model, got, ids, attention_mask=additive(head_masks(110))[None])


def test_each_layer_has_its_patterns():
    model, ids = tiny_model("llama"), random_ids(1, 80)
    first, second = minference.AShape(1, 5), minference.VerticalSlash(40, 110)
    minference.set_patterns(
        model, minference.HeadConfig(((first,) * 4, (second,) * 4)), min_seqlen=1
    )
    with KernelCalls() as kernel:
        logits_of(model, "minference", ids)
    assert [patterns for _, _, patterns in kernel.calls] == [
        [row(1, 1, 5)] * 4,
        [row(2, 40, 110, 64, 30, 100, 1, 1)] * 4,
    ]


def test_patterns_of_a_padded_sequence_start_where_it_starts():
    model, ids = tiny_model("llama"), random_ids(2, 120)
    minference.set_patterns(model, HEAD_PATTERNS, min_seqlen=1)
    padding = torch.ones_like(ids)
    padding[1, :37] = 0
    got = logits_of(model, "minference", ids, attention_mask=padding)

    visible = torch.zeros(2, NUM_HEADS, 120, 120, dtype=torch.bool)
    visible[0] = head_masks(120)
    visible[1, :, 37:, 37:] = head_masks(83)
    position_ids = (padding.cumsum(dim=1) - 1).clamp(min=0)
    moved = logits_of(model, "minference", ids, attention_mask=padding, position_ids=position_ids)
    assert_as_eager(model, got, ids, rows=padding.bool(), attention_mask=additive(visible))
    assert_as_eager(
        model,
        moved,
        ids,
        rows=padding.bool(),
        attention_mask=additive(visible),
        position_ids=position_ids,
    )


def test_sliding_window_wins_over_patterns():
    model, ids = tiny_model("gemma3"), random_ids(1, 100)
    minference.set_patterns(model, minference.AShape(4, 40), min_seqlen=1)
    with KernelCalls() as kernel:
        logits_of(model, "minference", ids)
    assert [patterns[0] for _, _, patterns in kernel.calls] == [row(1, 0, 24), row(1, 4, 40)]


@pytest.mark.parametrize(
    ("seqlen", "min_seqlen", "is_sparse"), [(64, 64, True), (64, 65, False), (63, 1, False)]
)
def test_short_calls_are_dense(seqlen, min_seqlen, is_sparse):
    model = tiny_model("llama")
    minference.set_patterns(model, minference.AShape(1, 3), min_seqlen=min_seqlen)
    with KernelCalls() as kernel:
        logits_of(model, "minference", random_ids(1, seqlen))
    pattern = row(1, 1, 3) if is_sparse else row(0)
    assert {tuple(patterns[0]) for _, _, patterns in kernel.calls} == {tuple(pattern)}


def test_decoding_after_a_sparse_prefill_is_dense():
    model, ids = tiny_model("llama"), random_ids(1, 80)
    minference.set_patterns(model, minference.AShape(1, 3), min_seqlen=1)
    with KernelCalls() as kernel:
        model.generate(ids, max_new_tokens=3, do_sample=False)
    rows_and_kind = [(q[1], patterns[0][0]) for q, _, patterns in kernel.calls]
    assert rows_and_kind == [(80, 1)] * 2 + [(1, 0)] * 4


def test_default_threshold_keeps_short_prompts_dense():
    model, ids = tiny_model("llama"), random_ids(1, 128)
    minference.set_patterns(model, minference.AShape(1, 3))
    assert_as_eager(model, logits_of(model, "minference", ids), ids)


def test_patterns_may_come_from_a_file(tmp_path):
    config = minference.HeadConfig((tuple(HEAD_PATTERNS),) * NUM_LAYERS)
    minference.save_config(config, tmp_path / "patterns.json")
    assert minference.set_patterns(tiny_model("llama"), tmp_path / "patterns.json") == config


def test_falling_back_to_dense_warns():
    model, ids = tiny_model("llama"), random_ids(1, 80)
    minference.set_patterns(model, minference.AShape(1, 3), min_seqlen=1)
    with pytest.warns(UserWarning, match="LlamaAttention runs dense"):
        got = logits_of(model, "minference", ids, attention_mask=dense_mask(80, 80)[None, None])
    assert_as_eager(model, got, ids)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (((minference.Dense(),) * 4,) * 3, "patterns: expected the model's 2 layers, got 3"),
        (
            ((minference.Dense(),) * 4, (minference.Dense(),) * 3),
            "patterns: layer 1, head 3: missing; the model has 4 heads",
        ),
        (
            ((minference.Dense(),) * 5, (minference.Dense(),) * 4),
            "patterns: layer 0, head 4: the model has only 4 heads",
        ),
    ],
)
def test_patterns_that_do_not_fit_are_refused(layers, message):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match=message):
        minference.set_patterns(model, minference.HeadConfig(layers))
    assert model.config._attn_implementation == "eager"


def test_file_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "yi.json"
    minference.save_config(minference.HeadConfig(((minference.Dense(),) * 4,)), path)
    with pytest.raises(ValueError, match=r"yi\.json: expected the model's 2 layers, got 1"):
        minference.set_patterns(tiny_model("llama"), path)


# ---- Registration and refusals -------------------------------------------------------------------


def test_name_is_known_to_transformers():
    config = tiny_model("llama").config
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="minference")
    assert model.config._attn_implementation == "minference"
    with KernelCalls() as kernel, torch.no_grad():
        model(random_ids(1, 10))
    assert len(kernel.calls) == NUM_LAYERS


def test_model_without_causal_attention_is_refused():
    config = transformers.BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4)
    with pytest.raises(NotImplementedError, match="BertModel: expected causal attention layers"):
        minference.set_patterns(transformers.BertModel(config), minference.Dense())


def test_dropout_is_refused():
    model = tiny_model("llama", attention_dropout=0.1).train()
    model.set_attn_implementation("minference")
    with pytest.raises(NotImplementedError, match=r"dropout: expected 0, got 0\.1"):
        model(random_ids(1, 10))


def test_backward_is_refused():
    model = tiny_model("llama")
    model.set_attn_implementation("minference")
    loss = model(random_ids(1, 10), labels=random_ids(1, 10)).loss
    with pytest.raises(NotImplementedError, match="prefill_attn has no backward"):
        loss.backward()


def test_foreign_2d_mask_is_refused():
    q = torch.randn(1, 4, 8, 16)
    with pytest.raises(ValueError, match="attention_mask: expected 4 dimensions, got 2"):
        integration.minference_attention_forward(
            torch.nn.Module(), q, q, q, torch.ones(1, 8, dtype=torch.bool)
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:minference. LlamaAttention runs dense")
@pytest.mark.parametrize("use_cache", [True, False])
def test_compiled_prefill_is_one_graph(use_cache):
    """Without a cache transformers cannot tell, while tracing, that the prompt is not packed."""
    torch.compiler.reset()
    model, ids = tiny_model("llama"), random_ids(1, 110)
    minference.set_patterns(model, HEAD_PATTERNS, min_seqlen=1)

    def forward(ids: Tensor) -> Tensor:
        return model(ids, use_cache=use_cache).logits

    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        got = compiled(ids)
    visible = head_masks(110) if use_cache else dense_mask(110, 110)[None]
    assert_as_eager(model, got, ids, attention_mask=additive(visible)[None])


# ---- All of it together --------------------------------------------------------------------------


@functools.cache
def model_of(family: str, window: int) -> Any:
    overrides = {"sliding_window": window} if "sliding_window" in FAMILIES[family][1] else {}
    return tiny_model(family, **overrides)


@given(
    family=st.sampled_from(list(FAMILIES)),
    window=st.integers(2, 90),  # A window of one key: the test below.
    cuts=st.lists(st.integers(1, 79), max_size=4),
    padding=st.lists(st.integers(0, 79), min_size=1, max_size=3),
    cache=st.sampled_from(["dynamic", "static"]),
    capacity=st.integers(80, 120),
)
def test_any_padding_in_any_chunks_over_any_cache(family, window, cuts, padding, cache, capacity):
    """Left padding, as in a batch that will be continued; windows from two keys to all."""
    model = model_of(family, window)
    ids = random_ids(len(padding), 80)
    mask = torch.ones_like(ids)
    for sequence, count in enumerate(padding):
        mask[sequence, :count] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    model.set_attn_implementation("minference")
    kinds = {
        "dynamic": lambda: transformers.DynamicCache(config=model.config),
        "static": lambda: transformers.StaticCache(config=model.config, max_cache_len=capacity),
    }
    held = cache_argument(model, kinds[cache]())
    bounds = sorted({0, 80, *cuts})
    with torch.no_grad():
        got = [
            model(
                ids[:, begin:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, begin:end],
                use_cache=True,
                **held,
            ).logits
            for begin, end in itertools.pairwise(bounds)
        ]
    assert_as_eager(
        model,
        torch.cat(got, dim=1),
        ids,
        rows=mask.bool(),
        attention_mask=mask,
        position_ids=positions,
    )


def test_a_window_of_one_key_over_a_cache_is_refused():
    """A DynamicCache keeps the last `window - 1` keys as `keys[-window + 1:]`: all of them,
    where it means none. So it passes more keys than its mask has, and eager raises too."""
    model = model_of("mistral", 1)
    ids = random_ids(1, 80)
    for implementation, error in [("eager", RuntimeError), ("minference", ValueError)]:
        model.set_attn_implementation(implementation)
        held = cache_argument(model, transformers.DynamicCache(config=model.config))
        with torch.no_grad():
            model(ids[:, :1], use_cache=True, **held)
            with pytest.raises(error):
                model(ids[:, 1:], use_cache=True, **held)
