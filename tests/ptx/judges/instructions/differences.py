"""Intended differences from CUTLASS, and functions without a counterpart there, with reasons.

SPDX-License-Identifier: Apache-2.0
"""

from typing import NamedTuple


class Difference(NamedTuple):
    """In pairs whose name matches, our instruction is CUTLASS's once `ours` is rewritten."""

    pairs: str
    ours: str
    cutlass: str
    reason: str


# An entry that changes nothing is an error: what it describes is gone.
DIFFERENCES = [
    Difference(
        r"mbarrier_expect_tx",
        r"^mbarrier\.expect_tx\.relaxed\.cta\.",
        "mbarrier.expect_tx.",
        "the defaults, written out: .relaxed, and .cta for what is meant",
    ),
    Difference(
        r"mbarrier_test_wait",
        r"^mbarrier\.test_wait",
        "@setp.eq.u32(1, 1) mbarrier.test_wait",
        "CUTLASS's function takes a predicate, which is true here",
    ),
    Difference(
        r"mbarrier_try_wait",
        r"^(mbarrier\.try_wait.*), 10000000$",
        r"\1",
        "one function for both: CUTLASS gives the time limit in wait() alone",
    ),
    Difference(
        r"named_barrier_(sync|arrive)",
        r"^barrier\.(sync|arrive)\.aligned",
        r"bar.\1",
        "two names of one instruction: PTX ISA, bar and barrier",
    ),
    Difference(
        r"load_evict_normal",
        r"createpolicy\.fractional\.L2::evict_normal\.b64\(1\.0\)",
        str(0x1000000000000000),
        "the policy that the instruction makes, not a number from elsewhere; a hint",
    ),
    Difference(
        r"load_evict_first",
        r"createpolicy\.fractional\.L2::evict_first\.b64\(1\.0\)",
        str(0x12F0000000000000),
        "the same policy, made by the instruction",
    ),
    Difference(
        r"load_evict_last",
        r"createpolicy\.fractional\.L2::evict_last\.b64\(1\.0\)",
        str(0x14F0000000000000),
        "the same policy, made by the instruction",
    ),
    Difference(
        r"store_[234]d|bulk_load|bulk_store",
        r"^(cp\.async\.bulk\.\S+)\.L2::cache_hint (.*), param_\d+$",
        r"\1 \2",
        "CUTLASS has these copies without a policy only",
    ),
    Difference(
        r"cp_async",
        r"^cp\.async\.cg\.shared\.global ",
        "cp.async.cg.shared.global.L2::128B ",
        "no prefetch into L2: a hint, not measured",
    ),
    Difference(
        r"(ldmatrix|stmatrix).*",
        r"^(ld|st)matrix\.sync\.aligned\.m8n8\.x4(\.trans)?\.shared\.b16",
        r"\1matrix.sync.aligned.x4\2.m8n8.shared.b16",
        "the manual's order of modifiers",
    ),
]

# Functions of csrc/cuda/arch without a pair here. An entry for a function that has one is an error.
NOT_COMPARED = {
    "cp_async_bulk_wait": "CUTLASS waits for reads only, wait_group.read; this is wait_group",
    "exp2_approx": "CUTLASS has none",
    "named_barrier_or": "CUTLASS has none",
    "opaque": "no instruction; CUTLASS has none",
    "finish_before": "CUTLASS has none",
    "shared_storage": "no instruction but a check",
    "matrix_descriptor": "../layouts/test_descriptors.cpp",
    "k_major_descriptor": "../layouts/test_descriptors.cpp",
    "mn_major_descriptor": "../layouts/test_descriptors.cpp",
    "advance": "../layouts/test_descriptors.cpp",
    "swizzle_row_bytes": "../layouts/test_fragments_sm90.cpp",
    "swizzle_offset": "../layouts/test_fragments_sm90.cpp",
    "encode_tiled_function": "host code: ../layouts/test_tensor_maps.cpp",
    "encode_tensor_map": "host code: ../layouts/test_tensor_maps.cpp",
    "allow_shared_bytes": "host code",
    "launch": "host code",
    "resident_blocks": "host code",
}
