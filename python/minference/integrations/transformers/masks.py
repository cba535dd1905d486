# SPDX-License-Identifier: Apache-2.0
"""Masks: which keys a query row may see.

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
from collections.abc import Callable, Sequence
from types import CellType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel
from transformers.masking_utils import (
    causal_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)
from transformers.utils.import_utils import is_tracing as _is_tracing

__all__ = ["CausalMask", "Placement", "minference_mask"]


class Placement(NamedTuple):
    """Where the rows and keys of one sequence are."""

    first_key: int  # Keys [first_key, end_key) exist; others are padding, or not written yet.
    end_key: int
    first_row: int  # Query row i is at key first_row + i, and sees keys up to there:
    window: int  # the last `window` of them; 0: all.


class CausalMask(Tensor):
    """A causal mask that is not written out: ``[batch, heads, rows, keys]``.

    Of dtype bool, True is visible; of a floating point one, 0 is, and what is not is its smallest
    number. It behaves as the tensor it stands for. An operation that it knows gives another
    CausalMask; for any other it is written out first. A write, or a view through which one could be
    written, leaves the written-out elements as the only truth, and :attr:`placements` is None from
    then on.
    """

    _placements: tuple[Placement, ...]  # One per sequence.
    _root: CausalMask  # The mask of which this is a view; itself, if of none.
    _views: tuple[Callable[[Tensor], Tensor], ...]  # How the view is taken of the root's elements.
    _elements: Tensor | None  # Of a root: what it was written out to, once that may be changed.

    @staticmethod
    def __new__(
        cls: type[CausalMask],
        placements: Sequence[Placement],
        rows: int,
        keys: int,
        device: torch.device | str,
        dtype: torch.dtype,
        *,
        heads: int = 1,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ) -> CausalMask:
        """Create the mask; see :class:`Placement`."""
        shape = (len(placements), heads, rows, keys)
        mask: CausalMask = torch.Tensor._make_wrapper_subclass(
            cls,
            shape,
            strides=strides
            or (
                heads * rows * keys,
                rows * keys,
                keys,
                1,
            ),  # Those that the written-out view has: torch chooses by them.
            storage_offset=offset,
            dtype=dtype,
            device=torch.device(device),
        )
        mask._placements = tuple(placements)
        mask._root, mask._views, mask._elements = mask, (), None
        return mask

    @property
    def placements(self) -> tuple[Placement, ...] | None:
        """One per sequence; None where the elements may have been changed."""
        return self._placements if self._root._elements is None else None

    @property
    def hides_nothing(self) -> bool:
        """Whether every row sees every key: it is no mask, and fits a call of any size."""
        keys = self.shape[3]
        placements = self.placements
        return placements is not None and all(
            (p.first_key, p.end_key, p.window) == (0, keys, 0) and p.first_row >= keys - 1
            for p in placements
        )

    def dense(self, rows: slice | Tensor | None = None) -> Tensor:
        """Return the mask as a plain tensor, all rows of it or some: to be read, not written."""
        if self._root._elements is not None:
            elements = self._shared_elements()
            return elements if rows is None else elements[:, :, rows]
        visible = self.visible(rows)
        return visible if self.dtype == torch.bool else additive(visible, self.dtype)

    def visible(self, rows: slice | Tensor | None = None) -> Tensor:
        """Return the mask as bools, True is visible. Only while there are :attr:`placements`."""
        batch, heads, all_rows, keys = self.shape
        if not isinstance(rows, Tensor):
            begin, end, _ = (rows or slice(None)).indices(all_rows)
            rows = torch.arange(begin, end, device=self.device)
        key = torch.arange(keys, device=self.device)
        bounds = torch.tensor(self._placements, dtype=torch.int64, device=self.device)
        first_key, end_key, first_row, window = bounds.reshape(batch, 4, 1, 1).unbind(1)
        distance = first_row + rows[:, None] - key
        visible = (distance >= 0) & (key >= first_key) & (key < end_key)
        if any(placed.window for placed in self._placements):
            visible &= (distance < window) | (window == 0)
        return visible[:, None].expand(batch, heads, *visible.shape[1:])

    def _shared_elements(self) -> Tensor:
        """Write the root out for good, and return this view of its elements."""
        root = self._root
        if root._elements is None:
            root._elements = root.dense().clone()
        elements = root._elements
        for view in self._views:
            elements = view(elements)
        return elements

    def _derive(
        self,
        placements: Sequence[Placement],
        shape: Sequence[int],
        device: torch.device,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ) -> CausalMask:
        _, heads, rows, keys = shape
        return CausalMask(
            placements, rows, keys, device, self.dtype, heads=heads, strides=strides, offset=offset
        )

    # ---- What torch asks of a tensor that has no memory of its own -------------------------------

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Keep the mask as it is where the operation allows, else write it out."""
        kwargs = kwargs or {}
        mask = args[0] if args else None
        if isinstance(mask, CausalMask) and mask.placements is not None and func in _KEPT:
            kept = _KEPT[func](mask, *args[1:], **kwargs)
            if kept is not None:
                return kept
        arguments = {a.name: a for a in func._schema.arguments}
        shared = {name for name, a in arguments.items() if a.alias_info is not None}

        def written_out(name: str, value: Any) -> Any:
            get = CausalMask._shared_elements if name in shared else CausalMask.dense
            return tree_map_only(CausalMask, get, value)

        named = list(zip(arguments, args, strict=False))
        plain_args = [written_out(name, value) for name, value in named]
        plain_kwargs = {name: written_out(name, value) for name, value in kwargs.items()}
        result = func(*plain_args, **plain_kwargs)
        # What an in-place operation returns is what it was given.
        if isinstance(mask, CausalMask) and result is plain_args[0]:
            return mask
        return result

    def __repr__(self, *, tensor_contents: Any = None) -> Any:  # type: ignore[override]
        shape = tuple(self.shape)
        if (placements := self.placements) is None:
            return f"CausalMask({self.dense()!r})"
        return f"CausalMask(shape={shape}, dtype={self.dtype}, placements={list(placements)})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().clone().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return memo.setdefault(id(self), self.dense().clone())

    # These reach for memory without asking __torch_dispatch__.

    def tolist(self) -> Any:
        """See :meth:`torch.Tensor.tolist`."""
        return self.dense().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """See :meth:`torch.Tensor.numpy`."""
        array = self.dense().numpy(force=force)
        array.flags.writeable = False  # A write would be lost.
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        return array.astype(dtype or array.dtype)  # A copy, always.

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.dense().clone().__dlpack__(**kwargs)

    def _refuse_memory(self, *args: Any, **kwargs: Any) -> Any:
        msg = "minference: the mask is not written out; mask.clone() is a tensor with memory"
        raise NotImplementedError(msg)

    data_ptr = untyped_storage = storage = set_ = resize_ = _refuse_memory
    is_shared = share_memory_ = _refuse_memory


