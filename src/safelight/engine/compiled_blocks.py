"""The transformer's repeated blocks, compiled by a thread while those that are not serve (`--compile on`, on a GPU).

One compilation for each class of block, with sizes that are free; what it does not cover runs as it did, and nothing is
compiled again while pictures are made. docs/decisions/0041-compiled-on-request.md.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from safelight.environment import keep_compiled
from safelight.errors import ConfigurationError
from safelight.settings import EngineOptions, Offload

logger = logging.getLogger(__name__)

Compile = Callable[..., Any]
"""As torch.compile."""
_COMPILERS = ("cc", "gcc", "clang")
_ROWS = (1, 2)
"""Of the batches that are tried: torch takes a size of 1 for another kind than all others."""


def check_compile(options: EngineOptions, device: torch.device, offload: Offload) -> None:
    """Raises ConfigurationError where blocks are asked to be compiled and cannot be."""
    if options.compile != "on":
        return
    if device.type != "cuda":
        raise ConfigurationError(
            f"compile on is for CUDA, and the model runs on {device.type}: there compiled blocks round otherwise, so a "
            "seed would not make its picture again; leave it out"
        )
    if offload not in ("none", "encoders"):
        raise ConfigurationError(
            f"compile on needs a transformer that stays on the GPU, and offload is {offload}; use offload none or "
            "encoders, or compile off"
        )
    if not any(shutil.which(name) for name in _COMPILERS):
        raise ConfigurationError("compile on needs a C compiler, and there is none; install gcc, or use compile off")


class CompiledBlocks:
    """Not ready until a picture has shown what its blocks are given, and these have been compiled."""

    def __init__(self, transformer: Any, *, compile: Compile = torch.compile) -> None:
        keep_compiled()
        self._compile = compile
        names = getattr(transformer, "_repeated_blocks", ())
        self._blocks = [each for each in transformer.modules() if type(each).__name__ in names]
        self._given: dict[type[nn.Module], tuple[nn.Module, Mapping[str, Any]]] = {}
        self._functions: dict[type[nn.Module], Callable[..., Any]] = {}
        self._hooks = [each.register_forward_pre_hook(self._note, with_kwargs=True) for each in self._first_blocks()]
        self.thread: threading.Thread | None = None

    @property
    def is_ready(self) -> bool:
        return bool(self._functions)

    @contextmanager
    def in_use(self, *, is_allowed: bool) -> Iterator[None]:
        """Inside, compiled blocks run if there are any. LoRAs are hooks inside of blocks: with them none is used."""
        if not (self.is_ready and is_allowed):
            yield
            return
        for block in self._blocks:
            block.forward = partial(self._functions[type(block)], block)
        try:
            with torch.compiler.set_stance("eager_on_recompile"):
                yield
        finally:
            for block in self._blocks:
                del block.forward

    def _first_blocks(self) -> list[nn.Module]:
        return list({type(block): block for block in reversed(self._blocks)}.values())

    def _note(self, block: nn.Module, _args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        """Keep what the first picture gives a block; when all are known, begin."""
        self._given[type(block)] = block, {name: _kept(value) for name, value in given.items()}
        if len(self._given) == len(self._hooks):
            for hook in self._hooks:
                hook.remove()
            self.thread = threading.Thread(target=self._make, name="compiler", daemon=True)
            self.thread.start()

    @torch.inference_mode()
    def _make(self) -> None:
        try:
            functions = {kind: self._compile(kind.forward, dynamic=True) for kind in self._given}
            for kind, (block, given) in self._given.items():
                for rows in _ROWS:
                    functions[kind](block, **{name: _repeated(value, rows) for name, value in given.items()})
        except RuntimeError as error:  # of torch's compilers
            logger.warning("blocks are not compiled, and steps go on as they are: %s", f"{error}".partition("\n")[0])
            return
        self._given.clear()
        self._functions = functions
        logger.info("blocks are compiled")


def _kept(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _repeated(value: Any, rows: int) -> Any:
    """Tensors of their own have rows; those in a tuple, where tokens stand, are shared by all."""
    return value[:1].repeat(rows, *[1] * (value.ndim - 1)) if isinstance(value, Tensor) else value
