# SPDX-License-Identifier: Apache-2.0
"""Stage 2 by itself, which the Python package does not offer."""

from __future__ import annotations

import ctypes
from pathlib import Path

import minference
import torch
from torch import Tensor


class _Tensor(ctypes.Structure):  # minf_tensor
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("dtype", "device_type", "device_index", "ndim")),
        ("shape", ctypes.c_int64 * 4),
        ("stride", ctypes.c_int64 * 4),
    )

    @classmethod
    def of(cls, x: Tensor) -> _Tensor:
        sizes, device = ctypes.c_int64 * 4, (1, x.device.index) if x.is_cuda else (0, 0)
        int32 = 3
        return cls(x.data_ptr(), int32, *device, x.ndim, sizes(*x.shape), sizes(*x.stride()))


class _Exec(ctypes.Structure):  # minf_exec
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("num_threads", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("parallel_for", ctypes.c_void_p),
        ("parallel_for_context", ctypes.c_void_p),
    )


class Plan:
    """minf_plan_vertical_slash on the current stream, as a call of a few microseconds.

    Called with another ``slash_index`` of the same shape, it plans that one; the results are in
    ``runs`` and ``run_count``.
    """

    def __init__(self, slash_index: Tensor, seqlen_k: int) -> None:
        self._library = ctypes.CDLL(str(Path(minference.__file__).with_name("libminference.so")))
        self._library.minf_max_runs.restype = ctypes.c_int64
        self._library.minf_last_error.restype = ctypes.c_char_p
        self._seqlen_k = ctypes.c_int64(seqlen_k)
        max_runs = self._library.minf_max_runs(ctypes.c_int64(slash_index.shape[2]), self._seqlen_k)
        self.runs = slash_index.new_empty((*slash_index.shape[:2], max_runs, 2))
        self.run_count = slash_index.new_empty(slash_index.shape[:2])

    def __call__(self, slash_index: Tensor) -> tuple[Tensor, Tensor]:
        stream = torch.cuda.current_stream().cuda_stream if slash_index.is_cuda else None
        lists, *results = map(_Tensor.of, (slash_index, self.runs, self.run_count))
        status = self._library.minf_plan_vertical_slash(
            ctypes.byref(lists),
            self._seqlen_k,
            *map(ctypes.byref, results),
            ctypes.byref(_Exec(struct_size=ctypes.sizeof(_Exec), stream=stream)),
        )
        if status != 0:
            raise RuntimeError(self._library.minf_last_error().decode())
        return self.runs, self.run_count
