# SPDX-License-Identifier: Apache-2.0
"""Keys that a model has chosen itself: natively sparse models hand over lists of keys or blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minference._library import ROW_BLOCK
from minference.integrations.transformers.masks import is_tracing

__all__ = ["KeyLists", "read_key_lists"]


@dataclass(frozen=True)
class KeyLists:
    """For every row the blocks of keys that it attends; blocks of one key are keys."""

    index: Tensor  # int [batch, lists, rows, blocks per row]; below 0: none.
    block_size: int  # Keys per block.
    num_heads_q: int
    seqlen_k: int

    def rows(self, part: slice) -> Tensor:
        """The mask that they stand for, of some rows: bool ``[batch, 1 or heads, rows, keys]``."""
        index = self.index[:, :, part].long()
        num_blocks = -(-self.seqlen_k // self.block_size)
        listed = index.new_zeros((*index.shape[:3], num_blocks + 1), dtype=torch.bool)
        # What is no block goes into a column that is cut off.
        is_block = (index >= 0) & (index < num_blocks)
        listed.scatter_(3, torch.where(is_block, index, num_blocks), value=True)
        listed = listed[..., :num_blocks]
        if self.block_size > 1:
            listed = listed.repeat_interleave(self.block_size, dim=3)[..., : self.seqlen_k]
        heads = self.num_heads_q // index.shape[1]
        return listed if index.shape[1] == 1 else listed.repeat_interleave(heads, dim=1)

    def as_row_blocks(self) -> Tensor | None:
        """Return the lists as ``block_index_attn`` takes them, if that can be done.

        It has one list for 64 rows: their lists must name the same blocks, each of them once.
        """
        if self.block_size % ROW_BLOCK or is_tracing(self.index):
            return None
        batch, lists, rows, size = self.index.shape
        num_blocks = -(-self.seqlen_k // self.block_size)
        last = num_blocks * self.block_size // ROW_BLOCK  # Greater than any block of the kernels.
        is_block = (self.index >= 0) & (self.index < num_blocks)
        index = torch.where(is_block, self.index, num_blocks).sort(dim=3).values
        padding = -rows % ROW_BLOCK
        index = torch.cat([index, index[:, :, -1:].expand(-1, -1, padding, -1)], dim=2)
        index = index.reshape(batch, lists, -1, ROW_BLOCK, size)
        twice = (index[..., 1:] == index[..., :-1]) & (index[..., 1:] < num_blocks)
        if bool((index != index[:, :, :, :1]).any() | twice.any()):
            return None
        parts = self.block_size // ROW_BLOCK
        part = torch.arange(parts, device=index.device)
        blocks = (index[:, :, :, 0, :, None] * parts + part).flatten(3)
        exists = blocks < min(last, -(-self.seqlen_k // ROW_BLOCK))
        blocks = torch.where(exists, blocks, -1).to(torch.int32)
        return blocks.repeat_interleave(self.num_heads_q // lists, dim=1)


def read_key_lists(
    layer: nn.Module,
    indices: Tensor | None,
    block_indices: Tensor | None,
    query: Tensor,
    key: Tensor,
) -> KeyLists | None:
    """Return the lists of a call; see ``minference_attention_forward``.

    Raises:
        ValueError: They have another shape.
        NotImplementedError: Nothing says how large the blocks are.
    """
    batch, num_heads_q, rows, _ = query.shape
    num_heads_kv, seqlen_k = key.shape[1:3]
    if indices is not None and block_indices is not None:
        msg = "minference: indices, block_indices: expected one of them, got both"
        raise ValueError(msg)
    given = block_indices if indices is None else indices
    if given is not None and (given.is_floating_point() or given.dtype == torch.bool):
        msg = f"minference: indices, block_indices: expected integers, got {given.dtype}"
        raise ValueError(msg)
    # As with the ops: on a GPU, where to look is to wait, what is out of range is none.
    if given is not None and given.device.type == "cpu" and not is_tracing(given):
        block_size = 1 if indices is not None else _block_size(layer)
        if bool((given >= -(-seqlen_k // block_size)).any()):
            name = "indices" if indices is not None else "block_indices"
            msg = f"minference: {name}: expected entries within {seqlen_k} keys, got others"
            raise ValueError(msg)
    if indices is not None:
        if tuple(indices.shape[:-1]) != (batch, rows):
            msg = (
                f"minference: indices: expected [{batch}, {rows}, keys per row], got"
                f" {tuple(indices.shape)}"
            )
            raise ValueError(msg)
        return KeyLists(indices[:, None], 1, num_heads_q, seqlen_k)
    if block_indices is None:
        return None
    block_size = _block_size(layer)
    shape = tuple(block_indices.shape)
    if len(shape) != 4 or (shape[0], shape[2]) != (batch, rows) or num_heads_q % max(1, shape[1]):
        msg = (
            f"minference: block_indices: expected [{batch}, {num_heads_kv}, {rows}, blocks per"
            f" row], got {shape}"
        )
        raise ValueError(msg)
    return KeyLists(block_indices, block_size, num_heads_q, seqlen_k)


def _block_size(layer: nn.Module) -> int:
    block_size = getattr(getattr(layer, "indexer", None), "block_size", None)
    if not isinstance(block_size, int):
        msg = (
            f"minference: {type(layer).__name__}: block_indices: expected a layer with an"
            " indexer.block_size, for nothing else says how many keys a block has"
        )
        raise NotImplementedError(msg)
    return block_size
