"""From what settings say of LoRAs, `NAME=SOURCE[:SCALE]`, to files; what is on the hub is downloaded.

An entry that makes no sense may be a secret, or a URL with one in it: errors say which entry it is, and repeat of it
only what is there, or has the form of what the hub has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from safelight.errors import ConfigurationError, ModelLoadError
from safelight.limits import MAX_LORA_SCALE
from safelight.model import hub
from safelight.model.other_formats import looks_like_path
from safelight.model.revision import ADAPTER_SETTINGS, lora_revision
from safelight.model.spec import LoraFile

_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]{0,63})=(?P<source>.+?)(?::(?P<scale>-?[0-9]*\.?[0-9]+))?")
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:/(?P<file>(?!.*\.\./).+))?")
_PLAIN_PATH = re.compile(r"[\w./ -]{1,256}")
_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_ENDING = ".safetensors"
_LONGEST_HEAD = 100_000_000
"""Bytes; what safetensors itself takes."""


def locate_loras(entries: Sequence[str], *, token: str | None = None) -> tuple[LoraFile, ...]:
    """The file of each entry, whose source is a file, a folder with one, a hub id, or a hub id and a file's path in it.

    Raises ConfigurationError for an entry that makes no sense, ModelLoadError or DownloadError for one without a file.
    """
    loras: dict[str, LoraFile] = {}
    for number, entry in enumerate(entries, start=1):
        lora = _locate(entry.strip(), f"LoRA {number} of {len(entries)}", token)
        if lora.name in loras:
            raise ConfigurationError(f"two LoRAs are called {lora.name!r}; give one of them another name")
        loras[lora.name] = lora
    return tuple(loras.values())


def _locate(entry: str, which: str, token: str | None) -> LoraFile:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigurationError(f"a LoRA is given as NAME=PATH_OR_HUB_ID[:SCALE], and {which} is not")
    scale = float(match["scale"] or 1)
    if abs(scale) > MAX_LORA_SCALE:
        raise ConfigurationError(f"the scale of {which} must be between {-MAX_LORA_SCALE:g} and {MAX_LORA_SCALE:g}")
    path, hub_match = _path_to(match["source"]), _HUB_ID.fullmatch(match["source"])
    hub_id = None
    if path is None:
        if hub_match is None or looks_like_path(hub_match["id"]):
            raise ModelLoadError(f"{which}: what it names is neither a file, nor a folder, nor a hub id")
        hub_id, file = hub_match["id"], hub_match["file"]
        path = hub.download(hub_id, token=token, files=_files_on_hub(file))
        path = path / file if file else path
        if not path.exists():
            named = f"file {file}" if file and _PLAIN_PATH.fullmatch(file) else "such file"
            raise ModelLoadError(f"{which}: {hub_id} has no {named} on the hub")
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
    try:
        files = sorted(each for each in path.iterdir() if each.is_file() and _is_safetensors(each))
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from None
    usual = [file for file in files if file.name in _USUAL_NAMES]
    if len(files) != 1 and len(usual) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ModelLoadError(f"{path} must hold one LoRA as safetensors; it has: {names}. Name the file itself")
    return usual[0] if usual else files[0]


def _files_on_hub(file: str | None) -> tuple[str, ...]:
    """With the settings that PEFT saves beside a file."""
    if file is None:
        return f"*{_ENDING}", f"*{_ENDING.upper()}", ADAPTER_SETTINGS
    return file, (PurePosixPath(file).parent / ADAPTER_SETTINGS).as_posix()


def _is_safetensors(file: Path) -> bool:
    """By its name, or by how it begins: the length of a JSON object, and the object."""
    if file.suffix.lower() == _ENDING:
        return True
    try:
        with file.open("rb") as content:
            start = content.read(9)
    except OSError:
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEAD


def _revision(file: Path) -> str:
    try:
        return lora_revision(file)
    except OSError as error:
        raise ModelLoadError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelLoadError(f"{file}: {error}") from None
