"""The model that a command is given: a name, a folder, a hub id, or files; what is not here is fetched, and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from safelight.cli.download import download
from safelight.errors import ConfigurationError
from safelight.model import hub
from safelight.model.catalog import FLUX_SCHNELL, Model, find_model, find_path
from safelight.model.checkpoint import read_model_spec
from safelight.model.file_sets import GivenFiles, assemble, is_whole
from safelight.model.locate import locate, locate_folder
from safelight.model.memory.stored_parts import describe_parts
from safelight.model.other_formats import looks_like_weights
from safelight.model.spec import ModelSpec
from safelight.settings import Settings

FOLDER = "file-sets"
"""In the data directory: what `model create` registers stays there."""
FetchFile = Callable[[str, str], Path]
"""(hub id, path of a file in it) -> the local file."""


def fetch_file(hub_id: str, file: str) -> Path:
    """Raises DownloadError."""
    return hub.download_once(hub_id, files=[file], one_of=[file]) / file


def locate_given(settings: Settings, components: Collection[str] | None = None) -> tuple[Path, ModelSpec]:
    """The folder and spec of the model that the settings name; of one of the hub with the weights of `components` only.

    Raises DownloadError or ModelLoadError; for files that are broken at once, before a replica imports torch for them.
    """
    given = files_in(settings)
    if given is not None:
        folder = assemble(given, settings.data_dir / FOLDER, HubSources())
        return folder, read_model_spec(folder)
    folder, spec = locate(find_model(settings.model), partial(download, components=components))
    if components is None:  # else some of its weights are elsewhere
        describe_parts(folder)
    return folder, spec


def files_in(settings: Settings, fetch: FetchFile = fetch_file) -> GivenFiles | None:
    """What the settings name beside a model, or as one; as `given_files` has it."""
    parts = {"vae": settings.vae, "text_encoder": settings.text_encoder, "text_encoder_2": settings.text_encoder_2}
    given = {name: path for name, path in parts.items() if path is not None}
    return given_files(settings.model, settings.components, given, fetch)


def find_sets(settings: Settings, name: str) -> list[Path]:
    """The folders that were made of files of that name, and are whole."""
    place = settings.data_dir / FOLDER
    folders = sorted(place.iterdir()) if place.is_dir() else []
    return [folder for folder in folders if folder.name.rpartition("-")[0] == name and is_whole(folder)]


def given_files(
    model: str, components: str | None, parts: Mapping[str, Path], fetch: FetchFile = fetch_file
) -> GivenFiles | None:
    """None if the model is no file, and none was given beside it. Files on the hub are fetched.

    Raises ConfigurationError, ModelNotFound, or what `fetch` raises.
    """
    path = _find_file(model, fetch)
    found = {component: _find_file(str(part), fetch) or part for component, part in parts.items()}
    if path is not None:
        return GivenFiles(model=path, parts=found, base=find_model(components) if components else None)
    if components is not None:
        raise ConfigurationError(f"--components goes with a model that is a file; {model} has its own")
    return GivenFiles(parts=found, base=find_model(model)) if found else None


def _find_file(reference: str, fetch: FetchFile) -> Path | None:
    """A file here, or one on the hub, `org/name/PATH`; None if the reference is neither."""
    path = find_path(reference)
    if path is not None:
        is_file = path.is_file() and looks_like_weights(path)
        return Path(reference).expanduser().absolute() if is_file else None
    match = _HUB_FILE.fullmatch(reference)
    if match is None:
        return None
    return fetch(match["id"], match["file"])


_HUB_FILE = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)/(?P<file>(?!.*\.\./).+\.(?:gguf|safetensors|sft))", re.IGNORECASE
)


class HubSources:
    """`file_sets.Sources` that show how far they are."""

    def fetch(self, model: Model | None, components: Collection[str]) -> Path:
        model = model or find_model(FLUX_SCHNELL.name)
        return locate_folder(model, lambda hub_id, revision: download(hub_id, revision, components))

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        return hub.download_once(hub_id, files=hub.TOKENIZER_FILES, one_of=words)
