# SPDX-License-Identifier: Apache-2.0
"""Loads torch.ops.minference, and adds what C++ does not: fake kernels, autograd, error types."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from minference._C import BLOCK, DEFAULT_LAST_Q, DEFAULT_LOCAL, DEFAULT_SINK

MIN_TORCH = "2.11"

INVALID_ARGUMENT = "minference: invalid argument: "

# What the text of an op's error begins with -> what the Python functions raise. The stable ABI
# makes every C++ exception a RuntimeError, so the text carries the status. The prefixes are those
# of status_prefix() in csrc/torch/interop.h.
EXCEPTIONS: dict[str, type[Exception]] = {
    INVALID_ARGUMENT: ValueError,
    "minference: unsupported: ": NotImplementedError,
    "minference: out of memory: ": MemoryError,
    "minference: no device: ": NotImplementedError,
    "minference: driver too old: ": NotImplementedError,
    "minference: architecture not built: ": NotImplementedError,
    "minference: wrong device: ": ValueError,
    "minference: wrong stream: ": ValueError,
    "minference: launch failed: ": RuntimeError,
    "minference: CUDA: ": RuntimeError,
}


def load() -> None:
    """Load the op library beside this file."""
    if torch.__version__ < MIN_TORCH:
        msg = f"minference: expected torch {MIN_TORCH} or later, got {torch.__version__}"
        raise ImportError(msg)
    path = Path(__file__).parent / "libminference_torch.so"
    if not path.exists():
        msg = f"minference: {path} is missing; build it with `pip install -e .` or install a wheel"
        raise ImportError(msg)
    torch.ops.load_library(path)  # type: ignore[no-untyped-call]


def call(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a raw op; its RuntimeError becomes one of EXCEPTIONS, with the same text.

    torch itself refuses an argument of a type that the op does not take: that is a ValueError too.
    """
    if torch.compiler.is_compiling():
        return op(*args, **kwargs)
    try:
        return op(*args, **kwargs)
    except RuntimeError as error:
        text = str(error)
        for prefix, exception in EXCEPTIONS.items():
            if text.startswith(prefix):
                raise exception(text) from None
        if (wrong_type := _wrong_type(op, args, text)) is not None:
            msg = INVALID_ARGUMENT + wrong_type
            raise ValueError(msg) from None
        raise


WRONG_TYPE = re.compile(
    r"Expected a value of type '(.+?)' for argument '(.+?)' but instead found type '(.+?)'"
)


def _wrong_type(op: Any, args: tuple[Any, ...], text: str) -> str | None:
    """Reword torch's own error about an argument's type; None if it is about something else."""
    if (found := WRONG_TYPE.search(text)) is not None:
        expected, name, got = found.groups()
        got = f"{got} beyond 64 bits" if expected == got else got
        return f"{name}: expected {expected}, got {got}"
    for argument, value in zip(op._schema.arguments, args, strict=False):
        if value is None and str(argument.type) == "Tensor":
            return f"{argument.name}: expected Tensor, got None"
    return None


# ---- Fake kernels: shapes, dtypes and devices of the results, for tracing and meta tensors -------


def _check_devices(q: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.device != q.device:
            msg = (
                f"{INVALID_ARGUMENT}{name}: expected device {q.device}, that of the first"
                f" argument, got {tensor.device}"
            )
            raise RuntimeError(msg)


def _check_patterns(patterns: Tensor) -> None:
    if patterns.device.type != "cpu":
        msg = f"{INVALID_ARGUMENT}patterns: expected a tensor on the CPU, got {patterns.device}"
        raise RuntimeError(msg)


def _out_like(q: Tensor, v: Tensor) -> Tensor:
    return q.new_empty((*q.shape[:3], v.shape[3]))


def _lse_like(q: Tensor) -> Tensor:
    batch, seqlen_q, num_heads_q, _ = q.shape
    return q.new_empty((batch, num_heads_q, seqlen_q), dtype=torch.float32)


def _list_size(size: int, forced: int, seqlen_k: int) -> Any:
    largest = torch.sym_max(size, forced)  # type: ignore[no-untyped-call]
    return torch.sym_min(seqlen_k, largest)  # type: ignore[no-untyped-call]


def _fake_vs_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    vertical_size: int,
    slash_size: int,
    *,
    softmax_scale: float | None = None,
    last_q: int = DEFAULT_LAST_Q,
    sink: int = DEFAULT_SINK,
    local: int = DEFAULT_LOCAL,
) -> Tensor:
    _check_devices(q, k=k, v=v)
    return _out_like(q, v)


def _fake_a_shape_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: int,
    window: int,
    *,
    softmax_scale: float | None = None,
) -> Tensor:
    _check_devices(q, k=k, v=v)
    return _out_like(q, v)


