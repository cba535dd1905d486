# SPDX-License-Identifier: Apache-2.0
"""Which keys a query head attends: one frozen dataclass per pattern.

Row ``i`` of a call is at position ``p_i = i + seqlen_k - seqlen_q`` and never sees a key after
it. Sizes are in tokens, ``top_k`` in blocks. Fields with a default are options of the estimator;
heads of a call that have the same options are estimated together. Nothing is checked here: the
library checks every pattern that reaches it, and says which one is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from minference._C import DEFAULT_LAST_Q, DEFAULT_LOCAL, DEFAULT_SINK, PATTERN_KINDS

__all__ = ["AShape", "BlockSparse", "Dense", "Pattern", "TriShape", "VerticalSlash", "to_tensor"]

ROW_NUMBERS = 8  # A kind, and the 7 fields of VerticalSlash, which has the most.


@dataclass(frozen=True, repr=False)
class Pattern:
    """Base of the patterns. Their fields are those of the structs in minference.h, in order."""

    kind: ClassVar[int]

    @property
    def row(self) -> tuple[float, ...]:
        """The kind and the fields, as ``minf_pattern_from_numbers`` reads them, then zeros."""
        fields = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return (self.kind, *fields, *[0] * (ROW_NUMBERS - 1 - len(fields)))

    @property
    def options(self) -> dict[str, float]:
        """The options that are not the defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.default not in (dataclasses.MISSING, getattr(self, field.name))
        }

    def __repr__(self) -> str:
        """Spell the pattern, options only where they are not the defaults."""
        sizes = {name: getattr(self, name) for name in self.size_names()} | self.options
        fields = ", ".join(f"{name}={value!r}" for name, value in sizes.items())
        return f"{type(self).__name__}({fields})"

    @classmethod
    def size_names(cls) -> list[str]:
        """Return the names of the fields that have no default."""
        fields = dataclasses.fields(cls)
        return [field.name for field in fields if field.default is dataclasses.MISSING]


@dataclass(frozen=True, repr=False)
class Dense(Pattern):
    """Every visible key."""

    kind: ClassVar[int] = PATTERN_KINDS["dense"]


@dataclass(frozen=True, repr=False)
class AShape(Pattern):
    """The first ``sink`` keys and the last ``window`` ones, the row's own included."""

    kind: ClassVar[int] = PATTERN_KINDS["a_shape"]
    sink: int
    window: int


@dataclass(frozen=True, repr=False)
class VerticalSlash(Pattern):
    """The columns and the distances that the last rows attend most.

    Attributes:
        vertical_size: The most columns; at least ``sink`` are kept.
        slash_size: The most distances; at least ``local`` are kept.
        last_q: Rows at the end of the call that estimate, 1 to 64.
        sink: First columns, always kept.
        local: Distances ``[0, local)``, always kept.
        vertical_p: Keep the smallest set of columns that holds this share of the score, in (0, 1].
        slash_p: The same for distances.
    """

    kind: ClassVar[int] = PATTERN_KINDS["vertical_slash"]
    vertical_size: int
    slash_size: int
    last_q: int = DEFAULT_LAST_Q
    sink: int = DEFAULT_SINK
    local: int = DEFAULT_LOCAL
    vertical_p: float = 1.0
    slash_p: float = 1.0


@dataclass(frozen=True, repr=False)
class BlockSparse(Pattern):
    """Per 64 query rows, the 64-key blocks with the largest mean-pooled score.

    Attributes:
        top_k: The most blocks per row block, at least 1.
        top_p: Keep the smallest set of blocks that holds this share of the softmax, in (0, 1].
    """

    kind: ClassVar[int] = PATTERN_KINDS["block_sparse"]
    top_k: int
    top_p: float = 1.0


@dataclass(frozen=True, repr=False)
class TriShape(Pattern):
    """:class:`AShape`, and the ``last`` rows at the end of the call are dense."""

    kind: ClassVar[int] = PATTERN_KINDS["tri_shape"]
    sink: int
    window: int
    last: int


def to_tensor(patterns: Pattern | Sequence[Pattern]) -> Tensor:
    """Return the patterns as the ops take them: float64 ``[num_heads_q, 8]``, ``[1, 8]`` for one.

    A row is the kind and the fields of the pattern, then zeros.

    Raises:
        ValueError: Something else was given; or a size is not an int32, or a share not a number,
            so that the op could not take it.
    """
    if isinstance(patterns, Pattern):
        patterns = [patterns]
    if not isinstance(patterns, Sequence) or isinstance(patterns, str):
        msg = (
            "patterns: expected a pattern, or a sequence of one per query head, got"
            f" {type(patterns).__name__}"
        )
        if hasattr(patterns, "layers"):
            msg += ", which has the patterns of many layers: pass one layer's, config[layer]"
        raise ValueError(msg)
    rows = []
    for head, pattern in enumerate(patterns):
        if not isinstance(pattern, Pattern):
            msg = f"patterns: head {head}: expected a pattern, got {type(pattern).__name__}"
            raise ValueError(msg)
        for field in dataclasses.fields(pattern):
            value = getattr(pattern, field.name)
            if field.type == "float":
                if not isinstance(value, (int, float)):
                    msg = f"patterns: head {head}: expected shares that are numbers, got {pattern}"
                    raise ValueError(msg)
            elif not isinstance(value, int) or not -(2**31) <= value < 2**31:
                msg = f"patterns: head {head}: expected sizes that are int32, got {pattern}"
                raise ValueError(msg)
        rows.append(pattern.row)
    # The ops read it on the CPU, whatever device the user has made the default.
    return torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(-1, ROW_NUMBERS)
