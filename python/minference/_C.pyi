"""What this build of libminference is, and what it can use on this machine."""

from typing import TypedDict

class Capability(TypedDict):
    """A backend or a CPU instruction set; `reason` says why it is not available."""

    name: str
    available: bool
    selected: bool
    reason: str

# Constants of minference.h: MINF_BLOCK, MINF_DEFAULT_*; minf_dtype and minf_pattern_kind by name.
BLOCK: int
DEFAULT_LAST_Q: int
DEFAULT_SINK: int
DEFAULT_LOCAL: int
DTYPES: dict[str, int]
PATTERN_KINDS: dict[str, int]

def version() -> str: ...
def build_info() -> str: ...
def backends() -> list[Capability]: ...
def cpu_isas() -> list[Capability]: ...
def set_backend(name: str | None) -> None: ...
def min_sparse_seqlen(*, cuda: bool, index: int) -> int: ...

# Address, minf_dtype, whether it is on a GPU, device index, shape, strides.
Description = tuple[int, int, bool, int, list[int], list[int]]

def attention_implementations(
    q: Description, k: Description, v: Description, patterns: list[list[float]]
) -> list[Capability]: ...
def prefill_workspace_bytes(q: Description, k: Description, patterns: list[list[float]]) -> int: ...
def set_cpu_isa(name: str | None) -> None: ...
