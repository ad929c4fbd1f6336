"""What the files of a model or a LoRA are called in one line of text: by a digest, or by the hub's cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safelight.errors import ModelLoadError

ADAPTER_SETTINGS = "adapter_config.json"
"""Where PEFT's own save_pretrained writes alpha and rank."""
_MOST_SETTINGS_BYTES = 1024 * 1024
DIGESTS = "safelight-digests.json"
"""Digests of large files, beside them, so that what names a picture's model is not read again at every start. They hold
for a file of the size and the time of change that it had then, as git and make believe them."""
_HUB_FOLDER = "models--"
"""How huggingface_hub's cache begins the name of a folder: models--ORG--NAME/snapshots/COMMIT."""


def file_revision(file: Path) -> str:
    """`sha256:` and 16 digits over one file. Raises OSError."""
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()[:16]}"


def lora_revision(file: Path) -> str:
    """`file_revision`, with the settings that PEFT saves beside the file, where they are. Raises OSError."""
    own, beside = file_revision(file), settings_beside(file)
    if beside is None:
        return own
    return f"sha256:{hashlib.sha256(f'{own}{beside}'.encode()).hexdigest()[:16]}"


def settings_beside(file: Path) -> str | None:
    """The adapter_config.json in the folder of a LoRA; None if there is none. Raises OSError or ValueError."""
    path = file.parent / ADAPTER_SETTINGS
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_SETTINGS_BYTES:
        raise ValueError(f"{path} is too large for the settings of an adapter")
    return path.read_text(encoding="utf-8")


def hub_id_of(folder: Path) -> str | None:
    """`org/name`, if the folder lies in the hub's cache."""
    cached = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not cached.startswith(_HUB_FOLDER):
        return None
    return cached.removeprefix(_HUB_FOLDER).replace("--", "/", 1)


def newest_snapshot(folder: Path) -> Path:
    """Of a model's folder in the hub's cache the snapshot that its main branch had last; any other folder itself.

    Raises ModelLoadError if there are several, and none of them is main's.
    """
    snapshots = folder / "snapshots"
    if not folder.name.startswith(_HUB_FOLDER) or not snapshots.is_dir():
        return folder
    reference = folder / "refs" / "main"
    names = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
    newest = reference.read_bytes().decode("ascii", "replace").strip() if reference.is_file() else None
    if newest in names:
        return snapshots / newest
    if len(names) == 1:
        return snapshots / names[0]
    raise ModelLoadError(
        f"{folder} is a cache of the hub, and its newest revision is not there; give the folder of one of "
        f"{', '.join(names) or 'none'}, such as {snapshots / (names or ['COMMIT'])[0]}"
    )


def sha256_of(path: Path) -> bytes:
    """From beside the file if it is there and holds, else of what is in it. Raises OSError."""
    return _recorded(path) or _read(path)


def record_digests(place: Path) -> None:
    """Of the weights in a folder. Raises OSError."""
    digests = {path.name: [*_state(path), _read(path).hex()] for path in sorted(place.glob("*.safetensors"))}
    (place / DIGESTS).write_text(json.dumps(digests, indent=2))


def _recorded(path: Path) -> bytes | None:
    try:
        *state, digest = json.loads((path.parent / DIGESTS).read_bytes())[path.name]
        return bytes.fromhex(digest) if state == _state(path) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
