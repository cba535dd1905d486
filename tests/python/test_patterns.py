# SPDX-License-Identifier: Apache-2.0
"""The pattern dataclasses, and the tensor that the ops take."""

from __future__ import annotations

import dataclasses

import minference
import pytest
import torch
from minference.patterns import to_tensor

VerticalSlash, BlockSparse = minference.VerticalSlash, minference.BlockSparse

# (pattern, its row): kinds are those of minf_pattern_kind, fields those of its structs.
ROWS = [
    (minference.Dense(), [0, 0, 0, 0, 0, 0, 0, 0]),
    (minference.AShape(sink=128, window=1024), [1, 128, 1024, 0, 0, 0, 0, 0]),
    (VerticalSlash(vertical_size=1000, slash_size=6096), [2, 1000, 6096, 64, 30, 100, 1, 1]),
    (
        VerticalSlash(2**31 - 1, 0, last_q=8, sink=1, local=2, vertical_p=0.3, slash_p=0.9),
        [2, 2**31 - 1, 0, 8, 1, 2, 0.3, 0.9],
    ),
    (BlockSparse(top_k=100), [3, 100, 1, 0, 0, 0, 0, 0]),
    (BlockSparse(100, top_p=0.95), [3, 100, 0.95, 0, 0, 0, 0, 0]),
    (minference.TriShape(sink=8, window=512, last=128), [4, 8, 512, 128, 0, 0, 0, 0]),
]


def test_table_has_a_row_per_head():
    table = to_tensor([pattern for pattern, _ in ROWS])
    assert table.dtype == torch.float64
    assert table.device.type == "cpu"
    assert table.tolist() == [row for _, row in ROWS]


@pytest.mark.parametrize(("pattern", "row"), ROWS)
def test_one_pattern_is_one_row(pattern, row):
    assert to_tensor(pattern).tolist() == [row]


def test_no_patterns_are_no_rows():
    assert to_tensor([]).shape == (0, 8)


def test_patterns_compare_by_value_and_are_frozen():
    assert minference.AShape(1, 2) == minference.AShape(sink=1, window=2)
    assert minference.AShape(1, 2) != minference.VerticalSlash(1, 2)
    assert len({minference.Dense(), minference.Dense(), minference.BlockSparse(3)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        minference.BlockSparse(3).top_k = 4


def test_repr_shows_options_that_are_not_the_default():
    assert repr(VerticalSlash(1, 2)) == "VerticalSlash(vertical_size=1, slash_size=2)"
    assert repr(BlockSparse(9, top_p=0.5)) == "BlockSparse(top_k=9, top_p=0.5)"
    assert repr(minference.Dense()) == "Dense()"
    assert VerticalSlash(1, 2, sink=30, local=7).options == {"local": 7}


@pytest.mark.parametrize("share", ["0.5", None])
def test_budget_that_is_no_number_is_refused(share):
    with pytest.raises(ValueError, match=r"patterns: head 0: expected shares that are numbers"):
        to_tensor(BlockSparse(3, top_p=share))


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
