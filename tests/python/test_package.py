# SPDX-License-Identifier: Apache-2.0
"""What a user installs: `cmake --install`, the wheel, and the examples built on either."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import minference
import pytest
from minference import _C

ROOT = Path(__file__).parents[2]
EXAMPLES = {"vertical_slash.c": ("cc", "-std=c11"), "vertical_slash.cpp": ("c++", "-std=c++17")}

# All in one worker, because they share build folders.
pytestmark = [
    pytest.mark.xdist_group("package"),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed"),
]


def run(*command: object, **environment: object) -> str:
    """Run a command and return its stdout; show everything it said if it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def installed_tree(tmp_path_factory) -> Path:
    """The prefix of a `cmake --install`, moved afterwards, because its place must not matter."""
    run("cmake", "--preset", "tests", "-DMINF_PYTHON=OFF", "-DMINF_TORCH=OFF")
    run("cmake", "--build", "--preset", "tests", "--target", "minference")
    prefix = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", ROOT / "build/tests", "--prefix", prefix / "first")
    return (prefix / "first").rename(prefix / "moved")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", folder, ROOT),
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked_wheel(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "minference"


@pytest.fixture(params=["installed_tree", "unpacked_wheel"])
def prefix(request) -> Path:
    return request.getfixturevalue(request.param)


def library_folder(prefix: Path) -> Path:
    (path,) = prefix.rglob("libminference.so")
    return path.parent


def dynamic_section(path: Path, tag: str) -> list[str]:
    """Return the values of one tag, such as NEEDED, of a shared library."""
    return re.findall(rf"\({tag}\).*\[(.*)\]", run("readelf", "--dynamic", "--wide", path))


def test_examples_build_with_cmake(prefix, tmp_path):
    configured = run(
        *("cmake", "-S", ROOT / "examples", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    )
    run("cmake", "--build", tmp_path)
    for program in ("vertical_slash_c", "vertical_slash_cpp"):
        assert run(tmp_path / program).endswith(": ok\n")
    built_for_gpus = (tmp_path / "vertical_slash_cuda").exists()
    assert built_for_gpus != ("vertical_slash_cuda: not built" in configured)
    if built_for_gpus:
        check_example_for_gpus(tmp_path / "vertical_slash_cuda")


def check_example_for_gpus(program: Path):
    """It succeeds if the library has a GPU; otherwise it says why and exits with 77."""
    (gpu,) = [backend for backend in _C.backends() if backend["name"] == "sm80"]
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    said = (result.returncode, result.stdout, result.stderr)
    if gpu["available"]:
        assert result.returncode == 0, said
        assert re.fullmatch(r"enqueued: .*: ok\nreplayed: .*: ok\n", result.stdout), said
    else:
        assert result.returncode == 77, said
        assert result.stdout == ""
        message = r"minference: q: no backend serves tensors on CUDA devices: .*sm80: .+\n"
        assert re.fullmatch(message, result.stderr), said


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
@pytest.mark.parametrize("source", EXAMPLES)
def test_examples_build_with_pkg_config(prefix, source, tmp_path):
    (pc_file,) = prefix.rglob("minference.pc")
    search = {"PKG_CONFIG_PATH": pc_file.parent}
    flags = run("pkg-config", "--cflags", "--libs", "minference", **search).split()
    assert run("pkg-config", "--modversion", "minference", **search).strip() == _C.version()

    program = tmp_path / "program"
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
    run(*EXAMPLES[source], *warnings, ROOT / "examples" / source, "-o", program, *flags, "-lm")
    assert run(program, LD_LIBRARY_PATH=library_folder(prefix)).endswith(": ok\n")


def test_library_exports_the_c_api_and_nothing_else(prefix):
    declared = re.findall(
        r"^MINF_API .*?\b(minf_\w+)\(",
        (ROOT / "include/minference/minference.h").read_text(),
        re.MULTILINE,
    )
    library = library_folder(prefix) / "libminference.so"
    exported = run("nm", "--dynamic", "--defined-only", "--format=just-symbols", library).split()
    assert sorted(exported) == sorted(declared)


def test_library_needs_neither_torch_nor_python(prefix):
    needed = dynamic_section(library_folder(prefix) / "libminference.so", "NEEDED")
    allowed = r"(libc|libm|libstdc\+\+|libgcc_s|libpthread|ld-linux.*)\.so\.\d+"
    assert [name for name in needed if not re.fullmatch(allowed, name)] == []


def test_modules_find_the_library_beside_them(unpacked_wheel):
    (module,) = unpacked_wheel.glob("_C.*.so")
    ops = unpacked_wheel / "libminference_torch.so"
    for path in (module, ops):
        assert "libminference.so" in dynamic_section(path, "NEEDED")
        assert dynamic_section(path, "RUNPATH") == ["$ORIGIN"]
    assert not any("python" in name for name in dynamic_section(ops, "NEEDED"))
    assert not any("torch" in name for name in dynamic_section(module, "NEEDED"))


def test_wheel_holds_everything(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if name.startswith("minference/")}
    python_files = {
        str(path.relative_to(ROOT / "python"))
        for path in (ROOT / "python/minference").rglob("*")
        if path.suffix in {".py", ".pyi"} or path.name == "py.typed"
    }
    headers = {str(path.relative_to(ROOT)) for path in (ROOT / "include").rglob("*.h*")}
    libraries = {"libminference.so", "libminference_torch.so", Path(_C.__file__).name}
    cmake = {
        f"lib/cmake/minference/minference{part}.cmake"
        for part in ("Config", "ConfigVersion", "Targets", "Targets-release")
    }
    packaged = headers | libraries | cmake | {"lib/pkgconfig/minference.pc"}
    assert files == python_files | {f"minference/{name}" for name in packaged}
    assert wheel.name.startswith(f"minference-{minference.__version__}-cp")


@pytest.mark.parametrize(
    ("version_py", "message"),
    [
        (None, "expected a torch package in MINF_TORCH_DIR"),
        ("__version__ = '2.10.1+cu128'\n", "expected torch >= 2.11, got 2.10.1"),
    ],
    ids=["no torch", "old torch"],
)
def test_unusable_torch_is_refused(version_py, message, tmp_path):
    torch_dir = tmp_path / "torch"
    torch_dir.mkdir()
    if version_py is not None:
        (torch_dir / "version.py").write_text(version_py)
    result = subprocess.run(
        ["cmake", "-S", ROOT, "-B", tmp_path, "-DMINF_TORCH=ON", f"-DMINF_TORCH_DIR={torch_dir}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert message in " ".join(result.stderr.split())


def test_build_information():
    assert _C.version() == minference.__version__
    assert re.search(r"Release.*, CUDA: .", _C.build_info())
    cpu = _C.backends()[-1]
    assert cpu == {"name": "cpu", "available": True, "selected": True, "reason": ""}


def test_instruction_sets_can_be_forced():
    isas = _C.cpu_isas()
    (best,) = [isa["name"] for isa in isas if isa["selected"]]
    assert best == next(isa["name"] for isa in isas if isa["available"])
    assert isas[-1]["name"] == "portable"
    try:
        for isa in isas:
            if isa["available"]:
                _C.set_cpu_isa(isa["name"])
                assert [i["name"] for i in _C.cpu_isas() if i["selected"]] == [isa["name"]]
            else:
                assert isa["reason"]
                with pytest.raises(NotImplementedError, match=isa["name"]):
                    _C.set_cpu_isa(isa["name"])
        with pytest.raises(ValueError, match="abacus"):
            _C.set_cpu_isa("abacus")
        with pytest.raises(
            ValueError, match="backend: expected one of sm90, sm80, cpu, got abacus"
        ):
            _C.set_backend("abacus")
    finally:
        _C.set_cpu_isa(None)
    assert [isa["name"] for isa in _C.cpu_isas() if isa["selected"]] == [best]
