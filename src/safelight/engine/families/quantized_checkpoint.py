"""A checkpoint's folder written again with its large networks quantized, so that the next start maps them.

What is quantized is what quantizing while loading would make of it, bit for bit; everything else is linked or copied.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from safelight.engine.families.loading import Source, check_source, find_source, make_network, silence_loading
from safelight.engine.weights.component_tensors import component_tensors
from safelight.engine.weights.quantized_files import QuantizedFiles, plan_files
from safelight.errors import InvalidRequest, ModelLoadError, UnsupportedModel
from safelight.model.checkpoint import SIDECAR, check_checkpoint
from safelight.model.configs import INDEX, read_json
from safelight.model.families.layout import Layout
from safelight.model.heads.library_formats import library_in_config
from safelight.model.heads.own_format import METHOD
from safelight.model.memory.plan import in_gigabytes
from safelight.model.revision import record_digests
from safelight.model.spec import ModelSpec
from safelight.settings import Quantization

_TOLD_BESIDE = ("LICENSE*", "NOTICE*", "*.md", "*.txt")
"""In the folder itself: its licence and its card."""
Report = Callable[[int, int], None]
"""How many bytes are written, and how many there will be."""


def quantize_checkpoint(
    folder: Path,
    out: Path,
    *,
    spec: ModelSpec,
    kinds: Mapping[str, Quantization],
    classes: Sequence[Any],
    report: Report,
) -> list[str]:
    """Write `folder`, with the components of `kinds` as they say, to `out`, which is whole or not there.

    `classes` are those of its networks. Returns which of `kinds` were quantized already, and so stay as they are.
    Raises UnsupportedModel or ModelLoadError for what cannot be read, InvalidRequest if `out` cannot be written.
    """
    silence_loading()
    layout = check_checkpoint(folder)
    sources = {network.name: find_source(folder, network, classes) for network in layout.networks}
    for source in sources.values():
        check_source(source)
    plans = {name: _plan(sources[name], kind) for name, kind in kinds.items() if name in sources and kind != "none"}
    quantized = {name: plan for name, plan in plans.items() if plan is not None}
    if not quantized:
        raise UnsupportedModel(f"{folder} is quantized already ({', '.join(plans)}), and stays as it is; serve it so")
    others = list(_others(folder, layout, [source for name, source in sources.items() if name not in quantized]))
    num_bytes = sum(plan.num_bytes for plan in quantized.values())
    with _draft(out, num_bytes + _copied_bytes(others, out)) as draft:
        for file in others:
            _link_or_copy(file, draft / file.relative_to(folder))
        _write_json(draft / SIDECAR, _told(spec))
        _write_networks(draft, sources, quantized, report)
    return sorted(plans.keys() - quantized.keys())


def _plan(source: Source, kind: Quantization) -> QuantizedFiles | None:
    config = read_json(source.place / "config.json")
    if library_in_config(config) is not None:
        return None
    tensors = component_tensors(source.place.parent, source.network, config)
    return plan_files(partial(make_network, source), tensors, kind)


def _others(folder: Path, layout: Layout, kept: Sequence[Source]) -> Iterator[Path]:
    """The files that stay as they are."""
    yield folder / INDEX
    for pattern in _TOLD_BESIDE:
        yield from (path for path in folder.glob(pattern) if path.is_file())
    for name in layout.without_weights:
        yield from (path for path in sorted((folder / name).rglob("*")) if path.is_file())
    for source in kept:
        yield source.place / "config.json"
        yield from source.files


def _write_networks(
    draft: Path, sources: Mapping[str, Source], quantized: Mapping[str, QuantizedFiles], report: Report
) -> None:
    total, done = sum(plan.num_bytes for plan in quantized.values()), 0
    report(0, total)
    for name, plan in quantized.items():
        place = draft / name
        config = read_json(sources[name].place / "config.json")
        config["quantization_config"] = {"quant_method": METHOD, "type": plan.quantization}
        _write_json(place / "config.json", config)
        for written in plan.write(place, sources[name].network.stem):
            done += written
            report(done, total)
        record_digests(place)


def _told(spec: ModelSpec) -> dict[str, Any]:
    """What the catalogue or the sidecar says of the model; its name is that of the new folder."""
    values: dict[str, Any] = msgspec.to_builtins(spec)
    return {name: value for name, value in values.items() if name not in ("name", "loras")}


@contextmanager
def _draft(out: Path, num_bytes: int) -> Iterator[Path]:
    """A folder beside `out`, which becomes `out` at the end. Raises InvalidRequest."""
    if _is_taken(out):
        raise InvalidRequest(f"{out} is there already; give a new folder", field="out")
    free = shutil.disk_usage(_nearest(out)).free
    if free < num_bytes:
        raise InvalidRequest(
            f"the disk of {out} is too small: {in_gigabytes(num_bytes)} are written, and {in_gigabytes(free)} are "
            "free; make room, or give a folder on another disk",
            field="out",
        )
    draft = out.with_name(f".{out.name}.unfinished")
    try:
        draft.mkdir(parents=True)
    except FileExistsError:
        raise InvalidRequest(
            f"{draft} is there: another `model quantize` writes it, or one was cut off; remove it then", field="out"
        ) from None
    except OSError as error:
        raise InvalidRequest(f"{draft} cannot be made: {error.strerror}", field="out") from None
    try:
        yield draft
        draft.replace(out)
    except OSError as error:
        raise ModelLoadError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_taken(out: Path) -> bool:
    try:
        return out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise _unseen(out, error) from None


def _unseen(out: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"{out} cannot be looked at: {error.strerror}; give another folder", field="out")


def _copied_bytes(files: Sequence[Path], out: Path) -> int:
    """Of those that cannot be linked, since they lie on another disk."""
    statuses = [file.stat() for file in files]
    disk = _nearest(out).stat().st_dev
    return sum(status.st_size for status in statuses if status.st_dev != disk)


def _nearest(out: Path) -> Path:
    """The folder above it that is there."""
    try:
        return next(each for each in out.absolute().parents if each.exists())
    except OSError as error:
        raise _unseen(out, error) from None


def _link_or_copy(file: Path, target: Path) -> None:
    """Weights are linked where that can be done: they are large, and nobody writes to them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".safetensors", ".gguf"):
        try:
            os.link(file.resolve(), target)
            return
        except OSError:  # another disk, or one that knows no links
            pass
    shutil.copyfile(file, target)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
