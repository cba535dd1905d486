# SPDX-License-Identifier: Apache-2.0
"""Prints the figures of a result file, one line each: python -m bench.gpu_summary FILE..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.runner import print_figures


def main() -> None:
    for name in sys.argv[1:]:
        report = json.loads(Path(name).read_text())
        print(f"{Path(name).name}{', --quick: the numbers mean nothing' * report['quick']}")
        for result in report["results"]:
            print_figures(result["figures"])
            if missing := len(result["not_measured"]):
                print(f"  {result['experiment']}: {missing} more not measured, see the file")


if __name__ == "__main__":
    main()
