# SPDX-License-Identifier: Apache-2.0
"""Attention of one layer, as transformers' ``AttentionInterface`` calls it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minference._library import call
from minference.integrations.transformers.arguments import fits, read_sinks, refuse_unknown
from minference.integrations.transformers.causal_mask import CausalMask, Placement
from minference.integrations.transformers.dense import Visible, attend_by_scores, attend_by_sdpa
from minference.integrations.transformers.key_lists import read_key_lists
from minference.integrations.transformers.masks import is_tracing
from minference.integrations.transformers.patterns import pattern_table, wants_sparse

__all__ = ["minference_attention_forward"]


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
    sinks: Tensor | None = None,
    position_bias: Tensor | None = None,
    indices: Tensor | None = None,
    block_indices: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as the layer's patterns say; the attention function of transformers' interface.

    Args:
        module: The attention layer.
        query: ``[batch, num_heads_q, seqlen_q, head_dim]``.
        key: ``[batch, num_heads_kv, seqlen_k, head_dim]``; heads are never repeated.
        value: ``[batch, num_heads_kv, seqlen_k, head_dim_v]``.
        attention_mask: What ``minference_mask`` returned, whatever the model did to it; or a mask
            of the user's own, ``[batch or 1, num_heads_q or 1, seqlen_q or 1, seqlen_k]``: bool or
            integers 0 and 1 (1 is visible), or floating point, added to the logits. A mask alone
            says what is visible. None is plain causal, the rows being the last ones of the keys; in
            a layer that is not causal, all keys.
        dropout: Must be 0.
        scaling: Multiplies ``query @ key.T``; None selects ``head_dim ** -0.5``.
        is_causal: What None as a mask means; None asks the layer.
        softcap: c bounds the logits, ``c * tanh(logits / c)``.
        s_aux: Sinks: logits that take part in the softmax without a value, ``[num_heads_q]``, or
            ``[batch, num_heads_q, seqlen_q, 1]``.
        sinks: The same under another name.
        position_bias: Added to the logits, ``[batch or 1, num_heads_q or 1, seqlen_q or 1,
            seqlen_k]``.
        indices: The only keys that a row attends, int ``[batch, seqlen_q, keys per row]``, as the
            indexers of DeepSeek-V3.2 and its kin choose them; those below 0 are none.
        block_indices: The only blocks of keys that a row attends, int ``[batch, num_heads_kv,
            seqlen_q, blocks per row]``, as the indexer of MiniMax-M3 chooses them, blocks of
            ``module.indexer.block_size`` keys; those below 0 are none.
        kwargs: See :mod:`.arguments`.

    Returns:
        ``[batch, seqlen_q, num_heads_q, head_dim_v]``, and None for the weights.

    Raises:
        ValueError: A tensor has a shape or a dtype that means nothing here.
        NotImplementedError: An argument that may change the result is not served.
    """
    if dropout != 0.0:
        msg = f"minference: dropout: expected 0, got {dropout}; it serves inference, not training"
        raise NotImplementedError(msg)
    if softcap is not None and position_bias is not None:
        msg = "minference: softcap, position_bias: both in one call are not supported"
        raise NotImplementedError(msg)
    refuse_unknown(module, kwargs)
    _check_bias(position_bias, query, key)
    extra = read_sinks(s_aux, sinks, query)
    if isinstance(attention_mask, CausalMask) and attention_mask.hides_nothing:
        attention_mask, is_causal = None, False
    if attention_mask is None and is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    mask = _read_mask(attention_mask, query, key)
    lists = read_key_lists(module, indices, block_indices, query, key)
    shares = _shares(mask, is_causal, query, key)

    if shares is not None and softcap is None and position_bias is None:
        if lists is None:
            out = _attend(module, query, key, value, shares, scaling, extra)
            if isinstance(mask, CausalMask):
                out = _with_late_rows(module, query, key, value, mask, out, scaling, extra)
            return out, None
        if shares == [EVERYTHING] and (blocks := lists.as_row_blocks()) is not None:
            return _attend_blocks(query, key, value, blocks, scaling, extra), None

    if wants_sparse(module, query, key):
        _warn_of_dense(type(module).__name__)
    causal_shape = (query.shape[2], key.shape[2]) if mask is None and shares is not None else None
    visible = Visible(mask, lists, causal_shape, query.device)
    if position_bias is not None:
        position_bias = position_bias.to(query.dtype)
    if softcap is not None or extra is not None:
        out = attend_by_scores(query, key, value, visible, scaling, softcap, extra, position_bias)
    else:
        out = attend_by_sdpa(module, query, key, value, visible, scaling, position_bias)
    return out, None


