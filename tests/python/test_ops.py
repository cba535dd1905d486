# SPDX-License-Identifier: Apache-2.0
"""torch.ops.minference as torch sees it: schemas, fake kernels, compile, autograd, errors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import minference
import pytest
import torch
from reference import assert_attention, dense_mask
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

OPS = torch.ops.minference

HOST_DTYPES = (torch.int32, torch.float64)  # For indices, and for patterns, which stay on the CPU.

SCHEMAS = {
    "vs_attn": "(Tensor q, Tensor k, Tensor v, SymInt vertical_size, SymInt slash_size, *, "
    "float? softmax_scale=None, SymInt last_q=64, SymInt sink=30, SymInt local=100) -> Tensor",
    "a_shape_attn": "(Tensor q, Tensor k, Tensor v, SymInt sink, SymInt window, *, "
    "float? softmax_scale=None) -> Tensor",
    "block_sparse_attn": "(Tensor q, Tensor k, Tensor v, SymInt top_k, *, "
    "float? softmax_scale=None) -> Tensor",
    "prefill_attn": "(Tensor q, Tensor k, Tensor v, Tensor patterns, *, "
    "float? softmax_scale=None, SymInt? last_q=None, SymInt? sink=None, SymInt? local=None) "
    "-> (Tensor out, Tensor lse)",
    "estimate_vs": "(Tensor q, Tensor k, SymInt vertical_size, SymInt slash_size, *, "
    "float? softmax_scale=None, SymInt last_q=64, SymInt sink=30, SymInt local=100, "
    "float vertical_p=1., float slash_p=1.) -> (Tensor vertical_index, Tensor slash_index)",
    "estimate_blocks": "(Tensor q, Tensor k, SymInt top_k, *, float? softmax_scale=None, "
    "float top_p=1.) -> Tensor",
    "vs_sparse_attn": "(Tensor q, Tensor k, Tensor v, Tensor vertical_index, "
    "Tensor slash_index, *, float? softmax_scale=None) -> (Tensor out, Tensor lse)",
    "block_index_attn": "(Tensor q, Tensor k, Tensor v, Tensor block_index, *, "
    "float? softmax_scale=None) -> (Tensor out, Tensor lse)",
    "merge_attn": "(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) "
    "-> (Tensor out, Tensor lse)",
    "count_key_tiles": "(Tensor q, Tensor k, Tensor patterns, *, float? softmax_scale=None) "
    "-> Tensor",
}

MIXED_PATTERNS = [
    minference.Dense(),
    minference.AShape(4, 70),
    minference.VerticalSlash(40, 110),
    minference.TriShape(4, 70, 5),
]


HEAD_DIM_V = 40


def make_qkv(seqlen_q: int = 130, seqlen_k: int = 200, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    q = torch.randn(2, seqlen_q, 4, 64, dtype=dtype)
    k = torch.randn(2, seqlen_k, 2, 64, dtype=dtype)
    return q, k, torch.randn(2, seqlen_k, 2, HEAD_DIM_V, dtype=dtype)


def example_calls(seqlen_q: int = 130, seqlen_k: int = 200) -> dict[str, tuple[tuple, dict]]:
    """Return the arguments of one call of each op."""
    q, k, v = make_qkv(seqlen_q, seqlen_k)
    patterns = minference.patterns.to_tensor(MIXED_PATTERNS)
    out, lse = minference.prefill_attn(q, k, v, minference.Dense())
    vertical_index, slash_index = minference.estimate_vs(q, k, 40, 110)
    block_index = minference.estimate_blocks(q, k, 3)
    return {
        "vs_attn": ((q, k, v, 40, 110), {"softmax_scale": 0.1, "sink": 8}),
        "a_shape_attn": ((q, k, v, 4, 70), {}),
        "block_sparse_attn": ((q, k, v, 2), {"softmax_scale": 0.1}),
        "prefill_attn": ((q, k, v, patterns), {"last_q": 32}),
        "estimate_vs": ((q, k, 40, 110), {"local": 120, "vertical_p": 0.5}),
        "estimate_blocks": ((q, k, 3), {"top_p": 0.9}),
        "vs_sparse_attn": ((q, k, v, vertical_index, slash_index), {}),
        "block_index_attn": ((q, k, v, block_index), {"softmax_scale": 0.1}),
        "merge_attn": ((out, lse, out.flip(1).contiguous(), lse.flip(2).contiguous()), {}),
        "count_key_tiles": ((q, k, patterns), {}),
    }


def as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


# ---- Registration --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(name):
    assert str(getattr(OPS, name).default._schema) == f"minference::{name}{SCHEMAS[name]}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_cuda_tensors_reach_the_library_too(name):
    """Without a backend for them the library refuses with a reason; the dispatcher would not."""
    for key in ("CPU", "CUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"minference::{name}", key)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(130, 200), (1, 70), (64, 64)])
def test_opcheck(name, seqlen_q, seqlen_k):
    args, kwargs = example_calls(seqlen_q, seqlen_k)[name]
    checks = torch.library.opcheck(getattr(OPS, name).default, args, kwargs)
    assert set(checks.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_fake_cuda_tensors_give_cuda_results(name):
    """Tracing for a GPU needs no GPU: results, also tile counts, are on the inputs' device."""
    args, kwargs = example_calls()[name]
    real = as_tuple(getattr(OPS, name)(*args, **kwargs))
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_cuda = [
            torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device="cuda")
            if isinstance(a, Tensor) and a.dtype != torch.float64  # Patterns stay on the CPU.
            else a
            for a in args
        ]
        for got, want in zip(as_tuple(getattr(OPS, name)(*on_cuda, **kwargs)), real, strict=True):
            assert got.device.type == "cuda"
            assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride())


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(130, 200), (0, 10), (1, 1), (65, 129)])
def test_meta_tensors_get_the_shapes_of_real_ones(name, seqlen_q, seqlen_k):
    args, kwargs = example_calls(seqlen_q, seqlen_k)[name]
    real = as_tuple(getattr(OPS, name)(*args, **kwargs))
    on_meta = [
        a.to("meta") if isinstance(a, Tensor) and a.dtype not in HOST_DTYPES else a for a in args
    ]
    if name in ("vs_sparse_attn", "block_index_attn"):
        on_meta = [a.to("meta") for a in args]
    for got, want in zip(as_tuple(getattr(OPS, name)(*on_meta, **kwargs)), real, strict=True):
        assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride())


