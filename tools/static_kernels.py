# SPDX-License-Identifier: Apache-2.0
"""Expectations for the machine code of each CUDA kernel, which static_gates.py checks.

A kernel that is not listed fails the gates: a new kernel needs an entry that says what it is built
on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90")


@dataclass(frozen=True)
class Kernel:
    """One kernel template. ``Traits`` in an expression is replaced by an instance's argument.

    ``blocks`` per multiprocessor, for each of ARCHS, as the kernel's comment states them: for all
    instances, or by padded head_dim (the last number in the argument, or the last two). For a
    kernel of one architecture: one number.
    """

    source: str  # The header with its types.
    blocks: int | tuple[int, ...] | dict[int | tuple[int, int], tuple[int, ...]]
    threads: str = "Traits::kThreads"
    shared: str = "0"  # Dynamic shared memory in bytes.
    needs: tuple[str, ...] = ()  # Columns of static_gates.COUNTED.
    split: tuple[int, ...] = ()  # Registers per thread that setmaxnreg states.
    beside: int = 0  # The least number of exponentials that run while a wgmma is in flight.

    def stated_blocks(self, traits: str, arch: str) -> int:
        blocks = self.blocks
        if isinstance(blocks, int):
            return blocks
        if isinstance(blocks, dict):
            *_, dim = dims = [int(number) for number in re.findall(r"\d+", traits)]
            blocks = blocks.get(tuple(dims[-2:]), blocks.get(dim))
        return blocks[ARCHS.index(arch)] if arch in ARCHS else 0


ONE, TWO = (1, 1, 1, 1), (2, 2, 2, 2)
SCORES = "HMMA", "LDSM", "LDGSTS 16", "EX2"
STORAGE = "sizeof(typename Traits::SharedStorage)"
SELECT = "cuda/common/select_rows.cu"
WORK_TABLE = "cuda/common/work_table_kernels.h"
# Four heads share one read of K, as in the models that most queries come from.
GROUP_THREADS = "4 * kBlock"
VS90 = "sm90::vertical_slash::"

# By name; with the folder if two kernels have the same name.
KERNELS = {
    # Stage 1, vertical-slash.
    "row_statistics_kernel": Kernel(
        "cuda/sm80/estimate_vertical_slash_kernels.h",
        blocks={64: TWO, 96: TWO, 128: (2, 1, 1, 2), 192: ONE, 256: ONE},
        threads=GROUP_THREADS,
        shared="sizeof(typename Traits::Keys::Buffers)",
        needs=SCORES,
    ),
    "score_sums_kernel": Kernel(
        "cuda/sm80/estimate_vertical_slash_kernels.h",
        blocks={64: TWO, 96: (2, 1, 1, 2), 128: (2, 1, 1, 2), 192: ONE, 256: ONE},
        threads=GROUP_THREADS,
        shared="score_sums_shared_bytes<Traits>(4)",
        needs=SCORES,
    ),
    **{
        f"{name}_sm90_kernel": Kernel(
            "cuda/sm90/estimate_vertical_slash_kernels.h",
            blocks=1,
            shared=f"{VS90}score_shared_bytes<Traits, {VS90}{storage}<Traits>>(4)",
            needs=("HGMMA", "UTMALDG", "EX2", "SHFL", "BAR", "ST"),
            split=(240, 24),
        )
        for name, storage in (
            ("row_statistics", "WarpgroupStatistics"),
            ("score_sums", "WarpgroupSums"),
        )
    },
    "combine_rows_kernel": Kernel(
        "cuda/common/estimate_vertical_slash.cu",
        blocks=ONE,
        threads="kCombineParts * kBlock",
        shared="sizeof(CombineStorage)",
        needs=("LD", "ST"),
    ),
    "add_overlaps_kernel": Kernel(
        "cuda/common/estimate_vertical_slash.cu",
        blocks=(16, 16, 16, 16),
        threads="kBlock",
        needs=("LD", "ST"),
    ),
    "write_first_indices_kernel": Kernel(
        "cuda/common/estimate_vertical_slash.cu",
        blocks=ONE,
        threads="kFirstThreads",
        needs=("ST",),
    ),
    # Stage 1, selection.
    **{
        name: Kernel(SELECT, blocks=(3, 3, 3, 3), shared=STORAGE, needs=needs)
        for name, needs in {
            "select_short_rows_kernel": ("LD", "RED ATOM", "VOTE", "ST"),
            "tally_digit_kernel": ("LD", "RED ATOM"),
            "count_selected_kernel": ("LD", "VOTE"),
            "write_selected_kernel": ("LD", "VOTE", "ST"),
        }.items()
    },
    # Stage 1, block-sparse.
    "pool_rows_kernel": Kernel("cuda/tma/pool_panels.h", blocks=(4, 4, 4, 4), needs=("LD 16",)),
    "select_blocks_kernel": Kernel(
        "cuda/sm80/estimate_block_sparse_kernel.h",
        blocks=(1, 1, 1, 2),
        shared="sizeof(typename Traits::Storage)",
        needs=("HMMA", "LDGSTS 16", "ST"),
    ),
    "select_blocks_wgmma_kernel": Kernel(
        "cuda/sm90/estimate_block_sparse_kernel.h",
        blocks=1,
        shared="sizeof(typename Traits::Storage)",
        needs=("HGMMA", "UBLKCP", "BAR", "SHFL", "VOTE", "ST"),
        split=(240, 24),
    ),
    # Stage 2, and the work table.
    "plan_vertical_slash_kernel": Kernel(
        "cuda/common/plan.cu", blocks=ONE, shared=STORAGE, needs=("SHFL", "BAR", "ST")
    ),
    "prepare_head_keys_kernel": Kernel(
        "cuda/common/head_keys.cu", blocks=ONE, shared=STORAGE, needs=("ST",)
    ),
    "count_key_tiles_kernel": Kernel(
        "cuda/common/head_keys.cu", blocks=ONE, shared=STORAGE, needs=("ST",)
    ),
    "count_row_block_tiles_kernel": Kernel(
        WORK_TABLE, blocks=(6, 6, 6, 6), shared=STORAGE, needs=("LD", "ST")
    ),
    "tally_items_kernel": Kernel(WORK_TABLE, blocks=ONE, shared=STORAGE, needs=("RED ATOM", "ST")),
    "place_items_kernel": Kernel(WORK_TABLE, blocks=TWO, shared=STORAGE, needs=("LD", "ST")),
    # Stage 3.
    "attention_kernel": Kernel(
        "cuda/sm80/attention_kernel.h",
        blocks={
            64: TWO,
            96: (2, 1, 1, 2),
            128: (2, 1, 1, 2),
            192: (1, 1, 1, 2),
            (192, 128): (1, 1, 1, 2),
            256: (1, 1, 1, 2),
        },
        shared=STORAGE,
        needs=("HMMA", "LDSM", "LDGSTS 16", "EX2", "ST 16", "VOTE", "RED ATOM"),
    ),
    "sm90::attention_kernel": Kernel(
        "cuda/sm90/attention_kernel.h",
        blocks=1,
        shared=STORAGE,
        needs=("HGMMA", "UTMALDG", "UTMASTG", "EX2", "BAR", "RED ATOM"),
        split=(216, 72),
        beside=32,  # Scores per thread: 64 up to 128 dims, else 32.
    ),
    "gather_columns_kernel": Kernel(
        "cuda/common/gather_columns.cu", blocks=(6, 6, 6, 8), needs=("LD 16", "ST 16")
    ),
    "combine_splits_kernel": Kernel(
        "cuda/common/combine_splits.cu", blocks=(8, 8, 8, 8), needs=("LD", "EX2", "ST")
    ),
    "merge_attention_kernel": Kernel(
        "cuda/common/merge_attention.cu",
        blocks=(5, 5, 5, 5),
        shared=STORAGE,
        needs=("LD 16", "BAR", "ST 16"),
    ),
    "store_table_kernel": Kernel("cuda/common/table.h", blocks=(8, 6, 6, 8), threads="256"),
}
