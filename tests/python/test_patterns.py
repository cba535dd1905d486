# SPDX-License-Identifier: Apache-2.0
"""The pattern dataclasses, and the table the ops take."""

from __future__ import annotations

import dataclasses

import minference
import pytest
import torch
from minference.patterns import to_tensor

# (pattern, its row): kinds are those of minf_pattern_kind.
ROWS = [
    (minference.Dense(), [0, 0, 0, 0]),
    (minference.AShape(sink=128, window=1024), [1, 128, 1024, 0]),
    (minference.VerticalSlash(vertical_size=1000, slash_size=6096), [2, 1000, 6096, 0]),
    (minference.BlockSparse(top_k=100), [3, 100, 0, 0]),
    (minference.TriShape(sink=8, window=512, last=128), [4, 8, 512, 128]),
]


def test_table_has_a_row_per_head():
    table = to_tensor([pattern for pattern, _ in ROWS])
    assert table.dtype == torch.int32
    assert table.device.type == "cpu"
    assert table.tolist() == [row for _, row in ROWS]


@pytest.mark.parametrize(("pattern", "row"), ROWS)
def test_one_pattern_is_one_row(pattern, row):
    assert to_tensor(pattern).tolist() == [row]


def test_no_patterns_are_no_rows():
    assert to_tensor([]).shape == (0, 4)


def test_patterns_are_values():
    assert minference.AShape(1, 2) == minference.AShape(sink=1, window=2)
    assert minference.AShape(1, 2) != minference.VerticalSlash(1, 2)
    assert len({minference.Dense(), minference.Dense(), minference.BlockSparse(3)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        minference.BlockSparse(3).top_k = 4


@pytest.mark.parametrize("size", [2**31, -(2**31) - 1, 0.5, "7", None])
def test_size_that_is_no_int32_is_refused(size):
    patterns = [minference.Dense(), minference.VerticalSlash(size, 1)]
    with pytest.raises(ValueError, match=r"patterns: head 1: expected .* int32, got VerticalSlash"):
        to_tensor(patterns)


@pytest.mark.parametrize(
    "pattern",
    [
        minference.AShape(-1, 5),
        minference.AShape(5, -1),
        minference.VerticalSlash(-3, 5),
        minference.TriShape(1, 1, -1),
        minference.BlockSparse(0),
    ],
)
def test_library_refuses_what_makes_no_sense(pattern):
    q = torch.zeros(1, 4, 2, 8)
    with pytest.raises(ValueError, match="pattern"):
        minference.prefill_attn(q, q, q, pattern)
