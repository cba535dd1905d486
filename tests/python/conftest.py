# SPDX-License-Identifier: Apache-2.0
"""Fixtures: every backend that is present, and every CPU instruction set of this machine."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import minference
import minference._C as _C
import pytest
import torch

# No deadline, because the first call of a process starts threads. Each test keeps its `isa` for all
# examples.
hypothesis.settings.register_profile(
    "minference",
    parent=hypothesis.settings(),
    deadline=None,
    max_examples=25,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("minference")

# The oracle's sums are small: waking a second thread costs more than it saves, most of all while
# pytest-xdist keeps all cores busy. Tests named *threads* set their own numbers.
torch.set_num_threads(1)

BACKENDS = _C.backends()
CUDA_BACKENDS = [b["name"] for b in BACKENDS if b["name"] != "cpu" and b["available"]]
ISAS = _C.cpu_isas()
DEVICES = ["cpu"]
if any(b["name"] != "cpu" and b["available"] for b in BACKENDS) and torch.cuda.is_available():
    DEVICES.append("cuda")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): pytest-xdist's, also where it is absent")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Refuse to run if xdist would split groups: their tests share a folder or a GPU's memory."""
    of_group = [test for test in ids if "test_package.py" in test]
    if node.config.getoption("dist") == "loadgroup" and any("@" not in test for test in of_group):
        pytest.exit("this pytest-xdist does not keep groups of tests together", returncode=4)


def pytest_report_header() -> list[str]:
    def described(capabilities: list[dict]) -> str:
        return ", ".join(
            c["name"] if c["available"] else f"not {c['name']} ({c['reason']})"
            for c in capabilities
        )

    return [
        f"minference {minference.__version__}: backends {described(BACKENDS)}",
        f"CPU instruction sets: {described(ISAS)}",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``device``: the devices present. ``isa``: CPU instruction sets, or backends of a GPU."""
    isas = [isa["name"] for isa in ISAS if isa["available"]]
    wants_device, wants_isa = (name in metafunc.fixturenames for name in ("device", "isa"))
    if wants_device and wants_isa:
        cells = [("cpu", isa) for isa in isas]
        cells += [(device, backend) for device in DEVICES[1:] for backend in CUDA_BACKENDS]
        ids = [isa if device == "cpu" else f"{device}-{isa}" for device, isa in cells]
        metafunc.parametrize(("device", "isa"), cells, indirect=["isa"], ids=ids)
    elif wants_device:
        metafunc.parametrize("device", DEVICES)
    elif wants_isa:
        metafunc.parametrize("isa", isas, indirect=True)


NOT_SERVED_ON_CUDA = (
    "expected dtype bfloat16 or float16 on CUDA devices",
    "expected rows aligned to 16 bytes on CUDA devices",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that needs what a GPU's backends do not serve, and give their reason."""
    try:
        return (yield)
    except NotImplementedError as error:
        text = str(error)
        if any(reason in text for reason in NOT_SERVED_ON_CUDA):
            pytest.skip(text)
        raise


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Force one CPU instruction set, or one backend of a GPU, for the duration of a test."""
    force = _C.set_backend if request.param in CUDA_BACKENDS else _C.set_cpu_isa
    force(request.param)
    yield request.param
    force(None)


@pytest.fixture
def num_threads() -> Iterator[None]:
    """Restore torch's number of threads after a test that changes it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
