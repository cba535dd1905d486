# SPDX-License-Identifier: Apache-2.0
"""Attention of calls that the kernels do not serve: by SDPA, or with the scores written out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from minference.integrations.transformers.causal_mask import CausalMask
from minference.integrations.transformers.key_lists import KeyLists
from minference.integrations.transformers.masks import is_tracing

__all__ = ["Visible", "attend_by_scores", "attend_by_sdpa"]

# Rows that are computed at a time where scores are written out, [batch, num_heads_q, rows, keys].
SCORE_ROWS = 128
EVERY_ROW = slice(None)


class Visible(NamedTuple):
    """What a row may see: a mask, and the keys that the model itself has chosen."""

    mask: Tensor | None
    lists: KeyLists | None
    causal_shape: tuple[int, int] | None  # Rows and keys of a call that is causal without a mask.
    device: torch.device

    def rows(self, part: slice) -> Tensor | None:
        """The mask of some rows: bool, or added to the logits; None: everything."""
        mask = self.mask
        if self.causal_shape is not None:
            rows, keys = self.causal_shape
            row = torch.arange(rows, device=self.device)[part, None]
            mask = (torch.arange(keys, device=self.device) <= row + keys - rows)[None, None]
        elif isinstance(mask, CausalMask):
            mask = mask.visible(None if mask.shape[2] == 1 else part)
        elif mask is not None:
            mask = _rows_of(mask, part)
        if self.lists is None:
            return mask
        listed = self.lists.rows(part)
        if mask is None:
            return listed
        if mask.dtype == torch.bool:
            return mask & listed
        return mask.masked_fill(~listed, torch.finfo(mask.dtype).min)


def attend_by_sdpa(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Visible,
    scaling: float | None,
    position_bias: Tensor | None,
) -> Tensor:
    """Torch's SDPA, as transformers calls it, with a mask that is written out."""
    # The keys that a model has chosen are a mask for every head: not all rows of it at once.
    parts = [EVERY_ROW] if visible.lists is None else _parts(query)
    outs = []
    for part in parts:
        mask = visible.rows(part)
        if position_bias is not None:
            mask = _with_bias(mask, _rows_of(position_bias, part))
        out, _ = sdpa_attention_forward(
            layer, query[:, :, part], key, value, mask, scaling=scaling, is_causal=False
        )
        outs.append(out)
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


def _parts(query: Tensor) -> list[slice]:
    """Rows of a call that are computed together; in a graph, all: it may serve other lengths."""
    if is_tracing(query):
        return [EVERY_ROW]
    starts = range(0, query.shape[2], SCORE_ROWS)
    return [slice(begin, begin + SCORE_ROWS) for begin in starts] or [EVERY_ROW]


def _rows_of(tensor: Tensor, part: slice) -> Tensor:
    """Some rows of ``[batch, heads, rows, ...]``, where one row may be for all."""
    return tensor if tensor.shape[2] == 1 else tensor[:, :, part]


def _with_bias(mask: Tensor | None, position_bias: Tensor) -> Tensor:
    if mask is None:
        return position_bias
    if mask.dtype == torch.bool:
        return torch.where(mask, position_bias, torch.finfo(position_bias.dtype).min)
    return position_bias + mask


def attend_by_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Visible,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
    position_bias: Tensor | None,
) -> Tensor:
    """Transformers' eager attention, some rows at a time: rows do not depend on each other."""
    groups = query.shape[1] // key.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (key, value))
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    outs = []
    for part in _parts(query):
        scores = (query[:, :, part] @ k.transpose(2, 3)) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if position_bias is not None:
            scores = scores + _rows_of(position_bias, part)
        mask = visible.rows(part)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask
        scores = scores.float()
        if sinks is not None:
            of_rows = _rows_of(sinks, part)[..., None].expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, of_rows], dim=-1)
        weights = scores.softmax(dim=-1)[..., : k.shape[2]].to(v.dtype)
        outs.append(weights @ v)
    return torch.cat(outs, dim=2).transpose(1, 2).contiguous()
