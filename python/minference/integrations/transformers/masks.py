# SPDX-License-Identifier: Apache-2.0
"""The mask function: which keys a query row may see.

transformers asks for a mask once per forward and hands it to every layer, and on the way models do
to it what they would do to any mask: take the last rows, append columns, index, cast, move. So what
:func:`minference_mask` returns *is* a mask, ``[batch, 1, rows, keys]``, that has not been written
out: a :class:`CausalMask` keeps four numbers per sequence. Where an operation leaves it a causal
mask (a slice of rows or keys, another device) the numbers change; before any other it is written
out, and what was done is done to real elements.

Its elements are those of eager attention's mask, 0 and the smallest number, to be added to the
logits. Every model knows how to handle these; bools, as SDPA takes, only those that support SDPA.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from transformers import PreTrainedModel
from transformers.masking_utils import (
    causal_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)
from transformers.utils.import_utils import is_tracing as _is_tracing

from minference.integrations.transformers.causal_mask import CausalMask, Placement, additive

__all__ = ["is_tracing", "minference_mask"]


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
    allow_is_bidirectional_skip: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    config: Any = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return the mask of a forward, ``[batch, 1, q_length, kv_length]``, added to the logits.

    The arguments are those of transformers' ``eager_mask``. A causal mask, with a sliding window or
    without, over sequences without holes becomes a :class:`CausalMask`; any other is written out.
    While a graph is traced no tensor may be read, and masks are written out in the graph, but for
    the one case where nothing needs to be read: a prompt from its start, without padding nor
    window. Its mask is None, which :func:`minference_attention_forward` takes for plain causal.

    A family that computes attention by itself, whatever the name says, gets a mask it can use, and
    its user a warning.

    Raises:
        ValueError: ``attention_mask`` is not ``[batch, keys]``.
    """
    if attention_mask is not None and attention_mask.ndim != 2:
        msg = (
            "minference: attention_mask: expected [batch, keys] or 4 dimensions, got"
            f" {tuple(attention_mask.shape)}"
        )
        raise ValueError(msg)
    calls_us = config is None or _calls_attention_functions(type(config).__module__)
    if not calls_us:
        _warn_of_own_attention(type(config).__name__)
    window = _window_of(mask_function, local_size)
    # A caller that does not allow to skip the mask is about to compute with it, or to compile.
    if window is not None and allow_is_causal_skip:
        if is_tracing(attention_mask, q_offset):
            starts = attention_mask is None and isinstance(q_offset, int) and q_offset == 0
            # What is exported serves lengths on both sides of the window.
            is_plain = window == 0 or (not torch.compiler.is_exporting() and kv_length <= window)
            starts = starts and kv_offset == 0 and q_length == kv_length
            if starts and is_plain and calls_us:  # Others would take None for no mask at all.
                return None
        else:
            first_row = int(q_offset) - kv_offset
            placed = _place(batch_size, q_length, kv_length, first_row, kv_offset, attention_mask)
            if placed is not None:
                window = window if window < kv_length else 0
                placements = [Placement(*bounds, first_row, window) for bounds in placed]
                return CausalMask(placements, q_length, kv_length, device, dtype)
    elif allow_is_bidirectional_skip and not is_tracing(attention_mask, q_offset):
        is_whole = local_size is None or kv_length < local_size
        if is_whole and _all_exist(attention_mask, kv_offset, kv_length):
            everything = Placement(0, kv_length, first_row=kv_length, window=0)
            return CausalMask([everything] * batch_size, q_length, kv_length, device, dtype)
    visible = sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,  # type: ignore[arg-type]  # Static caches do pass a tensor.
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=False,
        allow_is_bidirectional_skip=False,  # None would be taken for plain causal.
        device=device,
        **kwargs,
    )
    assert visible is not None  # Neither kind of mask may be skipped.
    return additive(visible, dtype)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _calls_attention_functions(config_module: str) -> bool:
    return _models_call_attention_functions(config_module)


@functools.cache
def _models_call_attention_functions(config_module: str) -> bool:
    """Whether the models of a config take their attention from transformers' interface.

    transformers accepts a registered name for all models; those that were written before there was
    an interface compute attention themselves, with the mask that the name's mask function makes.
    """
    name = config_module.replace(".configuration_", ".modeling_")
    if (module := sys.modules.get(name)) is None:
        return False
    values = [value for value in vars(module).values() if isinstance(value, type)]
    models = [value for value in values if issubclass(value, PreTrainedModel)]
    return any(m._can_set_attn_implementation() for m in models if m.__module__ == name)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_of_own_attention(config: str) -> bool:
    warnings.warn(
        f"minference: models of a {config} may compute attention themselves, whatever"
        " attn_implementation says; minference.set_patterns tells",
        stacklevel=2,
    )
    return True


def is_tracing(*values: Any) -> bool:
    """Whether a graph is being recorded, of these tensors among others, so that none may be read.

    By torch.compile, export, jit.trace, make_fx, fake tensors or a captured CUDA stream; or there
    is nothing to read, on the device "meta".
    """
    if torch.compiler.is_compiling():
        return True
    if any(isinstance(value, Tensor) and value.is_meta for value in values):
        return True
    return get_proxy_mode() is not None or any(map(_is_tracing, values))


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


def _all_exist(attention_mask: Tensor | None, kv_offset: int, kv_length: int) -> bool:
    if attention_mask is None:
        return True
    exists = attention_mask[:, kv_offset : kv_offset + kv_length]
    return exists.shape[1] == kv_length and bool(exists.all())


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