@pytest.mark.parametrize("name", SCHEMAS)
def test_compiles_with_dynamic_shapes(name):
    """One graph without breaks, traced once for all lengths, gives eager's result."""
    torch.compiler.reset()  # All names compile the same lambda, so each starts afresh.
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    op = getattr(OPS, name)
    compiled = torch.compile(
        lambda *args, **kwargs: op(*args, **kwargs), fullgraph=True, dynamic=True, backend=backend
    )
    for seqlen_q, seqlen_k in [(130, 200), (70, 190), (200, 200)]:
        args, kwargs = example_calls(seqlen_q, seqlen_k)[name]
        for got, want in zip(
            as_tuple(compiled(*args, **kwargs)), as_tuple(op(*args, **kwargs)), strict=True
        ):
            assert torch.equal(got, want)
    assert len(graphs) <= 2  # seqlen_q == seqlen_k may have a separate graph.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor's own, on import.
def test_python_functions_compile_through_inductor():
    def attend(q, k, v):
        out, lse = minference.prefill_attn(q * 2, k, v, MIXED_PATTERNS)
        vertical_index, slash_index = minference.estimate_vs(q, k, 40, 110)
        sparse, _ = minference.vs_sparse_attn(q, k, v, vertical_index, slash_index)
        return out + sparse + minference.vs_attn(q, k, v, 40, 110), lse.exp()

    compiled = torch.compile(attend, fullgraph=True, dynamic=True)
    for seqlen_q, seqlen_k in [(130, 200), (70, 190)]:
        inputs = make_qkv(seqlen_q, seqlen_k)
        torch.testing.assert_close(compiled(*inputs), attend(*inputs))


# ---- Values that only the binding decides --------------------------------------------------------


def test_strided_views_are_read_in_place_and_out_is_contiguous():
    q, k, v = make_qkv()
    q_t, k_t, v_t = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    assert not q_t.is_contiguous()
    out, lse = minference.prefill_attn(q_t, k_t, v_t, minference.Dense())
    assert out.is_contiguous()
    assert lse.is_contiguous()
    assert_attention((out, lse), q, k, v, dense_mask(130, 200))


def test_patterns_tensor_may_be_strided():
    q, k, v = make_qkv()
    patterns = minference.patterns.to_tensor(MIXED_PATTERNS)
    strided = patterns.t().contiguous().t()
    assert not strided.is_contiguous()
    want = OPS.prefill_attn(q, k, v, patterns)
    assert torch.equal(OPS.prefill_attn(q, k, v, strided)[0], want[0])


