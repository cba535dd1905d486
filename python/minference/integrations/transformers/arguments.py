# SPDX-License-Identifier: Apache-2.0
"""Keyword arguments of an attention call: what each means here, or why the call is refused.

Models hand their attention function whatever their authors thought of, and the functions that
transformers has take ``**kwargs`` and drop what they do not know. A sink, a bias or a list of keys
that is dropped gives a wrong result that looks right. So every name is in one of these lists, and
one in none of them is refused. None says nothing, under any name.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

__all__ = ["fits", "read_sinks", "refuse_unknown"]

ROUTING = "it concerns the layers around attention"
POSITIONS = "rotary embeddings and the mask are made of it before"
CACHE = "keys and values have been put into the cache before"
GENERATION = "an option of generate(), which some models hand on to their encoder"
OUTPUTS = "says what the model returns, not what attention computes"

# Each of these may be ignored, for the reason given.
HARMLESS: dict[str, str] = {
    "bos_token_id": GENERATION,
    "cache_implementation": GENERATION,
    "cache_position": POSITIONS,
    "deterministic": "these kernels always are",
    "disable_compile": GENERATION,
    "do_sample": GENERATION,
    "eos_token_id": GENERATION,
    "labels": "it concerns the loss",
    "logits_to_keep": OUTPUTS,
    "max_length": GENERATION,
    "max_length_k": "a bound of cu_seq_lens_k, which is refused",
    "max_length_q": "a bound of cu_seq_lens_q, which is refused",
    "max_new_tokens": GENERATION,
    "min_length": GENERATION,
    "min_new_tokens": GENERATION,
    "num_beams": GENERATION,
    "num_items_in_batch": "it concerns the loss",
    "output_hidden_states": OUTPUTS,
    "output_logits": GENERATION,
    "output_router_logits": ROUTING,
    "output_scores": GENERATION,
    "pad_token_id": GENERATION,
    "position_ids": POSITIONS,
    "return_dict": OUTPUTS,
    "return_dict_in_generate": GENERATION,
    "sliding_window": "the mask has it",
    "use_cache": CACHE,
}

PACKED = (
    "packed sequences are told by position_ids that start anew in each; leave out the arguments"
    " made for FlashAttention"
)
REFUSED: dict[str, str] = {
    "block_table": "paged caches are not supported",
    "cache": "caches of continuous batching are not supported; generate without it",
    "cu_seq_lens_k": PACKED,
    "cu_seq_lens_q": PACKED,
}
CACHE_NAMES = ("cache", "past_key_values")


def refuse_unknown(layer: nn.Module, kwargs: dict[str, Any]) -> None:
    """Raise NotImplementedError if one of ``kwargs`` may change what attention computes."""
    for name, value in kwargs.items():
        if value is None or name in HARMLESS:
            continue
        if name in CACHE_NAMES and isinstance(value, Cache):
            continue  # Keys and values have been put into it, and are here in full.
        if name == "output_attentions":
            if value:
                _warn_of_weights()
            continue
        reason = REFUSED.get(name, "not known, and it may change what attention computes")
        msg = f"minference: {type(layer).__name__}: {name}: {reason}"
        raise NotImplementedError(msg)


def fits(tensor: Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor has a shape, or 1 in place of any of its sizes."""
    if tensor.ndim != len(shape):
        return False
    return all(size in (1, wanted) for size, wanted in zip(tensor.shape, shape, strict=True))


def read_sinks(s_aux: Tensor | None, sinks: Tensor | None, query: Tensor) -> Tensor | None:
    """Return the sinks, under whichever name they came: fp32 ``[1 or batch, num_heads_q, rows]``.

    They come as one logit per head, or as one per head and row (``[batch, num_heads_q, rows, 1]``).

    Raises:
        ValueError: Both names are used, or the shape is another.
    """
    if s_aux is not None and sinks is not None:
        msg = "minference: s_aux, sinks: expected one of them, got both"
        raise ValueError(msg)
    given = sinks if s_aux is None else s_aux
    if given is None:
        return None
    batch, heads, rows, _ = query.shape
    if tuple(given.shape) == (heads,):
        return given.float()[None, :, None]
    if fits(given, (batch, heads, rows, 1)):
        return given.float()[..., 0]
    msg = (
        f"minference: sinks: expected [{heads}] or [{batch}, {heads}, {rows}, 1], got"
        f" {tuple(given.shape)}"
    )
    raise ValueError(msg)


# Warns while tracing, and leaves nothing in the graph.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_of_weights() -> bool:
    warnings.warn(
        "minference: attention weights are never computed as a whole, so output_attentions=True"
        ' gives none; set the model to attn_implementation="eager" to get them',
        stacklevel=2,
    )
    return True
