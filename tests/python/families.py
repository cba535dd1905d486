# SPDX-License-Identifier: Apache-2.0
"""Hand-made tiny models of a few families, and how their logits are compared with eager's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

transformers = pytest.importorskip("transformers")

NUM_LAYERS, NUM_HEADS, NUM_HEADS_KV, HEAD_DIM, VOCAB = 2, 4, 2, 16, 97

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": NUM_HEADS * HEAD_DIM,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": NUM_HEADS,
    "num_key_value_heads": NUM_HEADS_KV,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # Makes attention matter: at 0.02 all logits of a row are alike.
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
LAYER_TYPES = ["sliding_attention", "full_attention"]
FAMILIES = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": 24}),
    "gemma2": ("Gemma2", {"sliding_window": 24, "layer_types": LAYER_TYPES}),
    "gemma3": ("Gemma3Text", {"sliding_window": 24, "layer_types": LAYER_TYPES}),
    "deepseek_v3": (  # Head dims 24 and 16, of keys and of values.
        "DeepseekV3",
        {
            "num_key_value_heads": NUM_HEADS,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": HEAD_DIM,
            "qk_rope_head_dim": 8,
            "head_dim": 8,
            "v_head_dim": HEAD_DIM,
            "first_k_dense_replace": NUM_LAYERS,
        },
    ),
    "gpt_oss": (
        "GptOss",
        {
            "sliding_window": 24,
            "layer_types": LAYER_TYPES,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
        },
    ),
}
CAUSAL_LM = {"gemma3": "Gemma3ForCausalLM"}


def tiny_model(family: str, **overrides: Any) -> Any:
    name, extra = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**COMMON, **extra, **overrides})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, CAUSAL_LM.get(family, f"{name}ForCausalLM"))(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model


def additive(visible: Tensor) -> Tensor:
    """The mask that eager attention adds, from a bool mask."""
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)


def random_ids(batch: int, seqlen: int) -> Tensor:
    return torch.randint(1, VOCAB, (batch, seqlen), generator=torch.Generator().manual_seed(1))


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """The cache as a keyword argument of the model; transformers 5.24 changed the name."""
    parameters = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": cache}


@torch.no_grad()
def logits_of(model: Any, attn: str, ids: Tensor, **inputs: Any) -> Tensor:
    model.set_attn_implementation(attn)
    return model(ids, use_cache=False, **inputs).logits


def assert_as_eager(
    model: Any, got: Tensor, ids: Tensor, rows: Tensor | None = None, **inputs: Any
) -> None:
    """Check that ``got`` is what eager computes, up to the float32 rounding of two layers.

    The tolerance, 1e-4 of the largest logit, is 1700 of its roundings. A key too many or too few
    moves logits by 100 times as much: test_these_models_notice_a_wrong_mask.
    """
    want = logits_of(model, "eager", ids, **inputs)
    rows = torch.ones(ids.shape, dtype=torch.bool) if rows is None else rows
    largest = want[rows].abs().max().item()
    torch.testing.assert_close(got[rows], want[rows], rtol=0, atol=1e-4 * largest)


def row(*numbers: float) -> list[float]:
    """A row of the tensor of patterns: these numbers, then zeros."""
    return [*numbers, *[0] * (8 - len(numbers))]


class KernelCalls(TorchDispatchMode):
    """Records q, k and the patterns of every call of the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Size, torch.Size, list[list[float]]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.minference.prefill_attn.default:
            q, k, _, patterns = args
            self.calls.append((q.shape, k.shape, patterns.tolist()))
        return func(*args, **(kwargs or {}))