def test_one_pattern_for_all_is_that_pattern_for_each():
    q, k, v = make_qkv()
    pattern = minference.VerticalSlash(40, 110)
    out, lse = minference.prefill_attn(q, k, v, pattern)
    each_out, each_lse = minference.prefill_attn(q, k, v, [pattern] * 4)
    assert torch.equal(out, each_out)
    assert torch.equal(lse, each_lse)
    assert torch.equal(out, minference.vs_attn(q, k, v, 40, 110))


def test_stages_one_by_one_are_the_whole_call():
    q, k, v = make_qkv()
    options = {"last_q": 20, "sink": 3, "local": 17}
    indices = minference.estimate_vs(q, k, 25, 50, **options)
    out, lse = minference.vs_sparse_attn(q, k, v, *indices)
    want_out, want_lse = minference.prefill_attn(
        q, k, v, minference.VerticalSlash(25, 50), **options
    )
    assert torch.equal(out, want_out)
    assert torch.equal(lse, want_lse)

    out, _ = minference.block_index_attn(q, k, v, minference.estimate_blocks(q, k, 2))
    assert torch.equal(out, minference.block_sparse_attn(q, k, v, 2))


# They differ from each other in what stage 1 does for them.
OPTIONED_PATTERNS = [
    minference.VerticalSlash(25, 50, last_q=20, sink=3, local=17),
    minference.VerticalSlash(90, 150, sink=3, vertical_p=0.4, slash_p=0.6),
    minference.BlockSparse(3, top_p=0.5),
    minference.VerticalSlash(25, 120, last_q=20, sink=3, local=17),
]


def test_each_head_has_its_own_options():
    q, k, v = make_qkv()
    out, lse = minference.prefill_attn(q, k, v, OPTIONED_PATTERNS)
    for head, pattern in enumerate(OPTIONED_PATTERNS):
        one = slice(head, head + 1), slice(head // 2, head // 2 + 1)
        heads = q[:, :, one[0]], k[:, :, one[1]], v[:, :, one[1]]
        if isinstance(pattern, minference.VerticalSlash):
            lists = minference.estimate_vs(*heads[:2], **dataclasses.asdict(pattern))
            want = minference.vs_sparse_attn(*heads, *lists)
        else:
            blocks = minference.estimate_blocks(*heads[:2], pattern.top_k, top_p=pattern.top_p)
            want = minference.block_index_attn(*heads, blocks)
        assert torch.equal(out[:, :, one[0]], want[0]), head
        assert torch.equal(lse[:, one[0]], want[1]), head
    assert not torch.equal(
        minference.density(q, k, OPTIONED_PATTERNS),
        minference.density(q, k, [dataclasses.replace(OPTIONED_PATTERNS[0])] * 4),
    )


def test_options_of_the_call_are_those_of_every_vertical_slash_head():
    q, k, v = make_qkv()
    patterns = [minference.VerticalSlash(25, 50), minference.AShape(3, 20)] * 2
    got = minference.prefill_attn(q, k, v, patterns, last_q=20, sink=3, local=17)
    own = [OPTIONED_PATTERNS[0], minference.AShape(3, 20)] * 2
    want = minference.prefill_attn(q, k, v, own)
    assert torch.equal(got[0], want[0])
    assert not torch.equal(got[0], minference.prefill_attn(q, k, v, patterns)[0])


def test_patterns_of_integers_are_those_with_the_default_options():
    q, k, v = make_qkv()
    patterns = [
        minference.Dense(),
        minference.VerticalSlash(40, 110),
        minference.BlockSparse(2),
        minference.TriShape(4, 70, 5),
    ]
    rows = [[0, 0, 0, 0], [2, 40, 110, 0], [3, 2, 0, 0], [4, 4, 70, 5]]
    got = OPS.prefill_attn(q, k, v, torch.tensor(rows, dtype=torch.int32))
    want = minference.prefill_attn(q, k, v, patterns)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_torch_threads(threads, num_threads):
    q, k, v = make_qkv()
    torch.set_num_threads(1)
    want = minference.prefill_attn(q, k, v, MIXED_PATTERNS)
    torch.set_num_threads(threads)
    got = minference.prefill_attn(q, k, v, MIXED_PATTERNS)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_work_runs_on_torchs_own_threads(num_threads):
    q, k, v = make_qkv(1024, 1024)
    torch.set_num_threads(3)
    torch.mm(torch.zeros(512, 512), torch.zeros(512, 512))  # Starts the pool.
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    minference.prefill_attn(q, k, v, MIXED_PATTERNS)
    assert len(list(tasks.iterdir())) == before


def test_density():
    q, k, _ = make_qkv(256, 256)
    patterns = [
        minference.Dense(),
        minference.AShape(1, 1),
        minference.BlockSparse(4),
        minference.VerticalSlash(256, 256),
    ]
    # 4 row blocks, 10 causal tiles; sink and diagonal are 1 tile in the first block, then 2.
    expected = torch.tensor([1.0, 0.7, 1.0, 1.0], dtype=torch.float64).expand(2, 4)
    torch.testing.assert_close(minference.density(q, k, patterns), expected)
    assert minference.count_key_tiles(q, k, minference.Dense()).tolist() == [[10] * 4] * 2


def test_no_query_rows_give_an_empty_result():
    q, k, v = make_qkv(0, 10)
    out, lse = minference.prefill_attn(q, k, v, MIXED_PATTERNS)
    assert out.shape == (2, 0, 4, HEAD_DIM_V)
    assert lse.shape == (2, 4, 0)
    assert minference.vs_attn(q, k, v, 10, 10).shape == (2, 0, 4, HEAD_DIM_V)


# ---- Autograd ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "vs_attn",
        "a_shape_attn",
        "block_sparse_attn",
        "prefill_attn",
        "vs_sparse_attn",
        "block_index_attn",
        "merge_attn",
    ],
)
def test_backward_is_refused(name):
    (first, *others), kwargs = example_calls()[name]
    out, *_ = as_tuple(getattr(OPS, name)(first.clone().requires_grad_(), *others, **kwargs))
    with pytest.raises(NotImplementedError, match=rf"minference::{name} has no backward"):
        out.sum().backward()


