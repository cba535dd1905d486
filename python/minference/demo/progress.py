# SPDX-License-Identifier: Apache-2.0
"""Says what the demo is doing, and for how much longer."""

from __future__ import annotations

import shutil
import sys
from types import TracebackType

from tqdm import tqdm  # type: ignore[import-untyped]


class Progress:
    """A bar on a terminal, one line per step elsewhere. Counts tokens times layers."""

    def __init__(self, total: int) -> None:
        layout = "{desc:<36}{percentage:3.0f}% |{bar:16}| {elapsed}<{remaining}"
        # Where a terminal does not tell its size, tqdm takes it for 0 and shows nothing.
        columns, lines = shutil.get_terminal_size()
        # disable=None: only where stderr is no terminal.
        self.bar = tqdm(
            total=total, bar_format=layout, ncols=columns, nrows=lines, disable=None, leave=False
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def step(self, text: str) -> None:
        """Say what happens next."""
        if self.bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self.bar.set_description_str(text[:36])

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` more, through one layer."""
        self.bar.update(tokens)
