# SPDX-License-Identifier: Apache-2.0
"""minference.explain: its text, and that the call does what it says."""

from __future__ import annotations

import minference
import pytest
import torch

PATTERNS = [
    minference.Dense(),
    minference.AShape(4, 70),
    minference.VerticalSlash(40, 110, last_q=16),
    minference.BlockSparse(2, top_p=0.9),
]


def make_qkv():
    torch.manual_seed(0)
    q, k = torch.randn(2, 300, 4, 64), torch.randn(2, 400, 2, 64)
    return q, k, torch.randn(2, 400, 2, 40)


def test_a_call_on_the_cpu():
    q, k, v = make_qkv()
    explanation = minference.explain(q, k, v, PATTERNS)
    assert explanation.backend == "cpu"
    assert [(e["name"], e["selected"]) for e in explanation.implementations] == [("cpu", True)]
    assert torch.equal(explanation.density, minference.density(q, k, PATTERNS))
    assert explanation.density.shape == (2, 4)
    assert explanation.workspace_bytes > 0
    lines = str(explanation).splitlines()
    assert lines[:2] == ["backend cpu", "attention cpu"]
    assert lines[2].startswith("workspace ")
    assert lines[-4:] == [
        f"  {head:3d}  {share:.3f}  {pattern}"
        for head, (share, pattern) in enumerate(
            zip(explanation.density.mean(0).tolist(), PATTERNS, strict=True)
        )
    ]
    assert "VerticalSlash(vertical_size=40, slash_size=110, last_q=16)" in lines[-2]


def test_one_pattern_for_all_heads():
    explanation = minference.explain(*make_qkv(), minference.Dense())
    assert explanation.patterns == (minference.Dense(),)
    assert explanation.density.eq(1).all()
    assert str(explanation).count("Dense()") == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda q, k, v: (q, k[:, :, :1].expand(-1, -1, 3, -1), v), "k"),
        (lambda q, k, v: (q, k, v[:, :9]), "v: expected"),
        (lambda q, k, v: (q, k, v.half()), "v: expected dtype float32"),
        (lambda q, k, v: (q.double(), k, v), "q: expected float32, .*Double"),
    ],
)
def test_what_the_call_would_refuse(spoil, message):
    with pytest.raises(ValueError, match=message):
        minference.explain(*spoil(*make_qkv()), PATTERNS)
