# SPDX-License-Identifier: Apache-2.0
"""No kernel may spill. nvcc only warns (minference_configure_cuda() says why); this test fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import minference._C as _C
import pytest

from tools.static_code import find_tool

LIBRARY = Path(_C.__file__).with_name("libminference.so")


@pytest.mark.skipif("CUDA: nvcc" not in _C.build_info(), reason="built without nvcc")
def test_no_kernel_spills_registers():
    """A spill needs a stack frame or local memory; tools.static_gates checks everything else."""
    usage = subprocess.check_output([find_tool("cuobjdump"), "-res-usage", LIBRARY], text=True)
    kernels = re.findall(r" Function (\S+):\s+REG:\d+ STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert len(kernels) == usage.count(" Function ") > 100
    assert [name for name, stack, local in kernels if (stack, local) != ("0", "0")] == []
