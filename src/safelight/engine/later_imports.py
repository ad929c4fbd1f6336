"""Imports that a replica does without: what the libraries import, or read, all of to give one thing of it.

`torch._dynamo`, the compiler, is imported to mark functions for it; `transformers.models` reads its thousands of source
files to know what they define; diffusers imports every network that it has. A stand-in for such a package has its path,
so that a module in it can be imported, and becomes the package as soon as it is asked for anything else
(docs/decisions/0046-what-a-request-costs.md).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
TRACING = f"{COMPILER}._trace_wrapped_higher_order_op"
"""Of which transformers imports one context manager, for masks that no text encoder of ours has."""
PACKAGES = (
    "transformers.models",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
)


def put_off_packages() -> None:
    """Those that are not imported yet."""
    for name in PACKAGES:
        _put_off(name)


def put_off_compiler() -> None:
    """Libraries only mark functions for it, which is in vain until it is there."""
    if (compiler := _put_off(COMPILER)) is not None:
        vars(compiler).update(dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _unmarked))
        tracing = sys.modules[TRACING] = _Later(TRACING)
        vars(tracing)["TransformGetItemToIndex"] = lambda: _import(TRACING).TransformGetItemToIndex()
        sys.meta_path.insert(0, _PartsOfCompiler())


class _Later(ModuleType):
    """Stands in for a module until it is asked for what it does not have."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python looks for in every module
            raise AttributeError(name)
        return getattr(_import(self.__name__), name)


def _put_off(name: str) -> ModuleType | None:
    library, *rest = name.split(".")
    spec = None if name in sys.modules else find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    if not folder.is_dir():  # a version that has it elsewhere imports it as it likes
        return None
    package = sys.modules[name] = _Later(name)
    package.__path__ = [str(folder)]
    return package


def _import(name: str) -> ModuleType:
    """The module itself, and from now on nothing in its place."""
    for each in (COMPILER, TRACING) if name.startswith(COMPILER) else (name,):
        if isinstance(sys.modules.get(each), _Later):
            del sys.modules[each]
    return import_module(name)


class _PartsOfCompiler(MetaPathFinder, Loader):
    """They cannot be without the whole of it, which loads most of them."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        if not fullname.startswith(f"{COMPILER}.") or not isinstance(sys.modules.get(COMPILER), _Later):
            return None
        return ModuleSpec(fullname, self, loader_state=_import(fullname))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        part: ModuleType = spec.loader_state
        spec.loader_state = part.__spec__
        return part

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # it is loaded, and this is its own


def _unmarked(function: Any = None, *_: object, **__: object) -> Any:
    """Also as a decorator with arguments."""
    return _unmarked if function is None else function
