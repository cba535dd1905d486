# SPDX-License-Identifier: Apache-2.0
"""Hugging Face transformers: ``attn_implementation="minference"``.

:func:`set_patterns` is all a user needs. Importing this module alone makes the name known to
``from_pretrained(..., attn_implementation="minference")``.

A model asks for a mask once per forward and hands it to every layer, so the mask function decides
what the layers may do. It knows where the rows of the call stand, also in a static cache, which
hands over its whole capacity. It returns one of

- ``None``: plain causal, and the rows are the last ones of the keys;
- a placement: per sequence, which keys exist and where the rows stand;
- a dense mask: anything else (packed sequences, chunked attention, overlays, most that is traced).

The kernels serve the first two: sparse as the layer's patterns say, exact within a sliding window,
sinks (``s_aux``) by way of lse. The rest is what transformers itself would compute: SDPA with a
dense mask, the model's own eager function with ``softcap``. Dropout and paged caches are refused.
"""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    causal_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from minference._library import call
from minference.config import HeadConfig, load_config
from minference.ops import min_sparse_seqlen
from minference.patterns import AShape, Dense, Pattern, to_tensor

__all__ = ["NAME", "minference_attention_forward", "minference_mask", "register", "set_patterns"]

NAME = "minference"

# A call of fewer rows than one row block is dense: decoding, and the last rows of a chunked prompt.
# There is next to nothing to save, and vertical-slash could not estimate from so few rows.
MIN_ROWS = 64

# Rows per call of a model's eager function, which materialises [batch, heads, rows, seqlen_k].
EAGER_ROWS = 128


# ---- Patterns of a model -------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerPatterns:
    """What :func:`set_patterns` leaves on an attention layer, as ``layer.minference_patterns``."""

    table: Tensor  # int32 [num_heads_q, 4], as the ops take it.
    min_seqlen: int


def set_patterns(
    model: PreTrainedModel,
    patterns: Pattern | Sequence[Pattern] | HeadConfig | str | os.PathLike[str],
    *,
    min_seqlen: int | None = None,
) -> HeadConfig:
    """Give every query head of a model its pattern, and switch the model to minference.

    Calling it again replaces the patterns; ``model.set_attn_implementation("sdpa")`` switches back.
    A layer with a sliding window keeps to its window, exactly, wherever the window hides a key.

    Args:
        model: A model that takes its attention from transformers' ``AttentionInterface``.
        patterns: One for all heads; one per query head, the same in every layer; a head config; or
            the path of one.
        min_seqlen: Calls over fewer keys are dense; the default is what the backend of the layers'
            device is known to need (:func:`minference.min_sparse_seqlen`). So are those of fewer
            than 64 query rows (decoding), whatever this says.

    Returns:
        The patterns of all layers and heads.

    Raises:
        ValueError: The patterns do not fit the model's layers and heads.
        NotImplementedError: The model does not let its attention be replaced.
    """
    register()
    layers: list[Any] = [module for module in model.modules() if _is_causal_attention(module)]
    if not layers:
        msg = f"minference: {type(model).__name__}: expected causal attention layers, found none"
        raise NotImplementedError(msg)
    num_layers: int = layers[0].config.num_hidden_layers
    num_heads: int = layers[0].config.num_attention_heads

    source = "patterns"
    if isinstance(patterns, (str, os.PathLike)):
        source = str(patterns)
        patterns = load_config(patterns)
    if isinstance(patterns, Pattern):
        patterns = [patterns] * num_heads
    if not isinstance(patterns, HeadConfig):
        patterns = HeadConfig((tuple(patterns),) * num_layers)
    patterns.check_fits([num_heads] * num_layers, source)

    tables = [to_tensor(heads) for heads in patterns.layers]
    model.set_attn_implementation(NAME)
    for layer in layers:
        if layer.config._attn_implementation != NAME:
            msg = f"minference: {type(model).__name__} does not let its attention be replaced"
            raise NotImplementedError(msg)
        least = min_sparse_seqlen(_device_of(layer)) if min_seqlen is None else min_seqlen
        layer.minference_patterns = LayerPatterns(tables[layer.layer_idx], least)
    return patterns


def _device_of(layer: nn.Module) -> torch.device:
    return next((x.device for x in layer.parameters()), torch.device("cpu"))


