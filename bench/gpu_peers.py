# SPDX-License-Identifier: Apache-2.0
"""Attention of other libraries on a GPU: torch SDPA by backend, and FlexAttention.

Each takes ``[batch, seqlen, heads, head_dim]`` as minference does; the layout that it wants is made
before the clock starts. What it computes must be checked before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

BACKENDS = {
    "FlashAttention-2": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
# Kernels with 32-bit offsets exist; longer tensors go in groups of heads, each copied together.
MAX_ELEMENTS = 2**31 - 1

# Of a peer's result: one head of batch 0, [seqlen_q, head_dim].
Head = Callable[[int], Tensor]


class Sdpa:
    """Causal attention by one backend of torch; the last row sees all keys."""

    def __init__(self, backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> None:
        self._backend = backend
        # One row sees all keys; is_causal would align the first row with the first key.
        rows, keys = q.shape[1], k.shape[1]
        self._mask = causal_lower_right(rows, keys) if 1 < rows < keys else None
        self._is_causal = rows == keys
        self._gqa = q.shape[2] != k.shape[2]
        heads_first = [x.transpose(1, 2) for x in (q, k, v)]
        if self._gqa and not self._serves_gqa(heads_first):
            group = q.shape[2] // k.shape[2]
            heads_first[1:] = [x.repeat_interleave(group, dim=1) for x in heads_first[1:]]
            self._gqa = False
        self._groups = grouped(*heads_first)

    def _serves_gqa(self, heads_first: list[Tensor]) -> bool:
        rows = min(256, heads_first[0].shape[2])  # Square: that is_causal is served is not asked.
        try:
            self._attend(*(x[:, :, -rows:] for x in heads_first), mask=None, causal=True)
        except RuntimeError:
            return False
        return True

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool
    ) -> Tensor:
        with sdpa_kernel(self._backend), torch.no_grad():
            return scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self._gqa
            )

    def __call__(self) -> list[Tensor]:
        """One result per group of heads."""
        return [
            self._attend(*group, mask=self._mask, causal=self._is_causal) for group in self._groups
        ]

    def head(self, results: list[Tensor]) -> Head:
        heads = results[0].shape[1]
        return lambda head: results[head // heads][0, head % heads]

    def short(self, rows: int) -> Callable[[], object]:
        """The first rows alone: to warm up where a whole call takes long."""
        first = [x[:, :, :rows] for x in self._groups[0]]
        return lambda: self._attend(*first, mask=None, causal=True)


def grouped(q: Tensor, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Groups of heads of heads-first tensors that each stay below MAX_ELEMENTS."""
    count = 1
    while q.numel() // count > MAX_ELEMENTS:
        count *= 2
    if count == 1:
        return [(q, k, v)]
    parts = ([part.contiguous() for part in x.chunk(count, dim=1)] for x in (q, k, v))
    return list(zip(*parts, strict=True))


# ---- FlexAttention -------------------------------------------------------------------------------


class Flex:
    """FlexAttention, compiled, over 64-wide blocks: the first call compiles."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, block_index: Tensor) -> None:
        """``block_index``: as ``minference.block_index_attn`` takes it; seqlen a multiple of 64."""
        from torch.nn.attention.flex_attention import flex_attention

        self._heads_first = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
        self._mask = block_mask(block_index)
        self._compiled = torch.compile(flex_attention, dynamic=False)
        # Its tiles must divide the mask's blocks.
        self._options = {"BLOCK_M": 64, "BLOCK_N": 64} if q.is_cuda else None

    def __call__(self) -> Tensor:
        with torch.no_grad():
            return self._compiled(
                *self._heads_first,
                block_mask=self._mask,
                enable_gqa=True,
                kernel_options=self._options,
            )


def block_mask(block_index: Tensor) -> object:
    """The blocks of each row block, those on the diagonal masked, the others whole."""
    from torch.nn.attention.flex_attention import BlockMask

    def causal(_batch: Tensor, _head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return key <= row

    batch, heads, row_blocks, _ = block_index.shape
    # As many columns as there are key blocks: BlockMask transposes the lists.
    room = torch.full((batch, heads, row_blocks, row_blocks + 1), -1, device=block_index.device)
    listed = torch.where(block_index < 0, row_blocks, block_index).long()
    room.scatter_(-1, listed, listed)
    room = room[..., :row_blocks]
    diagonal = torch.arange(row_blocks, device=room.device)[:, None]
    whole = (room >= 0) & (room != diagonal)
    partial = (room == diagonal).any(dim=-1).to(torch.int32)
    # Listed ones first, in order; what follows the count is not read, but must be an id.
    order = whole.logical_not().to(torch.int8).argsort(dim=-1, stable=True).to(torch.int32)
    own = diagonal.to(torch.int32).expand(batch, heads, -1, row_blocks).contiguous()
    return BlockMask.from_kv_blocks(
        partial,
        own,
        whole.sum(dim=-1).to(torch.int32),
        order,
        BLOCK_SIZE=(64, 64),
        mask_mod=causal,
    )
