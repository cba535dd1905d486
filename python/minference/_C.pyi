"""What this build of libminference is, and what it can use on this machine."""

from typing import TypedDict

class Capability(TypedDict):
    """A backend or a CPU instruction set; `reason` says why it is not available."""

    name: str
    available: bool
    selected: bool
    reason: str

def version() -> str: ...
def build_info() -> str: ...
def backends() -> list[Capability]: ...
def cpu_isas() -> list[Capability]: ...
def set_cpu_isa(name: str | None) -> None: ...
