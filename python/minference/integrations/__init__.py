# SPDX-License-Identifier: Apache-2.0
"""Engines that minference plugs into, one package each, imported only by who uses them."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["register_when_imported"]

# The module of transformers that holds the names of attention functions.
NAMES = "transformers.modeling_utils"
TRANSFORMERS = "minference.integrations.transformers"


def register_when_imported() -> None:
    """Make ``attn_implementation="minference"`` known as soon as transformers has such names.

    That is now, if it has been imported; else right after it is. It is never imported for this.
    """
    if NAMES in sys.modules:
        _register()
    elif not any(isinstance(finder, _NamesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NamesFinder())


def _register() -> None:
    """Importing the integration registers; a transformers that is too old has no such name."""
    try:
        importlib.import_module(TRANSFORMERS)
    except ImportError as error:
        # set_patterns says why. Whoever asks for the name is told by transformers that it is none,
        # and whoever does not must still be able to import transformers.
        if "expected transformers" not in str(error):
            warnings.warn(
                f"minference: the name is not known to transformers: {error}", stacklevel=2
            )


class _NamesFinder(importlib.abc.MetaPathFinder):
    """Sees one module being imported, and has something done after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != NAMES:
            return None
        # Who only looks for the module, and does not import it, is no reason to stop looking on.
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ThenRegister(spec.loader)
                return spec
        return None


class _ThenRegister(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # get_source() and the like.

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Code that asks the module for its loader (inspect, pkgutil) gets the real one.
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _NamesFinder)]
        _register()
