# SPDX-License-Identifier: Apache-2.0
"""A causal mask that is not written out, and the operations that leave it one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

__all__ = ["CausalMask", "Placement", "additive"]


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
        """Create the mask; see :class:`Placement`.

        ``strides`` and ``offset`` are those that the elements of a view have: torch chooses by them
        whether it may take views of it. Default: of a contiguous tensor.
        """
        shape = (len(placements), heads, rows, keys)
        contiguous = (heads * rows * keys, rows * keys, keys, 1)
        mask: CausalMask = torch.Tensor._make_wrapper_subclass(
            cls,
            shape,
            strides=strides or contiguous,
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

    def _view(
        self,
        placements: Sequence[Placement],
        shape: Sequence[int],
        strides: Sequence[int],
        offset: int,
        taken: Callable[[Tensor], Tensor],
    ) -> CausalMask:
        """Return a view of this mask; ``taken`` takes it of this mask's elements."""
        _, heads, rows, keys = shape
        view = CausalMask(
            placements,
            rows,
            keys,
            self.device,
            self.dtype,
            heads=heads,
            strides=strides,
            offset=offset,
        )
        view._root, view._views = self._root, (*self._views, taken)
        return view

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
    return mask._view(
        placements,
        shape,
        mask.stride(),
        int(mask.storage_offset()) + begin * mask.stride(dim),
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
    if any(grow and old != 1 for grow, old in zip(grows, mask.shape, strict=True)):
        return None  # torch says what is wrong.
    if any(grows[2:]):
        return None
    strides = [0 if grow else n for grow, n in zip(grows, mask.stride(), strict=True)]
    placements = mask._placements * (shape[0] if grows[0] else 1)
    offset = int(mask.storage_offset())
    return mask._view(placements, shape, strides, offset, lambda elements: elements.expand(size))


def _alias(mask: CausalMask) -> CausalMask:
    offset = int(mask.storage_offset())
    return mask._view(
        mask._placements, mask.shape, mask.stride(), offset, lambda elements: elements
    )


def _to_copy(
    mask: CausalMask, *, dtype: Any = None, device: Any = None, **kwargs: Any
) -> CausalMask | None:
    if dtype not in (None, mask.dtype):
        return None
    _, heads, rows, keys = mask.shape
    device = mask.device if device is None else device
    return CausalMask(mask._placements, rows, keys, device, mask.dtype, heads=heads)


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


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bool mask as one that is added to the logits; expanded, where that one is."""
    once = visible
    for dim, (size, stride) in enumerate(zip(visible.shape, visible.stride(), strict=True)):
        if stride == 0 and size > 1:
            once = once.narrow(dim, 0, 1)
    zero = torch.zeros((), dtype=dtype, device=visible.device)
    return torch.where(once, zero, torch.finfo(dtype).min).expand(visible.shape)
