# SPDX-License-Identifier: Apache-2.0
"""What minference is compared with on a CPU: torch SDPA, onnxruntime and FlexAttention.

Each peer takes the same tensors (``[batch, seqlen, heads, head_dim]``), whatever layout it wants is
given to it without a copy in the timed part, and it must match SDPA before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense causal attention of torch. Strided views cost it nothing: measured equal to copies."""
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads_first, is_causal=True, enable_gqa=q.shape[2] != k.shape[2]
    )
    return out.transpose(1, 2)


class OrtAttention:
    """onnxruntime's GroupQueryAttention, fp32: dense causal, one graph of one node.

    NOTE: the outputs present_key and present_value must be bound. Without them the operator takes
    a path of half the speed.
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, *, num_threads: int) -> None:
        import onnxruntime

        if {x.dtype for x in (q, k, v)} != {torch.float32}:
            msg = "GroupQueryAttention on a CPU is compared in fp32"
            raise ValueError(msg)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads would go on spinning after a call, on the cores of the next contender.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        model = _group_query_attention_model(q, k)
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

        batch, seqlen, heads_kv, head_dim = k.shape
        self.out = torch.empty_like(q)
        lengths = torch.full((batch,), seqlen - 1, dtype=torch.int32)  # Its seqlens_k: less one.
        total = torch.tensor([seqlen], dtype=torch.int32)
        inputs = {"query": q.flatten(2), "key": k.flatten(2), "value": v.flatten(2)}
        inputs |= {"seqlens_k": lengths, "total_sequence_length": total}
        present = {
            name: torch.empty(batch, heads_kv, seqlen, head_dim)
            for name in ("present_key", "present_value")
        }
        outputs = {"output": self.out.flatten(2)} | present
        self._memory = (inputs, outputs)  # The binding holds addresses only.
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


def _group_query_attention_model(q: Tensor, k: Tensor) -> bytes:
    from onnx import TensorProto, helper

    batch, seqlen, heads, head_dim = q.shape
    heads_kv = k.shape[2]

    def value(name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> object:
        return helper.make_tensor_value_info(name, dtype, shape)

    inputs = [
        value("query", batch, seqlen, heads * head_dim),
        value("key", batch, seqlen, heads_kv * head_dim),
        value("value", batch, seqlen, heads_kv * head_dim),
        value("seqlens_k", batch, dtype=TensorProto.INT32),
        value("total_sequence_length", 1, dtype=TensorProto.INT32),
    ]
    outputs = [
        value("output", batch, seqlen, heads * head_dim),
        value("present_key", batch, heads_kv, seqlen, head_dim),
        value("present_value", batch, heads_kv, seqlen, head_dim),
    ]
    node = helper.make_node(
        "GroupQueryAttention",
        ["query", "key", "value", "", "", "seqlens_k", "total_sequence_length"],
        [output.name for output in outputs],
        domain="com.microsoft",
        num_heads=heads,
        kv_num_heads=heads_kv,
    )
    graph = helper.make_graph([node], "attention", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def flex_a_shape(
    q: Tensor, k: Tensor, v: Tensor, *, sink: int, window: int
) -> Callable[[], Tensor]:
    """FlexAttention, compiled, with the block mask of ``a_shape``. Compiles in the first call."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def keep(_batch: Tensor, _head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return (key <= row) & ((key < sink) | (row - key < window))

    seqlen = q.shape[1]
    # Compiled it looks at blocks; else at all pairs at once, which at 128K no memory holds.
    make_mask = torch.compile(create_block_mask) if q.is_cuda else create_block_mask
    mask = make_mask(keep, None, None, seqlen, seqlen, device=q.device.type)
    compiled = torch.compile(flex_attention, dynamic=False)
    heads_first = [x.transpose(1, 2).contiguous() for x in (q, k, v)]

    def run() -> Tensor:
        with torch.no_grad():
            return compiled(*heads_first, block_mask=mask, enable_gqa=True).transpose(1, 2)

    return run


def dense_a_shape(q: Tensor, k: Tensor, v: Tensor, *, sink: int, window: int) -> Tensor:
    """``a_shape`` by SDPA under an explicit mask: to check the others, not to time."""
    position = torch.arange(q.shape[1], device=q.device)
    row, key = position[:, None], position[None]
    mask = (key <= row) & ((key < sink) | (row - key < window))
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads_first, attn_mask=mask, enable_gqa=q.shape[2] != k.shape[2]
    )
    return out.transpose(1, 2)


def check_close(name: str, got: Tensor, want: Tensor) -> None:
    """Stop if a contender computes something else.

    An output is an average of v with rounded weights: within a few units of rounding of the widest
    values, for both sides.
    """
    eps = torch.finfo(got.dtype).eps
    error = (got.float() - want.float()).abs().max().item()
    bound = 4 * eps * want.float().abs().max().item() + 1e-5
    if not error <= bound:  # NaN fails too.
        msg = f"{name} differs from the reference by {error:.3g} (allowed {bound:.3g})"
        raise RuntimeError(msg)
