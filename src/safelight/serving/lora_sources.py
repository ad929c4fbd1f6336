"""From what settings say of LoRAs, `NAME=SOURCE[:SCALE]`, to files; what is on the hub is downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from safelight import hub
from safelight.errors import ConfigurationError, ModelLoadError
from safelight.limits import MAX_LORA_SCALE
from safelight.model_revision import file_revision
from safelight.model_spec import LoraFile
from safelight.other_formats import looks_like_path

_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]{0,63})=(?P<source>.+?)(?::(?P<scale>-?[0-9]*\.?[0-9]+))?")
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:/(?P<file>.+\.safetensors))?")
_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


def locate_loras(entries: Sequence[str], *, token: str | None = None) -> tuple[LoraFile, ...]:
    """The file of each entry, whose source is a file, a folder with one, a hub id, or a hub id and a file's path in it.

    Raises ConfigurationError for an entry that makes no sense, ModelLoadError or DownloadError for one without a file.
    """
    loras: dict[str, LoraFile] = {}
    for entry in entries:
        lora = _locate(entry.strip(), token)
        if lora.name in loras:
            raise ConfigurationError(f"two LoRAs are called {lora.name!r}; give one of them another name")
        loras[lora.name] = lora
    return tuple(loras.values())


def _locate(entry: str, token: str | None) -> LoraFile:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigurationError(f"a LoRA is given as NAME=PATH_OR_HUB_ID[:SCALE], not {entry!r}")
    scale = float(match["scale"] or 1)
    if abs(scale) > MAX_LORA_SCALE:
        raise ConfigurationError(
            f"the scale of LoRA {match['name']!r} must be between {-MAX_LORA_SCALE:g} and {MAX_LORA_SCALE:g}"
        )
    path, hub_match = _path_to(match["source"]), _HUB_ID.fullmatch(match["source"])
    hub_id = None
    if path is None:
        if hub_match is None or looks_like_path(hub_match["id"]):
            raise ModelLoadError(
                f"LoRA {match['name']!r}: {match['source'][:256]} is neither a file, nor a folder, nor a hub id"
            )
        hub_id, file = hub_match["id"], hub_match["file"]
        path = hub.download(hub_id, token=token, files=(file or "*.safetensors",))
        path = path / file if file else path
    file = _only_file(path)
    return LoraFile(name=match["name"], file=str(file.absolute()), scale=scale, hub_id=hub_id, revision=_revision(file))


def _path_to(source: str) -> Path | None:
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # no path at all: too long, a home of nobody, a zero in it
        return None


def _only_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    usual = [file for file in files if file.name in _USUAL_NAMES]
    if len(files) != 1 and len(usual) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ModelLoadError(f"{path} must hold one LoRA as .safetensors; it has: {names}. Name the file itself")
    return usual[0] if usual else files[0]


def _revision(file: Path) -> str:
    try:
        return file_revision(file)
    except OSError as error:
        raise ModelLoadError(f"{file} cannot be read: {error.strerror}") from None