# ---- Operations that leave a causal mask one. Each returns None where it does not. -------------


def _as_view(mask: CausalMask, view: CausalMask, taken: Callable[[Tensor], Tensor]) -> CausalMask:
    view._root, view._views = mask._root, (*mask._views, taken)
    return view


def _slice(
    mask: CausalMask,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> CausalMask | None:
    dim %= 4
    begin, stop, _ = slice(start, end).indices(mask.shape[dim])
    stop = max(begin, stop)
    placements: Sequence[Placement] = mask._placements
    if step != 1:
        return None
    if dim == 0:
        placements = placements[begin:stop]
    elif dim == 2:
        placements = [p._replace(first_row=p.first_row + begin) for p in placements]
    elif dim == 3:
        placements = [_without_first_keys(p, begin, stop - begin) for p in placements]
    shape = [*mask.shape]
    shape[dim] = stop - begin
    aten_slice = torch.ops.aten.slice.Tensor
    return _as_view(
        mask,
        mask._derive(
            placements,
            shape,
            mask.device,
            mask.stride(),
            int(mask.storage_offset()) + begin * mask.stride(dim),
        ),
        lambda elements: aten_slice(elements, dim, start, end, step),
    )


def _without_first_keys(placed: Placement, gone: int, left: int) -> Placement:
    first, end = (min(max(0, key - gone), left) for key in placed[:2])
    return placed._replace(first_key=first, end_key=end, first_row=placed.first_row - gone)


def _expand(mask: CausalMask, size: Sequence[int], implicit: bool = False) -> CausalMask | None:
    if len(size) != 4:
        return None
    shape = [old if new == -1 else new for old, new in zip(mask.shape, size, strict=True)]
    grows = [old != new for old, new in zip(mask.shape, shape, strict=True)]
    if any(grow and old != 1 for grow, old in zip(grows, mask.shape, strict=True)) or any(
        grows[2:]
    ):
        return None
    strides = [0 if grow else n for grow, n in zip(grows, mask.stride(), strict=True)]
    placements = mask._placements * (shape[0] if len(mask._placements) == 1 else 1)
    return _as_view(
        mask,
        mask._derive(placements, shape, mask.device, strides, int(mask.storage_offset())),
        lambda elements: elements.expand(size),
    )


def _alias(mask: CausalMask) -> CausalMask:
    same = mask._derive(
        mask._placements, mask.shape, mask.device, mask.stride(), int(mask.storage_offset())
    )
    return _as_view(mask, same, lambda elements: elements)


def _to_copy(
    mask: CausalMask, *, dtype: Any = None, device: Any = None, **kwargs: Any
) -> CausalMask | None:
    if dtype not in (None, mask.dtype):
        return None
    device = mask.device if device is None else torch.device(device)
    return mask._derive(mask._placements, mask.shape, device)


def _index(mask: CausalMask, indices: Sequence[Tensor | None]) -> Tensor | None:
    """Rows picked by their numbers: the others need not be written out."""
    before, rows = indices[:2], indices[2] if len(indices) > 2 else None
    if any(i is not None for i in (*before, *indices[3:])) or rows is None or rows.ndim != 1:
        return None
    if rows.dtype not in (torch.int32, torch.int64):
        return None
    count = mask.shape[2]
    if bool(((rows < -count) | (rows >= count)).any()):
        return None  # torch says it better.
    picked = mask.dense(torch.where(rows < 0, rows + count, rows).to(mask.device))
    return picked.clone(memory_format=torch.contiguous_format)  # Not expanded: it may be written.


_KEPT: dict[Any, Callable[..., Tensor | None]] = {
    torch.ops.aten.slice.Tensor: _slice,
    torch.ops.aten.expand.default: _expand,
    torch.ops.aten.detach.default: _alias,
    torch.ops.aten.alias.default: _alias,
    torch.ops.aten._to_copy.default: _to_copy,
    torch.ops.aten.index.Tensor: _index,
}


# ---- transformers' mask function -----------------------------------------------------------------


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


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bool mask as one that is added to the logits; expanded, where that one is."""
    once = visible
    for dim, (size, stride) in enumerate(zip(visible.shape, visible.stride(), strict=True)):
        if stride == 0 and size > 1:
            once = once.narrow(dim, 0, 1)
    zero = torch.zeros((), dtype=dtype, device=visible.device)
    return torch.where(once, zero, torch.finfo(dtype).min).expand(visible.shape)


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
