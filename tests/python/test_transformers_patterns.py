# SPDX-License-Identifier: Apache-2.0
"""set_patterns: layers report how many heads they have and where; patterns are checked."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import minference
import pytest
import torch
from families import (
    COMMON,
    NUM_HEADS,
    NUM_LAYERS,
    KernelCalls,
    additive,
    assert_as_eager,
    logits_of,
    random_ids,
    row,
    tiny_model,
    transformers,
)
from minference import AShape, BlockSparse, Dense, HeadConfig, TriShape, VerticalSlash
from reference import a_shape_mask
from torch import Tensor, nn

pytest.importorskip("minference.integrations.transformers")

SPARSE = AShape(4, 20)
SEQ2SEQ = {
    "vocab_size": 97,
    "d_model": 64,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "init_std": 0.3,
}
TWO_LAYERS = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}


def build(name: str, config: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, config)(**arguments)).eval()


@torch.no_grad()
def assert_logits_as_eager(
    model: Any, switch: Callable[[Any], object], rows: Tensor | None = None, **inputs: Any
) -> None:
    model.set_attn_implementation("eager")
    want = model(**inputs).logits
    switch(model)
    got = model(**inputs).logits
    if rows is not None:
        got, want = got[rows], want[rows]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * want.abs().max().item())


def to_dense_patterns(model: Any) -> HeadConfig:
    return minference.set_patterns(model, Dense())


# ---- Encoder-decoders ----------------------------------------------------------------------------

LAYERS_AND_HEADS = [(2, 3, 4, 4), (3, 2, 2, 4), (1, 4, 8, 2)]


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "encoder_heads", "decoder_heads"), LAYERS_AND_HEADS
)
def test_layers_of_a_decoder_are_counted_by_themselves(
    encoder_layers, decoder_layers, encoder_heads, decoder_heads
):
    model = build(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        **SEQ2SEQ,
        max_source_positions=50,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=encoder_heads,
        decoder_attention_heads=decoder_heads,
    )
    inputs = {"input_features": torch.randn(2, 80, 100), "decoder_input_ids": random_ids(2, 100)}
    assert_logits_as_eager(model, to_dense_patterns, **inputs)
    config = to_dense_patterns(model)
    assert config.layers == ((Dense(),) * decoder_heads,) * decoder_layers

    heads = [AShape(1, 5 + head) for head in range(decoder_heads)]
    layers = tuple(
        tuple(AShape(layer, pattern.window) for pattern in heads) for layer in range(decoder_layers)
    )
    minference.set_patterns(model, HeadConfig(layers), min_seqlen=1)
    with KernelCalls() as kernel, torch.no_grad():
        model(**inputs)
    assert [patterns for _, _, patterns in kernel.calls] == [
        [list(pattern.row) for pattern in layer] for layer in layers
    ]


def test_by_name_alone_a_decoder_that_says_it_is_not_causal_is_served():
    """PEGASUS-X leaves it to the mask; without one its decoder once saw the future."""
    model = build(
        "PegasusXForConditionalGeneration",
        "PegasusXConfig",
        **SEQ2SEQ,
        **TWO_LAYERS,
    )
    ids = random_ids(2, 70)
    padding = torch.ones_like(ids)
    padding[1, :33] = 0
    for inputs in ({}, {"attention_mask": padding}, {"decoder_attention_mask": padding}):
        rows = inputs.get("decoder_attention_mask", torch.ones_like(ids)).bool()
        by_name = operator.methodcaller("set_attn_implementation", "minference")
        inputs = {**inputs, "input_ids": ids, "decoder_input_ids": ids}
        assert_logits_as_eager(model, by_name, rows, **inputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_family_that_computes_attention_itself_is_right_and_says_so():
    """transformers accepts the name for it too; when traced, it must not get None (no mask)."""
    config = transformers.BloomConfig(
        vocab_size=97, hidden_size=64, n_layer=2, n_head=4, initializer_range=0.3
    )
    torch.manual_seed(0)
    model = transformers.BloomForCausalLM._from_config(config, attn_implementation="minference")
    model.eval()
    ids = random_ids(2, 70)
    warns = pytest.warns(UserWarning, match="models of a BloomConfig may compute attention them")
    with torch.no_grad():
        with warns:
            got = model(ids, use_cache=True).logits
        with warns:
            compiled = torch.compile(model, backend="eager")(ids, use_cache=True).logits
        config._attn_implementation = "eager"
        model.config._attn_implementation = "eager"
        want = model(ids, use_cache=True).logits
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(compiled, want)
    with pytest.raises(NotImplementedError, match="BloomForCausalLM: expected causal attention"):
        minference.set_patterns(model, SPARSE)


def test_encoder_with_padding_is_eager():
    model = build(
        "BartForConditionalGeneration",
        "BartConfig",
        **SEQ2SEQ,
        **TWO_LAYERS,
    )
    ids = random_ids(2, 70)
    padding = torch.ones_like(ids)
    padding[1, 50:] = 0
    inputs = {"input_ids": ids, "attention_mask": padding, "decoder_input_ids": ids}
    assert_logits_as_eager(model, to_dense_patterns, **inputs)


# ---- Layers that differ, and layers without attention --------------------------------------------


def test_layers_may_differ_in_their_heads():
    """A pruned model, whose config only knows the first layer."""
    model, ids = tiny_model("llama"), random_ids(1, 80)
    attention = model.model.layers[1].self_attn
    for name in ("q_proj", "k_proj", "v_proj"):
        linear = getattr(attention, name)
        linear.out_features //= 2
        linear.weight = nn.Parameter(linear.weight[: linear.out_features].clone())
    attention.o_proj.in_features //= 2
    attention.o_proj.weight = nn.Parameter(attention.o_proj.weight[:, :32].clone())

    config = minference.set_patterns(model, SPARSE, min_seqlen=1)
    assert [len(layer) for layer in config.layers] == [NUM_HEADS, NUM_HEADS // 2]
    got = logits_of(model, "minference", ids)
    mask = additive(a_shape_mask(80, 80, 4, 20))[None, None]
    assert_as_eager(model, got, ids, attention_mask=mask)

    with pytest.raises(ValueError, match="layer 1, head 2: the model has only 2 heads"):
        minference.set_patterns(model, [SPARSE] * NUM_HEADS)
    layers = ((SPARSE,) * 4, (Dense(), SPARSE))
    assert minference.set_patterns(model, HeadConfig(layers)).layers == layers


def make_hybrid() -> Any:
    """Only two of four layers have attention."""
    kinds = ["linear_attention", "full_attention"] * 2
    return build(
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        **{**COMMON, "num_hidden_layers": 4, "layer_types": kinds},
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        decoder_sparse_step=5,
    )


def test_config_counts_layers_without_attention():
    model, ids = make_hybrid(), random_ids(1, 80)
    config = minference.set_patterns(model, SPARSE, min_seqlen=1)
    assert [len(layer) for layer in config.layers] == [NUM_HEADS] * 4
    layers = tuple((AShape(layer, 9),) * NUM_HEADS for layer in range(4))
    minference.set_patterns(model, HeadConfig(layers), min_seqlen=1)
    with KernelCalls() as kernel:
        logits_of(model, "minference", ids)
    assert [patterns[0] for _, _, patterns in kernel.calls] == [row(1, 1, 9), row(1, 3, 9)]
    with pytest.raises(ValueError, match="expected the model's 4 layers, got 2"):
        minference.set_patterns(model, HeadConfig(layers[:2]))


class Pair(nn.Module):
    """A model and a smaller one, as for drafts or speech."""

    def __init__(self) -> None:
        super().__init__()
        self.large = tiny_model("llama")
        self.small = tiny_model("qwen3", num_hidden_layers=1, num_attention_heads=2)


def test_several_decoders_share_one_pattern():
    pair, ids = Pair(), random_ids(1, 80)
    config = minference.set_patterns(pair, SPARSE, min_seqlen=1)
    assert [len(layer) for layer in config.layers] == [4, 4, 2]
    mask = additive(a_shape_mask(80, 80, 4, 20))[None, None]
    for model in (pair.large, pair.small):
        got = logits_of(model, "minference", ids)
        assert_as_eager(model, got, ids, attention_mask=mask)


@pytest.mark.parametrize("patterns", [[SPARSE] * 4, HeadConfig(((SPARSE,) * 4,) * 2)])
def test_patterns_that_do_not_fit_several_decoders_are_refused(patterns):
    pair = Pair()
    message = (
        r"the model has several decoders: large.model.layers \(2 layers\), small.model.layers"
        r" \(1 layers\); pass the part of the model"
    )
    with pytest.raises(ValueError, match=message):
        minference.set_patterns(pair, patterns)
    assert minference.set_patterns(pair.large, patterns).layers == ((SPARSE,) * 4,) * 2
    assert pair.small.config._attn_implementation == "eager"


# ---- What holds a model --------------------------------------------------------------------------


def wrapped_in_peft(model: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        nn.Sequential,
        lambda model: nn.ModuleDict({"deep": nn.ModuleDict({"er": model})}),
        lambda model: torch.compile(model, backend="eager"),
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
        wrapped_in_peft,
    ],
    ids=["DataParallel", "Sequential", "nested", "compiled", "compiled DataParallel", "PEFT"],
)
def test_a_module_that_holds_a_model(wrap):
    model, ids = tiny_model("llama"), random_ids(1, 80)
    wrapped = wrap(model)
    config = minference.set_patterns(wrapped, SPARSE, min_seqlen=1)
    assert config.layers == ((SPARSE,) * NUM_HEADS,) * NUM_LAYERS
    got = logits_of(model, "minference", ids)
    mask = additive(a_shape_mask(80, 80, 4, 20))[None, None]
    assert_as_eager(model, got, ids, attention_mask=mask)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "model: expected a transformers model, got Linear, which holds none"),
        ("llama", "model: expected a transformers model, got str"),
        (None, "model: expected a transformers model, got NoneType"),
    ],
)
def test_what_holds_no_model_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        minference.set_patterns(model, SPARSE)


# ---- Checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (AShape(-1, 3), "a_shape.*sink >= 0, got -1"),
        (AShape(0, -3), "a_shape.*window >= 0, got -3"),
        (BlockSparse(0), "block_sparse.*top_k >= 1, got 0"),
        (VerticalSlash(-1, 5), "vertical_slash.*got -1"),
        (TriShape(1, 1, -1), "tri_shape.*got -1"),
        (AShape(1, 2**31), "head 0: expected sizes that are int32"),
        (AShape(1, 2.5), "head 0: expected sizes that are int32"),
        ([Dense()] * 3 + [BlockSparse(0)], r"patterns\[3\] .block_sparse.*got 0"),
        ([Dense()] * 3 + [None], "layer 0: expected a sequence of patterns"),
        ([], "layer 0, head 0: missing"),
        (3, "layer 0: expected a sequence of patterns"),
        (None, "layer 0: expected a sequence of patterns"),
        (HeadConfig(((Dense(),) * 4, (AShape(-7, 1),) * 4)), "sink >= 0, got -7"),
    ],
)
def test_patterns_are_checked_when_they_are_set(patterns, message):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match=message):
        minference.set_patterns(model, patterns)
    assert model.config._attn_implementation == "eager"
    assert not any(hasattr(module, "minference_patterns") for module in model.modules())


@pytest.mark.parametrize("min_seqlen", [-1, 1.5, "64"])
def test_min_seqlen_is_checked(min_seqlen):
    with pytest.raises(ValueError, match="min_seqlen: expected keys from 0 on, got"):
        minference.set_patterns(tiny_model("llama"), SPARSE, min_seqlen=min_seqlen)


def test_a_model_that_does_not_follow_is_left_as_it_was(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda _: False))
    with pytest.raises(NotImplementedError, match="LlamaForCausalLM does not let its attention be"):
        minference.set_patterns(model, SPARSE)
    assert model.config._attn_implementation == "eager"


def test_models_beside_one_that_refuses_are_left_as_they_were(monkeypatch):
    pair = Pair()
    pair.large.set_attn_implementation("sdpa")

    def refuse(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(pair.small, "set_attn_implementation", refuse)
    with pytest.raises(ValueError, match="minference"):
        minference.set_patterns(pair, SPARSE)
    assert pair.large.config._attn_implementation == "sdpa"
    assert pair.small.config._attn_implementation == "eager"


def test_dense_patterns_never_warn():
    model, ids = tiny_model("llama"), random_ids(1, 80)
    minference.set_patterns(model, Dense(), min_seqlen=1)
    mask = a_shape_mask(80, 80, 4, 20)[None, None]
    got = logits_of(model, "minference", ids, attention_mask=mask)
    assert_as_eager(model, got, ids, attention_mask=additive(mask))
