# SPDX-License-Identifier: Apache-2.0
"""The table of the sweep, in markdown."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import minference
import torch
import transformers

from tiny_models.compare import TOLERANCE, Verdict

RESULTS = ["equal", "refused", "not used", "cannot be built", "error", "WRONG"]
MEANING = {
    "equal": f"within {TOLERANCE:.0e} of the largest logit, in all scenarios not refused",
    "refused": "says that it does not serve the family, and why",
    "not used": "the model never calls its attention function",
    "cannot be built": "the generic configuration gave no tiny model that runs",
    "error": "fails, other than by refusing",
    "WRONG": "differs from eager",
}
HEAD = """# Models

Every family that transformers {transformers} registers for text (causal language models,
encoder-decoders, speech to text, image and text to text), as a tiny random model in float32:
`attn_implementation="minference"`, all heads dense, against the model's own eager attention. torch
{torch}, minference {minference}. Written by

    PYTHONPATH=tests/python python -m tiny_models.sweep --out docs/models.md

The scenarios: a prompt longer than any window, padding on either side, chunks over a dynamic and a
static cache, generation with and without cache from a padded batch, only the last rows' logits,
tokens that stand for an image. A scenario that eager itself does not run is not applicable.
"kernels" is the number of calls of minference's kernels in the first scenario, over all layers. It
is 0 if every layer needs something that no kernel has, and is computed as by SDPA or eager.
"""


def write_table(verdicts: list[Verdict], path: Path) -> None:
    counts = Counter(v.result for v in verdicts)
    head = HEAD.format(
        transformers=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        minference=minference.__version__,
    )
    lines = [head, "| result | classes | |", "|---|---|---|"]
    lines += [f"| {r} | {counts[r]} | {MEANING[r]} |" for r in RESULTS if counts[r]]
    lines += ["", f"{len(verdicts)} classes of {len({v.family for v in verdicts})} families.", ""]
    lines += ["| family | class | result | largest error | kernels | not applicable | reason |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [_row(v) for v in sorted(verdicts, key=lambda v: (v.family, v.class_name))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _row(verdict: Verdict) -> str:
    ran = verdict.result in ("equal", "WRONG")
    largest = f"{max(verdict.errors.values()):.0e}" if ran else ""
    without = ", ".join(verdict.not_applicable)
    kernels = str(verdict.kernel_calls) if ran else ""
    cells = [verdict.family, verdict.class_name, verdict.result, largest, kernels, without]
    return f"| {' | '.join([*cells, _cell(verdict.reason)])} |"


def _cell(text: str, width: int = 200) -> str:
    """Shorten text, and remove what would end a cell or name a path of this machine."""
    text = re.sub(r"(/[\w.+-]+){2,}/", "", text.replace("|", "/"))
    return text if len(text) <= width else text[: width - 3] + "..."
