"""Memory that is not there, for real: a process of its own may take no more addresses than it has, and a little."""

from __future__ import annotations

import multiprocessing
import re
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safelight.engine.engine import load_engine
from safelight.errors import OutOfMemory
from safelight.model.checkpoint import read_model_spec
from safelight.model.memory.exhausted import is_out_of_memory
from safelight.settings import EngineOptions
from tests.true_heads import save_shapes, true_shapes
from tests.unit.engine.drive import denoise, start

MIB = 1024**2
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux shows of a process")


def in_a_process_of_its_own(function: Callable[[Path], None], folder: Path) -> None:
    """Where no earlier test has left memory that could be taken again without asking the system.

    On one thread: each more takes addresses for its stack, and OpenMP ends a process that cannot have as many as there
    are cores.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.submit(function, folder).result()


@contextmanager
def no_more_memory_than(num_bytes: int) -> Iterator[None]:
    """Beside what this process has already."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def decode_without_memory(folder: Path) -> None:
    spec = replace(read_model_spec(folder), max_size=4096, max_pixels=4096**2)
    engine = load_engine(folder, EngineOptions(device="cpu", dtype="float32"), spec=spec)
    large = start(engine, width=4096, height=4096)

    with no_more_memory_than(16 * MIB), pytest.raises((RuntimeError, MemoryError)) as caught:
        engine.decode(large)

    assert is_out_of_memory(caught.value)
    engine.release(large)
    small = start(engine)
    denoise(engine, small)
    assert engine.decode(small).shape == (64, 64, 3)
    engine.release(small)


def test_a_decoder_without_memory_is_known_as_such_and_the_next_picture_is_made(tiny_flux_folder: Path) -> None:
    in_a_process_of_its_own(decode_without_memory, tiny_flux_folder)


def load_without_memory(folder: Path) -> None:
    with no_more_memory_than(64 * MIB), pytest.raises(OutOfMemory) as caught:
        load_engine(folder, EngineOptions(device="cpu", dtype="float32"))

    message = caught.value.message
    assert re.match(r"there was no memory for \S+/text_encoder \(", message)
    assert "what needs less is --quantization " in message
    assert "again" not in message


def test_a_file_that_finds_no_memory_is_named_with_what_needs_less_and_is_not_called_broken(
    tiny_flux_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "flux"
    for path in tiny_flux_folder.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(tiny_flux_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    save_shapes(folder / "text_encoder" / "model.safetensors", true_shapes("text_encoder"), dtype="F32")

    in_a_process_of_its_own(load_without_memory, folder)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        RuntimeError("not enough memory: you tried to allocate 5 bytes"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_whoever_says_it_a_lack_of_memory_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyError("memory"), OSError(2, "No such file")])
def test_what_is_no_lack_of_memory_is_none(error: Exception) -> None:
    assert not is_out_of_memory(error)