def _fake_block_sparse_attn(
    q: Tensor, k: Tensor, v: Tensor, top_k: int, *, softmax_scale: float | None = None
) -> Tensor:
    _check_devices(q, k=k, v=v)
    return _out_like(q, v)


def _fake_prefill_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patterns: Tensor,
    *,
    softmax_scale: float | None = None,
    last_q: int | None = None,
    sink: int | None = None,
    local: int | None = None,
) -> tuple[Tensor, Tensor]:
    _check_devices(q, k=k, v=v)
    _check_patterns(patterns)
    return _out_like(q, v), _lse_like(q)


def _fake_estimate_vs(
    q: Tensor,
    k: Tensor,
    vertical_size: int,
    slash_size: int,
    *,
    softmax_scale: float | None = None,
    last_q: int = DEFAULT_LAST_Q,
    sink: int = DEFAULT_SINK,
    local: int = DEFAULT_LOCAL,
    vertical_p: float = 1.0,
    slash_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    _check_devices(q, k=k)
    heads = (q.shape[0], q.shape[2])
    columns = _list_size(vertical_size, sink, k.shape[1])
    distances = _list_size(slash_size, local, k.shape[1])
    return (
        q.new_empty((*heads, columns), dtype=torch.int32),
        q.new_empty((*heads, distances), dtype=torch.int32),
    )


def _fake_estimate_blocks(
    q: Tensor, k: Tensor, top_k: int, *, softmax_scale: float | None = None, top_p: float = 1.0
) -> Tensor:
    _check_devices(q, k=k)
    batch, seqlen_q, num_heads_q, _ = q.shape
    row_blocks = (seqlen_q + BLOCK - 1) // BLOCK
    return q.new_empty((batch, num_heads_q, row_blocks, top_k), dtype=torch.int32)


def _fake_vs_sparse_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    vertical_index: Tensor,
    slash_index: Tensor,
    *,
    softmax_scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    _check_devices(q, k=k, v=v, vertical_index=vertical_index, slash_index=slash_index)
    return _out_like(q, v), _lse_like(q)


def _fake_block_index_attn(
    q: Tensor, k: Tensor, v: Tensor, block_index: Tensor, *, softmax_scale: float | None = None
) -> tuple[Tensor, Tensor]:
    _check_devices(q, k=k, v=v, block_index=block_index)
    return _out_like(q, v), _lse_like(q)


def _fake_merge_attn(
    out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor
) -> tuple[Tensor, Tensor]:
    _check_devices(out_a, lse_a=lse_a, out_b=out_b, lse_b=lse_b)
    return _out_like(out_a, out_a), _lse_like(out_a)


def _fake_count_key_tiles(
    q: Tensor, k: Tensor, patterns: Tensor, *, softmax_scale: float | None = None
) -> Tensor:
    _check_devices(q, k=k)
    _check_patterns(patterns)
    return q.new_empty((q.shape[0], q.shape[2]), dtype=torch.int64)


# ---- Autograd ------------------------------------------------------------------------------------


def _refuse_backward(name: str) -> Callable[..., NoReturn]:
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        msg = (
            f"minference::{name} has no backward: it serves prefill. Call it under torch.no_grad(),"
            " or train with a dense attention"
        )
        raise NotImplementedError(msg)

    return backward


# ---- Autocast ------------------------------------------------------------------------------------


def _autocast(name: str, device_type: str, key: str) -> Callable[..., Any]:
    """Return the op's kernel under autocast: like SDPA, it casts inputs to autocast's dtype."""
    op = getattr(torch.ops.minference, name).default
    autocast_only = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def cast(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.device.type != device_type:
            return value
        if not value.is_floating_point() or value.dtype == torch.float64:
            return value
        return value.to(torch.get_autocast_dtype(device_type))

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast_only):
            return op(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return kernel


# merge_attn is left as it is: its inputs are results of attention, with lse in float32.
NOT_AUTOCAST = ("merge_attn",)
AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


FAKES: dict[str, Callable[..., Any]] = {
    "vs_attn": _fake_vs_attn,
    "a_shape_attn": _fake_a_shape_attn,
    "block_sparse_attn": _fake_block_sparse_attn,
    "prefill_attn": _fake_prefill_attn,
    "estimate_vs": _fake_estimate_vs,
    "estimate_blocks": _fake_estimate_blocks,
    "vs_sparse_attn": _fake_vs_sparse_attn,
    "block_index_attn": _fake_block_index_attn,
    "merge_attn": _fake_merge_attn,
    "count_key_tiles": _fake_count_key_tiles,
}

load()
for _name, _fake in FAKES.items():
    torch.library.register_fake(f"minference::{_name}", _fake)
    torch.library.register_autograd(f"minference::{_name}", _refuse_backward(_name))
    if _name not in NOT_AUTOCAST:
        for _device, _key in AUTOCAST_KEYS.items():
            torch.library.impl(f"minference::{_name}", _key, _autocast(_name, _device, _key))
