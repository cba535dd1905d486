# SPDX-License-Identifier: Apache-2.0
"""What Python does not offer: the work memory that a C caller must bring, and stage 2 by itself."""

from __future__ import annotations

import ctypes
from pathlib import Path

import minference
import torch
from torch import Tensor


class _Tensor(ctypes.Structure):  # minf_tensor
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("device_type", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
        ("stride", ctypes.c_int64 * 4),
    )


class _Pattern(ctypes.Structure):  # minf_pattern
    _fields_ = (("kind", ctypes.c_int32), ("rest", ctypes.c_int32 * 15))


class _Exec(ctypes.Structure):  # minf_exec
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("num_threads", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("parallel_for", ctypes.c_void_p),
        ("parallel_for_context", ctypes.c_void_p),
    )


_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int32: 3}
_VERTICAL_SLASH = 2


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(minference.__file__).with_name("libminference.so")))
    library.minf_max_runs.restype = ctypes.c_int64
    library.minf_last_error.restype = ctypes.c_char_p
    return library


def _view(x: Tensor) -> _Tensor:
    sizes = ctypes.c_int64 * 4
    device = (1, x.device.index) if x.is_cuda else (0, 0)
    return _Tensor(
        x.data_ptr(), _DTYPES[x.dtype], *device, x.ndim, sizes(*x.shape), sizes(*x.stride())
    )


def _check(library: ctypes.CDLL, status: int) -> None:
    if status != 0:
        raise RuntimeError(library.minf_last_error().decode())


def vertical_slash_workspace_bytes(q: Tensor, k: Tensor, budget: tuple[int, int]) -> int:
    """Ask minf_prefill_attention_workspace_bytes, for a call on all threads of this process."""
    library = _library()
    numbers = (ctypes.c_double * 3)(_VERTICAL_SLASH, *budget)
    pattern = _Pattern()
    _check(
        library,
        library.minf_pattern_from_numbers(numbers, ctypes.c_int64(3), ctypes.byref(pattern)),
    )
    size = ctypes.c_size_t()
    status = library.minf_prefill_attention_workspace_bytes(
        ctypes.byref(_view(q)),
        ctypes.byref(_view(k)),
        ctypes.byref(pattern),
        ctypes.c_int64(1),
        None,
        ctypes.byref(size),
    )
    _check(library, status)
    return size.value


class Plan:
    """minf_plan_vertical_slash on the current stream, as a call of few microseconds.

    Calling it with another ``slash_index`` of the same shape plans that; the results are in
    ``runs`` and ``run_count``.
    """

    def __init__(self, slash_index: Tensor, seqlen_k: int) -> None:
        self._library = _library()
        max_runs = self._library.minf_max_runs(
            ctypes.c_int64(slash_index.shape[2]), ctypes.c_int64(seqlen_k)
        )
        self._seqlen_k = ctypes.c_int64(seqlen_k)
        self.runs = slash_index.new_empty((*slash_index.shape[:2], max_runs, 2))
        self.run_count = slash_index.new_empty(slash_index.shape[:2])
        self._results = _view(self.runs), _view(self.run_count)

    def __call__(self, slash_index: Tensor) -> tuple[Tensor, Tensor]:
        stream = torch.cuda.current_stream().cuda_stream if slash_index.is_cuda else None
        execution = _Exec(struct_size=ctypes.sizeof(_Exec), stream=stream)
        status = self._library.minf_plan_vertical_slash(
            ctypes.byref(_view(slash_index)),
            self._seqlen_k,
            *(ctypes.byref(result) for result in self._results),
            ctypes.byref(execution),
        )
        _check(self._library, status)
        return self.runs, self.run_count