# ---- Masks ---------------------------------------------------------------------------------------


def _read_mask(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """Return a CausalMask, or a mask that is bool or of the dtype of the logits.

    Raises:
        ValueError: It is none of these.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.layout != torch.strided:
        what = mask.layout if isinstance(mask, Tensor) else type(mask).__name__
        msg = f"minference: attention_mask: expected a dense tensor, got {what}"
        raise ValueError(msg)
    if mask.ndim != 4:
        msg = f"minference: attention_mask: expected 4 dimensions, got {mask.ndim}"
        raise ValueError(msg)
    batch, heads, rows, keys = wanted = (*query.shape[:3], key.shape[2])
    if mask.shape[3] != keys or not fits(mask, wanted):
        msg = (
            f"minference: attention_mask: expected [{batch} or 1, {heads} or 1, {rows} or 1,"
            f" {keys}], got {tuple(mask.shape)}"
        )
        raise ValueError(msg)
    if isinstance(mask, CausalMask):
        return mask if mask.placements is not None else mask.dense()
    if mask.dtype == torch.bool or mask.dtype == query.dtype:
        return mask
    if mask.is_floating_point():
        # The smallest number of a wider dtype must not become -inf: a row that is all -inf is NaN.
        return mask.to(query.dtype).clamp(min=torch.finfo(query.dtype).min)
    return _mask_of_integers(mask)


def _mask_of_integers(mask: Tensor) -> Tensor:
    if mask.is_complex() or is_tracing(mask):
        msg = f"minference: attention_mask: expected bool or floating point, got {mask.dtype}"
        raise ValueError(msg)
    if bool(((mask != 0) & (mask != 1)).any()):
        msg = (
            f"minference: attention_mask: expected integers 0 and 1 in a mask of {mask.dtype}, got"
            f" others; a mask to be added must be floating point"
        )
        raise ValueError(msg)
    return mask.bool()


def _check_bias(bias: Tensor | None, query: Tensor, key: Tensor) -> None:
    if bias is None:
        return
    wanted = (*query.shape[:3], key.shape[2])
    if not bias.is_floating_point():
        msg = f"minference: position_bias: expected floating point, got {bias.dtype}"
        raise ValueError(msg)
    if not fits(bias, wanted):
        msg = (
            f"minference: position_bias: expected {[*wanted]}, or 1 of any, got {tuple(bias.shape)}"
        )
        raise ValueError(msg)


# ---- Calls that the kernels serve ----------------------------------------------------------------


class Share(NamedTuple):
    """Sequences, rows and keys of a call that one call of the kernels can serve."""

    batch: slice
    rows: slice
    keys: slice
    window: int


EVERYTHING = Share(slice(None), slice(None), slice(None), window=0)


def _shares(
    mask: Tensor | None, is_causal: bool | None, query: Tensor, key: Tensor
) -> list[Share] | None:
    """Split a call among calls of the kernels; None where they do not serve it."""
    if mask is None:
        return [EVERYTHING] if is_causal or query.shape[2] == 1 else None
    if not isinstance(mask, CausalMask) or mask.placements is None:
        return None
    placements = mask.placements * (query.shape[0] if len(mask.placements) == 1 else 1)
    rows = mask.shape[2]
    if rows != query.shape[2]:  # One row of a mask, for all rows of the call.
        return None
    shares = list(_shares_of(placements, rows))
    whole = Share(slice(0, query.shape[0]), slice(0, rows), slice(0, key.shape[2]), window=0)
    return [EVERYTHING] if shares == [whole] else shares


def _shares_of(placements: Sequence[Placement], rows: int) -> Iterator[Share]:
    """Neighbouring sequences that lie alike, without their rows outside the keys that exist."""
    end = 0
    while end < len(placements):  # Not itertools.groupby: torch.compile cannot follow it.
        begin, placed = end, placements[end]
        while end < len(placements) and placements[end] == placed:
            end += 1
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
    sinks: Tensor | None,
) -> Tensor:
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if len(shares) == 1 and shares[0] is EVERYTHING:
        return _attend_share(layer, q, k, v, window=0, scaling=scaling, sinks=sinks)
    out = q.new_zeros((*q.shape[:3], v.shape[3]))  # Rows before the first key stay 0.
    for batch, rows, keys, window in shares:
        part = _attend_share(
            layer,
            q[batch, rows],
            k[batch, keys],
            v[batch, keys],
            window=window,
            scaling=scaling,
            sinks=None if sinks is None else _share_of(sinks, batch, rows),
        )
        if part.dtype != out.dtype:  # Under autocast.
            out = out.to(part.dtype)
        out[batch, rows] = part
    return out


def _with_late_rows(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: CausalMask,
    out: Tensor,
    scaling: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Add the rows after a sequence's last key: they see what there is, as by any other attention.

    Such rows are padding on the right, whose logits some read all the same, or a step of decoding
    whose own key is hidden. The kernels know a row only by its place among the keys.
    """
    rows = query.shape[2]
    placements = mask.placements or ()
    for sequence, placed in enumerate(placements * (len(query) if len(placements) == 1 else 1)):
        num_keys = placed.end_key - placed.first_key
        begin = max(0, placed.end_key - placed.first_row)
        if begin >= rows or num_keys <= 0:
            continue
        one, late = slice(sequence, sequence + 1), slice(begin, rows)
        keys = slice(placed.first_key, placed.end_key)
        q, k, v = query[one, :, late], key[one, :, keys], value[one, :, keys]
        hidden = None
        if placed.window:
            first_row = placed.first_row + begin - placed.first_key
            there = Placement(0, num_keys, first_row, placed.window)
            hidden = CausalMask([there], rows - begin, num_keys, q.device, torch.bool)
        visible = Visible(hidden, None, None, q.device)
        if sinks is None:
            part = attend_by_sdpa(layer, q, k, v, visible, scaling, None)
        else:
            of_rows = _share_of(sinks, one, late)
            part = attend_by_scores(q, k, v, visible, scaling, None, of_rows, None)
        out[one, late] = part.to(out.dtype)
    return out


def _share_of(sinks: Tensor, batch: slice, rows: slice) -> Tensor:
    sinks = sinks if sinks.shape[0] == 1 else sinks[batch]
    return sinks if sinks.shape[2] == 1 else sinks[:, :, rows]


def _attend_share(
    layer: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    scaling: float | None,
    sinks: Tensor | None,
) -> Tensor:
    table = pattern_table(layer, q, k, window)
    op = torch.ops.minference.prefill_attn.default
    out, lse = call(op, q, k, v, table, softmax_scale=scaling)
    return _with_sinks(out, lse, sinks)


def _attend_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_index: Tensor,
    scaling: float | None,
    sinks: Tensor | None,
) -> Tensor:
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    op = torch.ops.minference.block_index_attn.default
    out, lse = call(op, q, k, v, block_index, softmax_scale=scaling)
    return _with_sinks(out, lse, sinks)


def _with_sinks(out: Tensor, lse: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return out
    # The extra logit does nothing but add exp(sink) to the denominator, exp(lse).
    kept = torch.sigmoid(lse - sinks).transpose(1, 2)
    return (out * kept[..., None]).to(out.dtype)


# Warns while tracing, and leaves nothing in the graph.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_of_dense(layer: str) -> bool:
    warnings.warn(
        f"minference: {layer} runs dense: the sparse kernels take no dense mask, softcap, position"
        " bias nor keys that the model has chosen (a traced call makes a mask where it may not look"
        " whether it needs one)",
        stacklevel=2,
    )
    return True
