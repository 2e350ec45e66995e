"""Importing with less memory: without docstrings, and some modules only once they are used.

Nobody reads documentation in a worker. `python -OO` would leave docstrings out as well, but compiles every module anew
where it cannot write its cache. What is put off are modules of the standard library and of attrs that are imported by
others and never used here; importlib's own LazyLoader does it, so that whoever needs one after all has it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import LazyLoader
from opcode import opmap
from types import CodeType, ModuleType
from typing import Any

__all__ = ["install"]

_LATER = frozenset(
    {"attr.filters", "attr.validators", "attrs.filters", "attrs.validators", "ipaddress", "numpy.matrixlib"}
)
_DOCUMENTATION = frozenset({"numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars"})
"""Modules that do nothing but attach documentation to compiled functions."""
_OPTIMIZED = 1
"""CO_OPTIMIZED: the code of a function; its first constant is its docstring, or None."""
_LOADS = tuple(opmap[name] for name in ("LOAD_CONST", "RETURN_CONST") if name in opmap)
_LONG = 40


def _bare(code: CodeType) -> CodeType:
    constants = [_bare(entry) if isinstance(entry, CodeType) else entry for entry in code.co_consts]
    if code.co_flags & _OPTIMIZED and constants and isinstance(constants[0], str) and len(constants[0]) > _LONG:
        # a generator has no docstring, and a function may use a text equal to its own: then it is loaded
        loads_first = {load for load, which in zip(code.co_code[::2], code.co_code[1::2], strict=True) if not which}
        if loads_first.isdisjoint(_LOADS):
            constants[0] = None
    return code.replace(co_consts=tuple(constants))


class _BareLoader(SourceFileLoader):
    """Loads a module without the docstrings of its functions and classes."""

    def get_code(self, fullname: str) -> CodeType | None:
        code = super().get_code(fullname)
        return None if code is None else _bare(code)

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__doc__ = None


class _EmptyLoader:
    """Makes a module without content."""

    def create_module(self, spec: ModuleSpec) -> None:  # noqa: ARG002 - importlib's protocol
        return None

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder:
    """PathFinder with the loaders above."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in _DOCUMENTATION:
            return ModuleSpec(name, _EmptyLoader())  # type: ignore[arg-type]
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            bare = _BareLoader(spec.loader.name, str(spec.loader.path))
            spec.loader = LazyLoader(bare) if name in _LATER else bare
        return spec

    @staticmethod
    def find_distributions(*context: Any) -> Any:
        """Answer importlib.metadata."""
        return PathFinder.find_distributions(*context)

    @staticmethod
    def invalidate_caches() -> None:
        PathFinder.invalidate_caches()


def install() -> None:
    """Import so from now on."""
    sys.meta_path[:] = [_Finder if finder is PathFinder else finder for finder in sys.meta_path]
