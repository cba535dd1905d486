# SPDX-License-Identifier: Apache-2.0
"""What minference is compared with: torch SDPA by backend, FlexAttention, onnxruntime.

Each takes ``[batch, seqlen, heads, head_dim]`` as minference does, and converts it to its own
layout before the clock starts. Results must be checked before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from bench.inputs import Qkv
from bench.reference import Head

FA2, CUDNN = "FlashAttention-2", "cuDNN"
BACKENDS = {FA2: SDPBackend.FLASH_ATTENTION, CUDNN: SDPBackend.CUDNN_ATTENTION}
# Some kernels have 32-bit offsets, so longer tensors are split into groups of heads, each copied
# together.
MAX_ELEMENTS = 2**31 - 1


class Sdpa:
    """Causal attention by a backend of BACKENDS, or by torch's choice; the last row sees all keys.

    Strided views cost a CPU nothing: they measured the same as copies.
    """

    def __init__(self, name: str, q: Tensor, k: Tensor, v: Tensor) -> None:
        self._backend = BACKENDS.get(name)
        # One row sees all keys, but is_causal would align the first row with the first key.
        rows, keys = q.shape[1], k.shape[1]
        self._mask = causal_lower_right(rows, keys) if 1 < rows < keys else None
        self._is_causal = rows == keys
        self._gqa = q.shape[2] != k.shape[2]
        heads_first = [x.transpose(1, 2) for x in (q, k, v)]
        if self._gqa and not self._serves_gqa(heads_first):
            group = q.shape[2] // k.shape[2]
            heads_first[1:] = [x.repeat_interleave(group, dim=1) for x in heads_first[1:]]
            self._gqa = False
        count = 1
        while q.numel() // count > MAX_ELEMENTS:
            count *= 2
        self._groups = [heads_first]
        if count > 1:
            chunks = ([c.contiguous() for c in x.chunk(count, dim=1)] for x in heads_first)
            self._groups = list(zip(*chunks, strict=True))

    def _serves_gqa(self, heads_first: list[Tensor]) -> bool:
        rows = min(256, heads_first[0].shape[2])  # Square: asks about GQA, not is_causal.
        try:
            self._attend(*(x[:, :, -rows:] for x in heads_first), mask=None, causal=True)
        except RuntimeError:
            return False
        return True

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool
    ) -> Tensor:
        chosen = sdpa_kernel(self._backend) if self._backend is not None else nullcontext()
        with chosen, torch.no_grad():
            return scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self._gqa
            )

    def __call__(self) -> list[Tensor]:
        """One result per group of heads."""
        return [
            self._attend(*group, mask=self._mask, causal=self._is_causal) for group in self._groups
        ]

    @staticmethod
    def head(results: list[Tensor]) -> Head:
        heads = results[0].shape[1]
        return lambda head: results[head // heads][0, head % heads]

    def short(self, rows: int) -> Callable[[], object]:
        """Only the first rows: a warm-up where a whole call takes long."""
        first = [x[:, :, :rows] for x in self._groups[0]]
        return lambda: self._attend(*first, mask=None, causal=True)


# ---- FlexAttention, compiled: the first call compiles --------------------------------------------


def flex(qkv: Qkv, mask: object, *, block: int | None = None) -> Callable[[], Tensor]:
    """Return a call to ``[batch, heads, seqlen, head_dim]``. ``block``: the size of its tiles."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    heads_first = [x.transpose(1, 2).contiguous() for x in qkv]
    options = {"BLOCK_M": block, "BLOCK_N": block} if block and qkv[0].is_cuda else None

    def run() -> Tensor:
        with torch.no_grad():
            return compiled(*heads_first, block_mask=mask, enable_gqa=True, kernel_options=options)

    return run


