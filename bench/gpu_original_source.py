# SPDX-License-Identifier: Apache-2.0
"""MInference's own attention, from its source package: the pipeline that users run today.

    export MINFERENCE_SKIP_CUDA_BUILD=TRUE
    pip download --no-deps --no-binary :all: --no-build-isolation minference
    tar xf minference-*.tar.gz    # then: --original minference-0.1.6.0

Its Triton kernel and the code around it are imported from there, never copied. Selecting columns
and distances is `gpu_original.py`'s: the module that does it needs a model library. So is the
conversion to lists per row block, where the package's compiled one has not been built in place.

Head after head, as there; K and V come repeated to all query heads, untimed.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from pathlib import Path

import torch
from torch import Tensor

from bench import gpu_original
from bench.gpu_attention_reference import Keys, causal

PACKAGE = "minference_original"  # `minference` is ours as well.
MODULE = "pit_sparse_flash_attention_v2"


@functools.cache  # Modules are loaded once in a process.
class OriginalSource:
    """The package in ``folder``, which holds ``minference/ops``."""

    def __init__(self, folder: Path) -> None:
        package = folder / "minference"
        if not (package / "ops" / f"{MODULE}.py").is_file():
            msg = f"{folder} holds no minference/ops/{MODULE}.py"
            raise RuntimeError(msg)
        self.conversion = "its own"
        for name, path in ((PACKAGE, package), (f"{PACKAGE}.ops", package / "ops")):
            module = types.ModuleType(name)
            module.__path__ = [str(path)]
            sys.modules[name] = module
        try:
            importlib.import_module(f"{PACKAGE}.cuda")
        except ImportError:
            self.conversion = "that of gpu_original.py"
            module = types.ModuleType(f"{PACKAGE}.cuda")
            module.convert_vertical_slash_indexes = convert
            sys.modules[module.__name__] = module
        self._ops = importlib.import_module(f"{PACKAGE}.ops.{MODULE}")
        # Else other libraries' kernels, where they are installed, take the place of the Triton one.
        self._ops.sparse_attn_func = self._ops.convert_vertical_slash_indexes_opt = None

    def attention(self, q: Tensor, k: Tensor, v: Tensor, budget: tuple[int, int]) -> Tensor:
        """A layer; ``[heads, seqlen, head_dim]``, as many heads in k and v as in q."""
        out = torch.empty_like(q)
        for head in range(q.shape[0]):
            one = slice(head, head + 1)
            columns, distances = gpu_original.select(q[one], k[one], budget)
            out[one] = self._ops.vertical_slash_sparse_attention(
                q[one][None], k[one][None], v[one][None], columns[None], distances[None]
            )[0]
        return out


def convert(
    seqlens: Tensor, columns: Tensor, distances: Tensor, context: int, block_m: int, block_n: int
) -> tuple[Tensor, ...]:
    """In place of the compiled function of this name, for one sequence."""
    if len(seqlens) != 1 or (block_m, block_n) != (gpu_original.BLOCK, gpu_original.BLOCK):
        msg = "only one sequence, in blocks of 64"
        raise ValueError(msg)
    lists = gpu_original.convert_heads(columns[0], distances[0], context)
    fields = lists.block_count, lists.block_offset, lists.column_count, lists.column_index
    return tuple(field[None] for field in fields)


def keys_of(q: Tensor, k: Tensor, budget: tuple[int, int]) -> Keys:
    """What the original's own selection attends, by the slow reference of the conversion."""

    def keys(position: Tensor, head: int) -> Tensor:
        one = slice(head, head + 1)
        columns, distances = (x[0].tolist() for x in gpu_original.select(q[one], k[one], budget))
        seqlen_k = k.shape[1]
        mask = torch.zeros((len(position), seqlen_k + gpu_original.BLOCK), dtype=torch.bool)
        for row, row_block in enumerate((position // gpu_original.BLOCK).tolist()):
            blocks, singles = gpu_original.convert_row(columns, distances, row_block)
            for first in blocks:
                mask[row, first : first + gpu_original.BLOCK] = True
            mask[row, singles] = True
        return mask[:, :seqlen_k].to(position.device) & causal(position, seqlen_k)

    return keys
