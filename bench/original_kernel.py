# SPDX-License-Identifier: Apache-2.0
"""Conversion of sorted columns and distances to lists per row block: see original.py.

One program walks the two sorted lists of its head with two pointers, serially as in the original.
The lists must hold zeros before.
"""

import triton
import triton.language as tl


@triton.jit
def convert(
    columns,
    distances,
    block_count,
    block_offset,
    column_count,
    column_index,
    num_columns,
    num_distances,
    num_row_blocks,
    BLOCK: tl.constexpr,
):
    row_block, head = tl.program_id(0), tl.program_id(1)
    row = (head * num_row_blocks + row_block).to(tl.int64)
    columns += head * num_columns
    distances += head * num_distances
    block_offset += row * num_distances
    column_index += row * num_columns
    end_row = BLOCK * (row_block + 1)

    slash = 0  # Distances beyond the first key come first.
    reach = tl.load(distances)
    while (slash < num_distances) & (reach >= end_row):
        slash += 1
        reach = tl.load(distances + slash, mask=slash < num_distances, other=0)
    if slash < num_distances:
        high = tl.maximum(end_row - reach, BLOCK)
        low = high - BLOCK
        slash += 1
        blocks, singles, vertical = 0, 0, 0
        column = tl.load(columns)
        left = 1
        while left > 0:
            if (vertical < num_columns) & (column < high):
                if column < low:
                    tl.store(column_index + singles, column)
                    singles += 1
                vertical += 1
                column = tl.load(columns + vertical, mask=vertical < num_columns, other=0)
            else:
                is_last = slash >= num_distances
                reach = tl.load(distances + slash, mask=slash < num_distances, other=0)
                end = tl.maximum(end_row - reach, BLOCK)
                slash += 1
                if is_last | (end > high + BLOCK):
                    first = low
                    while first < high:
                        tl.store(block_offset + blocks, first)
                        blocks += 1
                        first += BLOCK
                    low = end - BLOCK
                    high = end
                    left = tl.where(is_last, 0, 1)
                elif end > high:
                    high += BLOCK
        tl.store(block_count + row, blocks)
        tl.store(column_count + row, singles)