def a_shape_mask(seqlen: int, device: str, *, sink: int, window: int) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    def keep(_batch: Tensor, _head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return (key <= row) & ((key < sink) | (row - key < window))

    # Compiled, it only looks at blocks; otherwise at all pairs at once, which at 128K fit no
    # memory.
    make_mask = torch.compile(create_block_mask) if device == "cuda" else create_block_mask
    return make_mask(keep, None, None, seqlen, seqlen, device=device)


def block_mask(block_index: Tensor) -> object:
    """Blocks of 64, masked on the diagonal, otherwise whole; seqlen is a multiple of 64.

    ``block_index``: as ``minference.block_index_attn`` takes it.
    """
    from torch.nn.attention.flex_attention import BlockMask

    def causal(_batch: Tensor, _head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return key <= row

    batch, heads, row_blocks, _ = block_index.shape
    # As many columns as there are key blocks, because BlockMask transposes the lists.
    room = torch.full((batch, heads, row_blocks, row_blocks + 1), -1, device=block_index.device)
    listed = torch.where(block_index < 0, row_blocks, block_index).long()
    room = room.scatter_(-1, listed, listed)[..., :row_blocks]
    diagonal = torch.arange(row_blocks, device=room.device)[:, None]
    whole = (room >= 0) & (room != diagonal)
    partial = (room == diagonal).any(dim=-1).to(torch.int32)
    # Listed blocks first, in order. What follows the count is not read, but must be valid ids.
    order = whole.logical_not().to(torch.int8).argsort(dim=-1, stable=True).to(torch.int32)
    own = diagonal.to(torch.int32).expand(batch, heads, -1, row_blocks).contiguous()
    count = whole.sum(dim=-1).to(torch.int32)
    return BlockMask.from_kv_blocks(
        partial, own, count, order, BLOCK_SIZE=(64, 64), mask_mod=causal
    )


# ---- onnxruntime ---------------------------------------------------------------------------------


class OrtAttention:
    """onnxruntime's GroupQueryAttention, fp32: dense causal, one graph of one node.

    NOTE: the outputs present_key and present_value must be bound. Without them the operator runs at
    half the speed.
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, *, num_threads: int) -> None:
        import onnxruntime
        from onnx import TensorProto, helper

        batch, seqlen, heads_kv, head_dim = k.shape
        self.out = torch.empty_like(q)
        inputs = {"query": q.flatten(2), "key": k.flatten(2), "value": v.flatten(2)}
        inputs["seqlens_k"] = torch.full((batch,), seqlen - 1, dtype=torch.int32)  # Less one.
        inputs["total_sequence_length"] = torch.tensor([seqlen], dtype=torch.int32)
        present = torch.empty(2, batch, heads_kv, seqlen, head_dim)
        outputs = {"output": self.out.flatten(2)}
        outputs |= {"present_key": present[0], "present_value": present[1]}

        def infos(tensors: dict[str, Tensor]) -> list[object]:
            kinds = {torch.float32: TensorProto.FLOAT, torch.int32: TensorProto.INT32}
            return [
                helper.make_tensor_value_info(name, kinds[x.dtype], x.shape)
                for name, x in tensors.items()
            ]

        names = ["query", "key", "value", "", "", "seqlens_k", "total_sequence_length"]
        node = helper.make_node(
            "GroupQueryAttention", names, list(outputs), domain="com.microsoft",
            num_heads=q.shape[2], kv_num_heads=heads_kv,
        )  # fmt: skip
        graph = helper.make_graph([node], "attention", infos(inputs), infos(outputs))
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.log_severity_level = 3
        # Its threads would keep spinning after a call, on the next contender's cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._memory = (inputs, outputs)  # Kept alive, because the binding only holds addresses.
        self._binding = self._session.io_binding()
        for bind, tensors in (
            (self._binding.bind_input, inputs),
            (self._binding.bind_output, outputs),
        ):
            for name, x in tensors.items():
                bind(name, "cpu", 0, x.numpy().dtype, tuple(x.shape), x.data_ptr())

    def __call__(self) -> Tensor:
        self._session.run_with_iobinding(self._binding)
        return self.out
