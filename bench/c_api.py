# SPDX-License-Identifier: Apache-2.0
"""The one number that Python does not offer: how much work memory a C caller must bring."""

from __future__ import annotations

import ctypes
from pathlib import Path

import minference
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
    _fields_ = tuple((name, ctypes.c_int32) for name in ("kind", "a", "b", "c"))


_DTYPES = {"torch.float32": 0, "torch.bfloat16": 1, "torch.float16": 2}
_VERTICAL_SLASH = 2


def _view(x: Tensor) -> _Tensor:
    sizes = ctypes.c_int64 * 4
    return _Tensor(
        x.data_ptr(), _DTYPES[str(x.dtype)], 0, 0, x.ndim, sizes(*x.shape), sizes(*x.stride())
    )


def vertical_slash_workspace_bytes(q: Tensor, k: Tensor, budget: tuple[int, int]) -> int:
    """Ask minf_prefill_attention_workspace_bytes, for a call on all threads of this process."""
    library = ctypes.CDLL(str(Path(minference.__file__).with_name("libminference.so")))
    size = ctypes.c_size_t()
    status = library.minf_prefill_attention_workspace_bytes(
        ctypes.byref(_view(q)),
        ctypes.byref(_view(k)),
        ctypes.byref(_Pattern(_VERTICAL_SLASH, *budget, 0)),
        ctypes.c_int64(1),
        None,
        None,
        ctypes.byref(size),
    )
    if status != 0:
        library.minf_last_error.restype = ctypes.c_char_p
        raise RuntimeError(library.minf_last_error().decode())
    return size.value
