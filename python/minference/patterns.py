# SPDX-License-Identifier: Apache-2.0
"""Which keys a query head attends: one frozen dataclass per pattern.

Row ``i`` of a call stands at position ``p_i = i + seqlen_k - seqlen_q`` and never sees a key after
it. Sizes are tokens, ``top_k`` is blocks. Nothing is checked here: the library checks every pattern
that reaches it, and says which one is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AShape", "BlockSparse", "Dense", "Pattern", "TriShape", "VerticalSlash", "to_tensor"]


@dataclass(frozen=True)
class Pattern:
    """Base of the patterns."""

    @property
    def row(self) -> tuple[int, int, int, int]:
        """``(kind, a, b, c)``, as ``minf_pattern`` of minference.h has it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Dense(Pattern):
    """Every visible key."""

    @property
    def row(self) -> tuple[int, int, int, int]:
        """See :class:`Pattern`."""
        return 0, 0, 0, 0


@dataclass(frozen=True)
class AShape(Pattern):
    """The first ``sink`` keys and the last ``window`` ones, the row's own included."""

    sink: int
    window: int

    @property
    def row(self) -> tuple[int, int, int, int]:
        """See :class:`Pattern`."""
        return 1, self.sink, self.window, 0


@dataclass(frozen=True)
class VerticalSlash(Pattern):
    """The ``vertical_size`` columns and ``slash_size`` distances that the last rows attend most."""

    vertical_size: int
    slash_size: int

    @property
    def row(self) -> tuple[int, int, int, int]:
        """See :class:`Pattern`."""
        return 2, self.vertical_size, self.slash_size, 0


@dataclass(frozen=True)
class BlockSparse(Pattern):
    """Per 64 query rows, the ``top_k`` 64-key blocks with the largest mean-pooled score."""

    top_k: int

    @property
    def row(self) -> tuple[int, int, int, int]:
        """See :class:`Pattern`."""
        return 3, self.top_k, 0, 0


@dataclass(frozen=True)
class TriShape(Pattern):
    """:class:`AShape`, and the ``last`` rows at the end of the call are dense."""

    sink: int
    window: int
    last: int

    @property
    def row(self) -> tuple[int, int, int, int]:
        """See :class:`Pattern`."""
        return 4, self.sink, self.window, self.last


def to_tensor(patterns: Pattern | Sequence[Pattern]) -> Tensor:
    """Return the patterns as the ops take them: int32 ``[num_heads_q, 4]``, or ``[1, 4]`` for one.

    Raises:
        ValueError: Something else was given, or a size is no int32, so that it could not even be
            handed over.
    """
    if isinstance(patterns, Pattern):
        patterns = [patterns]
    if not isinstance(patterns, Sequence) or isinstance(patterns, str):
        msg = (
            "patterns: expected a pattern, or a sequence of one per query head, got"
            f" {type(patterns).__name__}"
        )
        if hasattr(patterns, "layers"):
            msg += ", which is of many layers: pass those of one, config[layer]"
        raise ValueError(msg)
    for head, pattern in enumerate(patterns):
        if not isinstance(pattern, Pattern):
            msg = f"patterns: head {head}: expected a pattern, got {type(pattern).__name__}"
            raise ValueError(msg)
        for size in pattern.row:
            if not isinstance(size, int) or not -(2**31) <= size < 2**31:
                msg = f"patterns: head {head}: expected sizes that are int32, got {pattern}"
                raise ValueError(msg)
    # The ops read it on the CPU, whatever device the user has made the default.
    rows = [pattern.row for pattern in patterns]
    return torch.tensor(rows, dtype=torch.int32, device="cpu").reshape(-1, 4)