def test_index_outputs_carry_no_gradient():
    q, k, _ = make_qkv()
    outputs = (*minference.estimate_vs(q.requires_grad_(), k, 40, 110),)
    assert not any(t.requires_grad for t in (*outputs, minference.estimate_blocks(q, k, 2)))


# ---- Errors --------------------------------------------------------------------------------------


def test_python_and_raw_op_say_the_same():
    q, k, v = make_qkv()
    with pytest.raises(RuntimeError) as raw:
        OPS.vs_attn(q, k[:, :100], v[:, :100], 40, 110)
    with pytest.raises(ValueError, match="seqlen_q") as mapped:
        minference.vs_attn(q, k[:, :100], v[:, :100], 40, 110)
    assert type(raw.value) is RuntimeError
    assert str(raw.value) == str(mapped.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, k, v: minference.vs_attn(q, k, v, -1, 5), "vertical_size: .*got -1"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 5, 2**40), "slash_size: .*got 1099511627776"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 5, 5, sink=-2), "sink: .*got -2"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 5, 5, local=2**31), "local: .*got 2147483648"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 5, 5, last_q=0), "last_q.*got 0"),
        (lambda q, k, v: minference.a_shape_attn(q, k, v, 1, -7), "window: .*got -7"),
        (lambda q, k, v: minference.block_sparse_attn(q, k, v, 2**31), "top_k: .*got 2147483648"),
        (lambda q, k, v: minference.estimate_blocks(q, k, -1), "top_k: .*got -1"),
        (lambda q, k, v: minference.vs_attn(q.double(), k, v, 5, 5), "q: .*Double"),
        (lambda q, k, v: minference.vs_attn(q, k.half(), v, 5, 5), "dtype"),
        (lambda q, k, v: minference.vs_attn(q[0], k, v, 5, 5), "q.* 4 dim.*got 3"),
        (lambda q, k, v: minference.vs_attn(q.sum(), k, v, 5, 5), "q: .*dimensions, got 0"),
        (lambda q, k, v: minference.vs_attn(q[None], k, v, 5, 5), "q: .*dimensions, got 5"),
        (lambda q, k, v: minference.vs_sparse_attn(q, k[0], v, k, k), "k: .*4 dim.*got 3"),
        (
            lambda q, k, v: minference.vs_sparse_attn(q, k, v, k.int()[0], k.int()),
            "slash_index: expected 3 dimensions, got 4",
        ),
        (lambda q, k, v: minference.merge_attn(q[0], q, q, q), "out_a: .*4 dim.*got 3"),
        (
            lambda q, k, v: minference.prefill_attn(q, k, v, minference.AShape(1, 2**31)),
            r"head 0: .*int32.*AShape\(sink=1, window=2147483648\)",
        ),
        (lambda q, k, v: minference.prefill_attn(q, k, v, [minference.Dense()] * 3), "patterns"),
        (lambda q, k, v: minference.prefill_attn(q, k, v, []), "patterns"),
        (lambda q, k, v: minference.prefill_attn(q, k, v, minference.AShape(-1, 5)), "patterns"),
        # Different exception types: torch's own checks come before the library's.
        (lambda q, k, v: minference.vs_attn(q, k, v, 10.0, 20), "vertical_size: .*int, got float"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 10, [20]), "slash_size: .*int, got list"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 10, 2**70), "slash_size: .*beyond 64 bits"),
        (lambda q, k, v: minference.vs_attn(q, k, v, 10, 20, last_q=None), "last_q: .*NoneType"),
        (lambda q, k, v: minference.vs_attn(q.numpy(), k, v, 5, 5), "q: .*Tensor, got ndarray"),
        (lambda q, k, v: minference.vs_attn(q, None, v, 5, 5), "k: expected Tensor, got None"),
        (lambda q, k, v: minference.merge_attn(q, q, "q", q), "out_b: .*Tensor, got str"),
        (lambda q, k, v: minference.estimate_vs(q, k, "a", 5), "vertical_size: .*int, got str"),
        (
            lambda q, k, v: minference.prefill_attn(q, k, v, minference.Dense(), softmax_scale="x"),
            "softmax_scale: expected .*float.*, got str",
        ),
        (lambda q, k, v: minference.prefill_attn(q, k, v, "dense"), "patterns: .*, got str"),
        (lambda q, k, v: minference.prefill_attn(q, k, v, None), "patterns: .*, got NoneType"),
        (lambda q, k, v: minference.prefill_attn(q, k, v, [1]), "head 0: .*pattern, got int"),
        (
            lambda q, k, v: minference.prefill_attn(q, k, v, minference.HeadConfig(())),
            "got HeadConfig, which has the patterns of many layers: pass one layer's",
        ),
        (lambda q, k, v: minference.density(q, k, "dense"), "patterns: .*, got str"),
        (lambda q, k, v: minference.min_sparse_seqlen("warp"), "device: .*, got 'warp'"),
        (lambda q, k, v: minference.min_sparse_seqlen(None), "device: .*, got None"),
        (lambda q, k, v: minference.HeadConfig("llama"), "layers: .*, got str"),
        (lambda q, k, v: minference.HeadConfig((("dense",),)), "layer 0: .*sequence of patterns"),
        (lambda q, k, v: minference.load_config(3), "path: expected str or os.PathLike, got int"),
        (lambda q, k, v: minference.save_config("a", "b"), "config: .*HeadConfig, got str"),
        (lambda q, k, v: minference.save_config(minference.HeadConfig(()), 3), "path: .*got int"),
    ],
)
def test_bad_argument_is_a_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(*make_qkv())


