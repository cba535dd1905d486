# SPDX-License-Identifier: Apache-2.0
"""What a call would do: which backend and which implementation, how many tiles, how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minference import _C
from minference.ops import density
from minference.patterns import Pattern, to_tensor

__all__ = ["Explanation", "explain"]

_DTYPES = {getattr(torch, name): number for name, number in _C.DTYPES.items()}


@dataclass(frozen=True)
class Explanation:
    """How :func:`minference.prefill_attn` would serve a call; ``print`` it to read it.

    Attributes:
        backend: The backend that serves the tensors' device.
        implementations: Its implementations of attention, in order; one is ``selected`` to serve
            the call, and ``reason`` says why an earlier one does not.
        patterns: One per query head, or one for all.
        density: The share of the dense causal tiles, float64 ``[batch, num_heads_q]`` on the CPU.
        workspace_bytes: Work memory of the call, the index included.
    """

    backend: str
    implementations: tuple[_C.Capability, ...]
    patterns: tuple[Pattern, ...]
    density: Tensor
    workspace_bytes: int

    def __str__(self) -> str:
        lines = [f"backend {self.backend}"]
        for entry in self.implementations:
            if entry["selected"]:
                lines.append(f"attention {entry['name']}")
            elif entry["reason"]:
                lines.append(f"  not {entry['name']}: {entry['reason']}")
        lines.append(f"workspace {self.workspace_bytes / 2**20:.1f} MiB")
        mean = self.density.mean(0)
        lines.append(f"density {float(self.density.mean()):.3f}, by head:")
        for head, share in enumerate(mean.tolist()):
            pattern = self.patterns[0 if len(self.patterns) == 1 else head]
            lines.append(f"  {head:3d}  {share:.3f}  {pattern!r}")
        return "\n".join(lines)


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patterns: Pattern | Sequence[Pattern],
    *,
    softmax_scale: float | None = None,
) -> Explanation:
    """Explain how :func:`minference.prefill_attn` would serve a call, without computing attention.

    Vertical-slash and block-sparse heads are estimated, because the density depends on the result.
    Arguments and errors are those of :func:`minference.prefill_attn`.
    """
    share = density(q, k, patterns, softmax_scale=softmax_scale)  # Checks everything but v.
    rows = to_tensor(patterns).tolist()
    queries, keys = _describe(q), _describe(k)
    implementations = _C.attention_implementations(queries, keys, _describe(v), rows)
    backends = [entry["name"] for entry in _C.backends() if entry["selected"]]
    return Explanation(
        backend=next(name for name in backends if (name != "cpu") == q.is_cuda),
        implementations=tuple(implementations),
        patterns=(patterns,) if isinstance(patterns, Pattern) else tuple(patterns),
        density=share.cpu(),
        workspace_bytes=_C.prefill_workspace_bytes(queries, keys, rows),
    )


def _describe(tensor: Tensor) -> _C.Description:
    if tensor.dtype not in _DTYPES:
        msg = f"expected float32, bfloat16 or float16, got {tensor.dtype}"
        raise ValueError(msg)
    return (
        tensor.data_ptr(),
        _DTYPES[tensor.dtype],
        tensor.is_cuda,
        tensor.device.index or 0,
        list(tensor.shape),
        list(tensor.stride()),
    )
