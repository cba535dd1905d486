"""Builds the compiled parts with CMake, in a build folder that persists between calls.

Metadata is in pyproject.toml. This file decides what setuptools cannot know: which cmake, ninja and
torch to use. CUDA backends are built if cmake finds an nvcc; MINF_CUDA=OFF or ON in the environment
overrides that. MINF_BUILD_DIR names another build folder, for example one that already holds the
library.

The op library is compiled against the torch of the environment that minference is installed into.
Any torch from 2.11 on will do, and the binary serves all of them. An isolated build cannot import
that torch, and must not download another one, so its files are searched for.
"""

import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
BUILD_DIR = Path(
    os.environ.get("MINF_BUILD_DIR", ROOT / "build" / f"cmake-{sys.implementation.cache_tag}")
)
MIN_CMAKE = (3, 25)

NO_TORCH = """
minference compiles its torch ops against the torch you use (2.11 or later), and found none in
    {places}
Install torch first, then minference. If your installer builds in an environment of its own that
does not lead back to yours, say where torch is, or build in yours:
    MINF_TORCH_DIR="$(python -c 'import torch; print(torch.__path__[0])')" pip install .
    pip install --no-build-isolation .
"""


def read_version() -> str:
    """Return MAJOR.MINOR.PATCH of minference.h, the one place that holds it."""
    header = (ROOT / "include/minference/minference.h").read_text()
    return ".".join(re.findall(r"^#define MINF_VERSION_\w+ (\d+)$", header, re.MULTILINE))


def missing_build_tools() -> list[str]:
    """Return requirements for cmake and ninja, unless the machine has suitable ones."""
    missing = []
    try:
        output = subprocess.check_output(["cmake", "--version"], text=True)
        version = tuple(int(part) for part in re.findall(r"\d+", output)[:2])
    except (OSError, subprocess.CalledProcessError):
        version = (0, 0)
    if version < MIN_CMAKE:
        missing.append(f"cmake>={MIN_CMAKE[0]}.{MIN_CMAKE[1]}")
    if shutil.which("ninja") is None:
        missing.append("ninja")
    return missing


def find_torch() -> Path:
    """Return the folder of the torch package to build against, without importing it.

    An isolated build hides the target environment's packages from sys.path, but pip runs it with
    that environment's interpreter, whose own paths still lead there. Other frontends create a new
    interpreter; then VIRTUAL_ENV or CONDA_PREFIX may name an activated environment.
    """
    if "MINF_TORCH_DIR" in os.environ:
        return Path(os.environ["MINF_TORCH_DIR"])
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0])
    places = [sysconfig.get_path("platlib"), site.getusersitepackages()]
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if prefix := os.environ.get(variable):
            places.append(
                sysconfig.get_path("platlib", "venv", vars={"base": prefix, "platbase": prefix})
            )
    for place in places:
        if (Path(place) / "torch" / "version.py").exists():
            return Path(place) / "torch"
    sys.exit(NO_TORCH.format(places="\n    ".join(dict.fromkeys(places))))


class CleanBuild(build):
    """Starts from an empty staging folder; setuptools would ship leftovers of an older build."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configures, builds and installs with CMake; a rebuild without changes takes a second."""

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        package_dir = ROOT / "python/minference" if in_place else Path(self.build_lib, "minference")
        # In place the headers are already there, and symbols are kept for debuggers and profilers.
        components = ["library", "python"] if in_place else ["library", "python", "development"]
        strip = [] if in_place else ["--strip"]

        self.configure()
        self.cmake("--build", BUILD_DIR, "--parallel", os.environ.get("MAX_JOBS", os.cpu_count()))
        for component in components:
            self.cmake(
                "--install", BUILD_DIR, "--prefix", package_dir.resolve(),
                "--component", component, *strip,
            )  # fmt: skip

    def configure(self) -> None:
        # Paths are passed on every call, because those of an isolated build disappear with it.
        import pybind11

        definitions = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja"),
            "MINF_CUDA": os.environ.get("MINF_CUDA", "AUTO"),
            "MINF_PYTHON": "ON",
            "MINF_TORCH": "ON",
            "MINF_TORCH_DIR": find_torch(),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        if launcher := shutil.which("ccache"):
            definitions["CMAKE_CXX_COMPILER_LAUNCHER"] = launcher
        self.cmake(
            "-S", ROOT, "-B", BUILD_DIR, "-G", "Ninja",
            *(f"-D{name}={value}" for name, value in definitions.items()),
        )  # fmt: skip

    def cmake(self, *arguments: object) -> None:
        subprocess.check_call(["cmake", *map(str, arguments)])


setup(
    version=read_version(),
    setup_requires=missing_build_tools(),
    ext_modules=[Extension("minference._C", sources=[])],
    cmdclass={"build": CleanBuild, "build_ext": CMakeBuild},
    zip_safe=False,
)