def _is_causal_attention(module: nn.Module) -> bool:
    is_layer = isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "config")
    return is_layer and getattr(module, "is_causal", False) is True


def _pattern_table(layer: nn.Module, rows: int, keys: int, window: int) -> Tensor:
    """Patterns of one call, int32 ``[num_heads_q or 1, 4]``. window 0: none."""
    if 0 < window < keys:
        return to_tensor(AShape(sink=0, window=window))
    patterns: Any = getattr(layer, "minference_patterns", None)
    if patterns is None or rows < MIN_ROWS or keys < patterns.min_seqlen:
        return to_tensor(Dense())
    table: Tensor = patterns.table
    return table


# ---- Masks ---------------------------------------------------------------------------------------


class Placement(NamedTuple):
    """Where one sequence of a call lies in the key tensor.

    As a mask: int64 ``[batch, 1, 1, 4]`` on the CPU. It must have four dimensions, for generate()
    makes masks of its own and hands them back to be made again, where 4D ones are left alone.
    """

    first_key: int  # Keys [first_key, end_key) exist; others are padding, or not written yet.
    end_key: int
    first_row: int  # Query row i stands at key first_row + i, and sees keys up to there:
    window: int  # the last `window` of them; 0: all.


def minference_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> Tensor | None:
    """Return None, a placement or a dense mask, as told above. The arguments are transformers'."""
    window = _window_of(mask_function, local_size)
    # A caller that does not allow to skip the mask wants a real one, to change it or to compile.
    if window is not None and allow_is_causal_skip:
        if torch.compiler.is_compiling():  # Then no tensor may be read.
            starts = attention_mask is None and isinstance(q_offset, int) and q_offset == 0
            if starts and kv_offset == 0 and q_length == kv_length and not 0 < window < kv_length:
                return None
        else:
            first_row = int(q_offset) - kv_offset
            placed = _place(batch_size, q_length, kv_length, first_row, kv_offset, attention_mask)
            if placed is not None:
                window = window if window < kv_length else 0
                rows = [Placement(*bounds, first_row, window) for bounds in placed]
                plain = Placement(0, kv_length, kv_length - q_length, window=0)
                if q_length in (1, kv_length) and all(row == plain for row in rows):
                    return None
                return torch.tensor(rows, dtype=torch.int64)[:, None, None]
    kwargs["allow_is_bidirectional_skip"] = False  # None would be taken for plain causal.
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,  # type: ignore[arg-type]  # Static caches do pass a tensor.
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=False,
        **kwargs,
    )


def _window_of(mask_function: Callable[..., Any], local_size: int | None) -> int | None:
    """Return 0 for the plain causal mask, w for a sliding window of w keys, None for any other."""
    if mask_function is causal_mask_function:
        return 0
    if local_size is not None and local_size > 0:
        windowed = sliding_window_causal_mask_function(local_size)
        return local_size if _is_same_function(mask_function, windowed) else None
    return None


def _is_same_function(a: Any, b: Any) -> bool:
    """Whether two functions have the same code and captured the same, so that they do the same."""
    if isinstance(a, FunctionType) and isinstance(b, FunctionType):
        same_code = a.__code__ is b.__code__ and a.__defaults__ == b.__defaults__
        return same_code and _is_same_function(a.__closure__ or (), b.__closure__ or ())
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_is_same_function, a, b))
    if isinstance(a, CellType) and isinstance(b, CellType):
        return _is_same_function(a.cell_contents, b.cell_contents)
    return isinstance(a, int) and isinstance(b, int) and a == b


def _place(
    batch_size: int,
    q_length: int,
    kv_length: int,
    first_row: int,
    kv_offset: int,
    attention_mask: Tensor | None,
) -> list[tuple[int, int]] | None:
    """Return (first_key, end_key) of each sequence; None if its keys have holes."""
    written = first_row + q_length  # Keys from here on are unused capacity of a static cache.
    if written > kv_length:
        return None
    if attention_mask is None:
        return [(0, written)] * batch_size
    exists = attention_mask[:, kv_offset : kv_offset + written].bool()
    position = torch.arange(exists.shape[1], device=exists.device)
    first = torch.where(exists, position, written).amin(dim=1)
    end = torch.where(exists, position + 1, 0).amax(dim=1)
    holes = (end - first) != exists.sum(dim=1)
    empty = end == 0
    if bool((holes & ~empty).any()):
        return None
    return [(min(f, e), e) for f, e in zip(first.tolist(), end.tolist(), strict=True)]


