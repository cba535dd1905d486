# SPDX-License-Identifier: Apache-2.0
"""Keys that a model has chosen itself: natively sparse models hand over lists of keys or blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minference._C import BLOCK
from minference.integrations.transformers.masks import is_tracing

__all__ = ["KeyLists", "read_key_lists"]


@dataclass(frozen=True)
class KeyLists:
    """For every row the blocks of keys that it attends; blocks of one key are keys."""

    index: Tensor  # int [batch, lists, rows, blocks per row]; below 0: none.
    block_size: int  # Keys per block.
    num_heads_q: int
    seqlen_k: int

    @property
    def num_blocks(self) -> int:
        """Blocks that the keys make; an entry from here on is none, as one below 0 is."""
        return -(-self.seqlen_k // self.block_size)

    def rows(self, part: slice) -> Tensor:
        """The mask that they stand for, of some rows: bool ``[batch, 1 or heads, rows, keys]``."""
        index = self._without_nones(self.index[:, :, part].long())
        listed = index.new_zeros((*index.shape[:3], self.num_blocks + 1), dtype=torch.bool)
        listed = listed.scatter_(3, index, value=True)[..., : self.num_blocks]
        if self.block_size > 1:
            listed = listed.repeat_interleave(self.block_size, dim=3)[..., : self.seqlen_k]
        heads = self.num_heads_q // index.shape[1]
        return listed if index.shape[1] == 1 else listed.repeat_interleave(heads, dim=1)

    def _without_nones(self, index: Tensor) -> Tensor:
        """Give what is no block the number after the last block."""
        is_block = (index >= 0) & (index < self.num_blocks)
        return torch.where(is_block, index, self.num_blocks)

    def as_row_blocks(self) -> Tensor | None:
        """Return the lists as ``block_index_attn`` takes them, if that can be done.

        It has one list for 64 rows: their lists must name the same blocks, each of them once.
        """
        if self.block_size % BLOCK or is_tracing(self.index):
            return None
        batch, lists, rows, size = self.index.shape
        index = self._without_nones(self.index).sort(dim=3).values
        padding = -rows % BLOCK
        index = torch.cat([index, index[:, :, -1:].expand(-1, -1, padding, -1)], dim=2)
        index = index.reshape(batch, lists, -1, BLOCK, size)
        twice = (index[..., 1:] == index[..., :-1]) & (index[..., 1:] < self.num_blocks)
        if bool((index != index[:, :, :, :1]).any() | twice.any()):
            return None
        parts = self.block_size // BLOCK
        part = torch.arange(parts, device=index.device)
        blocks = (index[:, :, :, 0, :, None] * parts + part).flatten(3)
        exists = blocks < -(-self.seqlen_k // BLOCK)  # Those of the kernels, of 64 keys.
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
        ValueError: They have another shape or dtype, or name a key that is not there.
        NotImplementedError: Nothing says how large the blocks are.
    """
    batch, num_heads_q, rows, _ = query.shape
    num_heads_kv, seqlen_k = key.shape[1:3]
    if indices is not None and block_indices is not None:
        msg = "minference: indices, block_indices: expected one of them, got both"
        raise ValueError(msg)
    if indices is not None:
        if tuple(indices.shape[:-1]) != (batch, rows):
            msg = (
                f"minference: indices: expected [{batch}, {rows}, keys per row], got"
                f" {tuple(indices.shape)}"
            )
            raise ValueError(msg)
        lists = KeyLists(indices[:, None], 1, num_heads_q, seqlen_k)
        return _checked(lists, "indices")
    if block_indices is None:
        return None
    block_size = getattr(getattr(layer, "indexer", None), "block_size", None)
    if not isinstance(block_size, int):
        msg = (
            f"minference: {type(layer).__name__}: block_indices: expected a layer with an"
            " indexer.block_size, for nothing else says how many keys a block has"
        )
        raise NotImplementedError(msg)
    shape = tuple(block_indices.shape)
    is_of_call = len(shape) == 4 and (shape[0], shape[2]) == (batch, rows)
    if not is_of_call or shape[1] == 0 or num_heads_q % shape[1]:
        msg = (
            f"minference: block_indices: expected [{batch}, {num_heads_kv}, {rows}, blocks per"
            f" row], got {shape}"
        )
        raise ValueError(msg)
    return _checked(KeyLists(block_indices, block_size, num_heads_q, seqlen_k), "block_indices")


def _checked(lists: KeyLists, name: str) -> KeyLists:
    """Refuse what is no index. On a GPU, where to look is to wait, one out of range is none."""
    index = lists.index
    if index.is_floating_point() or index.dtype == torch.bool:
        msg = f"minference: {name}: expected integers, got {index.dtype}"
        raise ValueError(msg)
    may_look = index.device.type == "cpu" and not is_tracing(index)
    if may_look and bool((index >= lists.num_blocks).any()):
        msg = f"minference: {name}: expected entries within {lists.seqlen_k} keys, got others"
        raise ValueError(msg)
    return lists