@pytest.mark.parametrize("kind", ["mps", "meta", "xpu"])
def test_device_that_no_backend_serves(kind):
    with pytest.raises(NotImplementedError, match=f"device: no backend serves {kind} devices"):
        minference.min_sparse_seqlen(kind)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (torch.zeros(4, dtype=torch.int32), "patterns: expected 2 dimensions, got 1"),
        (torch.zeros(4, 3, dtype=torch.int32), r"patterns: expected 4 columns .*got 3"),
        (
            torch.zeros(4, 4, dtype=torch.int64),
            "patterns: .* a float64 or an int32 tensor.*Long",
        ),
        (torch.full((4, 4), 9, dtype=torch.int32), "kind"),
    ],
)
def test_patterns_tensor_of_the_wrong_form(patterns, message):
    with pytest.raises(RuntimeError, match=message):
        OPS.prefill_attn(*make_qkv(), patterns)


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "count_key_tiles"])
def test_mixed_devices_are_named(name):
    args, kwargs = example_calls()[name]
    second = [*args]
    second[1] = args[1].to("meta")
    with pytest.raises(RuntimeError, match=r"expected device cpu, .* got meta"):
        getattr(OPS, name)(*second, **kwargs)


def test_allocation_that_fails_is_a_memory_error():
    q, k, _ = make_qkv()
    with pytest.raises(MemoryError, match=r"Int \[2, 4, 3, 2147483647\]"):
        minference.estimate_blocks(q, k, 2**31 - 1)


# ---- Import --------------------------------------------------------------------------------------


def test_import_is_silent_and_brings_no_framework():
    code = (
        "import sys, torch; before = set(sys.modules); import minference;"
        "heavy = {'transformers', 'numpy.testing', 'matplotlib', 'torch._dynamo', 'triton'};"
        "loaded = heavy & (set(sys.modules) - before);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