def _visible_keys(placements: Sequence[Placement], rows: slice, keys: int) -> Tensor:
    """The mask that placements stand for, of some rows: bool ``[batch, 1, rows, keys]``."""
    key = torch.arange(keys)
    row = torch.arange(rows.start, rows.stop)[:, None]
    masks = []
    for placed in placements:
        distance = placed.first_row + row - key
        visible = (distance >= 0) & (key >= placed.first_key) & (key < placed.end_key)
        masks.append(visible & (distance < placed.window) if placed.window else visible)
    return torch.stack(masks)[:, None]


# ---- Attention -----------------------------------------------------------------------------------


def minference_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as the layer's patterns say; the attention function of transformers' interface.

    Args:
        module: The attention layer.
        query: ``[batch, num_heads_q, seqlen_q, head_dim]``.
        key: ``[batch, num_heads_kv, seqlen_k, head_dim]``; heads are never repeated.
        value: ``[batch, num_heads_kv, seqlen_k, head_dim_v]``.
        attention_mask: What :func:`minference_mask` returned, or a dense mask of the user's own.
        dropout: Must be 0.
        scaling: Multiplies ``query @ key.T``; None selects ``head_dim ** -0.5``.
        is_causal: None asks the layer.
        softcap: Bounds the logits; leads to the model's eager function.
        s_aux: ``[num_heads_q]``, a logit per head that takes part in the softmax without a value.
        position_bias: Added to the logits; leads to SDPA.
        kwargs: Handed on where SDPA or the eager function computes.

    Returns:
        ``[batch, seqlen_q, num_heads_q, head_dim_v]``, and None for the weights.
    """
    if dropout != 0.0:
        msg = f"minference: dropout: expected 0, got {dropout}; it serves inference, not training"
        raise NotImplementedError(msg)
    if kwargs.get("cache") is not None:
        msg = "minference: continuous batching is not supported; generate without it"
        raise NotImplementedError(msg)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    is_plain = softcap is None and position_bias is None
    if is_causal and is_plain and (shares := _shares(attention_mask, query, key)) is not None:
        return _attend(module, query, key, value, shares, scaling, s_aux), None

    _warn_if_sparse_was_asked_for(module, query.shape[2], key.shape[2])
    if softcap is not None or s_aux is not None:
        extras = {"softcap": softcap, "s_aux": s_aux}
        kwargs |= {name: extra for name, extra in extras.items() if extra is not None}
        return _eager_by_rows(module, query, key, value, attention_mask, scaling, kwargs), None
    if (placements := _placements_of(attention_mask)) is not None:
        every_row = slice(0, query.shape[2])
        attention_mask = _visible_keys(placements, every_row, key.shape[2]).to(query.device)
    out, _ = sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=scaling,
        is_causal=is_causal,
        position_bias=position_bias,
        **kwargs,
    )
    return out, None


class Share(NamedTuple):
    """Sequences, rows and keys of a call that one call of the kernels can serve."""

    batch: slice
    rows: slice
    keys: slice
    window: int


EVERYTHING = Share(slice(None), slice(None), slice(None), window=0)


def _shares(attention_mask: Tensor | None, query: Tensor, key: Tensor) -> list[Share] | None:
    """Split a call; None where the mask is dense, or nothing says where the rows stand."""
    batch, _, rows, _ = query.shape
    keys = key.shape[2]
    if attention_mask is None:
        return [EVERYTHING] if rows in (1, keys) else None
    if (placements := _placements_of(attention_mask)) is None:
        return None
    shares = list(_shares_of(placements, rows))
    whole = Share(slice(0, batch), slice(0, rows), slice(0, keys), window=0)
    return [EVERYTHING] if shares == [whole] else shares


def _placements_of(attention_mask: Tensor | None) -> list[Placement] | None:
    """None where there is no mask, or a dense one."""
    if attention_mask is None:
        return None
    if attention_mask.ndim != 4:
        msg = f"minference: attention_mask: expected 4 dimensions, got {attention_mask.ndim}"
        raise ValueError(msg)
    if attention_mask.dtype != torch.int64:
        return None
    return [Placement(*row) for row in attention_mask.flatten(1).tolist()]


def _shares_of(placements: Sequence[Placement], rows: int) -> Iterator[Share]:
    """Neighbouring sequences that lie alike, without the rows that are padding."""
    end = 0
    for placed, group in itertools.groupby(placements):
        begin, end = end, end + len(list(group))
        first = max(0, placed.first_key - placed.first_row)
        last = min(rows, placed.end_key - placed.first_row)
        if first < last:
            yield Share(
                batch=slice(begin, end),
                rows=slice(first, last),
                keys=slice(placed.first_key, placed.first_row + last),
                window=placed.window,
            )


def _attend(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shares: Sequence[Share],
    scaling: float | None,
    s_aux: Tensor | None,
) -> Tensor:
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if len(shares) == 1 and shares[0] is EVERYTHING:
        return _attend_share(layer, q, k, v, window=0, scaling=scaling, s_aux=s_aux)
    out = q.new_zeros((*q.shape[:3], v.shape[3]))  # Rows that are padding stay 0.
    for batch, rows, keys, window in shares:
        out[batch, rows] = _attend_share(
            layer,
            q[batch, rows],
            k[batch, keys],
            v[batch, keys],
            window=window,
            scaling=scaling,
            s_aux=s_aux,
        )
    return out


def _attend_share(
    layer: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    scaling: float | None,
    s_aux: Tensor | None,
) -> Tensor:
    table = _pattern_table(layer, q.shape[1], k.shape[1], window)
    op = torch.ops.minference.prefill_attn.default
    out: Tensor
    out, lse = call(op, q, k, v, table, softmax_scale=scaling)
    if s_aux is not None:
        # The extra logit does nothing but add exp(s_aux) to the denominator, exp(lse).
        kept = torch.sigmoid(lse - s_aux.float()[:, None]).transpose(1, 2)
        out = (out * kept[..., None]).to(out.dtype)
    return out


def _eager_by_rows(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> Tensor:
    """The model's own eager attention, a few rows at a time: rows do not depend on each other."""
    eager = getattr(sys.modules[type(layer).__module__], "eager_attention_forward", None)
    rows, keys = query.shape[2], key.shape[2]
    if eager is None or (attention_mask is None and rows not in (1, keys)):
        what = "an eager_attention_forward" if eager is None else "a mask"
        msg = f"minference: {type(layer).__name__}: softcap or sinks: expected {what}, got none"
        raise NotImplementedError(msg)
    placements = _placements_of(attention_mask)
    if attention_mask is None:
        placements = [Placement(0, keys, keys - rows, window=0)] * query.shape[0]
    outs = []
    for begin in range(0, rows, EAGER_ROWS):
        part = slice(begin, min(begin + EAGER_ROWS, rows))
        if placements is not None:
            mask = _visible_keys(placements, part, keys).to(query.device)
        elif attention_mask is not None:
            mask = attention_mask[:, :, part]
        if mask.dtype == torch.bool:
            mask = torch.where(mask, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
        out, _ = eager(
            layer, query[:, :, part], key, value, mask, scaling=scaling, dropout=0.0, **kwargs
        )
        outs.append(out)
    return torch.cat(outs, dim=1)


def _warn_if_sparse_was_asked_for(layer: nn.Module, rows: int, keys: int) -> None:
    patterns: Any = getattr(layer, "minference_patterns", None)
    if patterns is not None and rows >= MIN_ROWS and keys >= patterns.min_seqlen:
        _warn_of_dense(type(layer).__name__)


# Warns while tracing, and leaves nothing in the graph.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_of_dense(layer: str) -> bool:
    warnings.warn(
        f"minference: {layer} runs dense: the sparse kernels take no dense mask, softcap nor"
        " position bias (a traced call makes a mask where it may not look whether it needs one)",
        stacklevel=2,
    )
    return True


# ---- Registration --------------------------------------------------------------------------------


def register() -> None:
    """Make ``attn_implementation="minference"`` known; importing this module has done it."""
    AttentionInterface.register(NAME, minference_attention_forward)
    AttentionMaskInterface.register(NAME, minference_mask)


register()
