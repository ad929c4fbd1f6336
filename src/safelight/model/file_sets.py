"""Files as people have them become the folder of a checkpoint: links to the files, and the configs that they lack.

Everything else reads folders; so a GGUF file with an autoencoder beside it is one, too. It is named by a digest of what
it is made of, and made once: while its files are there and have not changed, neither they nor the hub are asked again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safelight.errors import DownloadError, ModelLoadError, UnsupportedModel
from safelight.model.catalog import Model
from safelight.model.checkpoint import SIDECAR, check_checkpoint
from safelight.model.configs import INDEX, read_json, read_size
from safelight.model.families.flux1 import FLUX1, read_axes
from safelight.model.single_files import configs
from safelight.model.single_files.names import Config
from safelight.model.single_files.parts import TITLES, Part, check_complete, read_part, read_parts
from safelight.model.single_files.sizes import read_config
from safelight.model.spec import printable_name
from safelight.model.weight_files import Network, find_weights

NETWORKS = {network.name: network for network in FLUX1.networks}
TOKENIZERS = {
    "tokenizer": ("openai/clip-vit-large-patch14", ("tokenizer.json", "vocab.json", "merges.txt")),
    "tokenizer_2": ("google/t5-v1_1-xxl", ("spiece.model",)),
}
"""Where anybody may have them, and the files that hold their words."""
_FORM = 1
"""Of the folders that are made here; a higher one makes them anew."""


class Sources(Protocol):
    """What fetches from the hub; whoever calls shows how far it is."""

    def fetch(self, model: Model | None, components: Collection[str]) -> Path:
        """The folder of a checkpoint with its configs, its tokenizers and the weights of these components.

        None: that of FLUX.1, behind its gate.
        """

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        """The folder of a repository's tokenizer; from the cache, if it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFiles:
    """What a user has given as a model."""

    model: Path | None = None
    """A file with the transformer, and perhaps with more."""
    parts: Mapping[str, Path] = field(default_factory=dict)
    """Component -> its file; more than the model's own."""
    base: Model | None = None
    """A checkpoint in the diffusers layout, for all that the files lack."""


def assemble(given: GivenFiles, place: Path, sources: Sources) -> Path:
    """The folder in `place` that stands for the files.

    Raises UnsupportedModel or ModelLoadError before anything is downloaded, DownloadError if something cannot be.
    """
    parts = _find_parts(given)
    folder = place / f"{_name(given)}-{_digest(given, parts)}"
    if is_whole(folder):
        return folder
    base, lacking = given.base.folder if given.base is not None else None, NETWORKS.keys() - parts.keys()
    if base is None and (lacking or given.base is not None):
        if given.base is None:
            _settle(parts, None, are_all=False)  # what can be refused without a download
        with _or_from_files(given, lacking):
            _settle(parts, sources.fetch(given.base, ()))
            base = sources.fetch(given.base, lacking)
    _settle(parts, base)
    _write(folder, parts, base, sources, _name(given))
    return folder


@contextmanager
def _or_from_files(given: GivenFiles, lacking: Collection[str]) -> Iterator[None]:
    """Whoever does not get it from the hub may have it as files: the error says how to give them."""
    try:
        yield
    except DownloadError as error:
        if given.model is None or not lacking:
            raise
        options = ", ".join(f"--{name.replace('_', '-')}" for name in NETWORKS if name in lacking)
        raise DownloadError(f"{error.message}; or give what {given.model.name} lacks as files: {options}") from error


def outline(given: GivenFiles, base: Path | None, folder: Path) -> dict[str, Part]:
    """The parts that the files hold; all configs of what they would become are written to an empty `folder`.

    None of their weights is read, nor of the `base`, the folder of what they lack; None: FLUX.1, as it is published.
    Raises UnsupportedModel or ModelLoadError.
    """
    parts = _find_parts(given)
    _write_configs(folder, parts, base, _name(given))
    _check(folder, base)
    return parts


def _find_parts(given: GivenFiles) -> dict[str, Part]:
    parts = read_parts(given.model) if given.model is not None else {}
    parts |= {component: read_part(path, component) for component, path in given.parts.items()}
    if given.model is not None and "transformer" not in parts:
        held = " and ".join(TITLES[name] for name in parts)
        raise UnsupportedModel(
            f"{given.model} holds FLUX.1's {held}, and no transformer; give the transformer's file as the model, and "
            "this one beside it"
        )
    return parts


def _name(given: GivenFiles) -> str:
    if given.model is not None:
        return printable_name(given.model.stem.lower())[:_MOST_CHARACTERS]
    return given.base.name if given.base is not None else "flux.1"


_MOST_CHARACTERS = 48
"""Of a name: a folder's may have 255 bytes, and what follows it."""


def _digest(given: GivenFiles, parts: Mapping[str, Part]) -> str:
    """Over what the folder is made of: each file by its place, its size, and when it was written.

    Raises ModelLoadError for what may not be looked at.
    """
    made_of: dict[str, object] = {"form": _FORM}
    try:
        made_of |= {name: _identity(part.path) for name, part in parts.items()}
        if given.base is not None:
            base = given.base
            files = sorted(_files_that_count(base.folder)) if base.folder is not None else []
            made_of["base"] = [base.hub_id, base.revision, *map(_identity, files)]
    except OSError as error:
        raise ModelLoadError(f"{error.filename} cannot be read: {error.strerror}") from None
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]


def _files_that_count(base: Path) -> Iterator[Path]:
    """Of a folder that may be anything: a home, or the root of the disk."""
    for name in (INDEX, SIDECAR, "scheduler/*", *(f"{each}/*" for each in (*NETWORKS, *TOKENIZERS))):
        yield from (path for path in base.glob(name) if path.is_file())


def _identity(path: Path) -> list[object]:
    real = path.resolve()
    status = real.stat()
    return [str(real), status.st_size, status.st_mtime_ns]


def is_whole(folder: Path) -> bool:
    """Whether it is there, with all that its links lead to."""
    try:
        return (folder / INDEX).exists() and all(path.exists() for path in folder.glob("*/*"))
    except OSError:  # what they lead to may not be seen
        return False


def _settle(parts: Mapping[str, Part], base: Path | None, *, are_all: bool = True) -> dict[str, Config]:
    """The configs of the parts, which are complete and fit each other. Raises UnsupportedModel.

    Unless they `are_all`, with what the base has or is published, that is yet to be fetched.
    """
    found = {name: read_config(part, _published(name, base)) for name, part in parts.items()}
    for name, part in parts.items():
        check_complete(part, found[name])
        words, published = found[name].get("vocab_size"), _published(name, base).get("vocab_size")
        if are_all and words != published:
            raise UnsupportedModel(
                f"{part.path} knows {words} words, and FLUX.1's {TITLES[name]} knows {published}: it is of "
                "another model"
            )
    known = {name: found.get(name) or (_published(name, base) if are_all else {}) for name in NETWORKS}
    for key, component, its_key, factor in _WIDTHS:
        wanted, given = known["transformer"].get(key), known[component].get(its_key)
        if given is not None and wanted not in (None, given * factor):
            raise _why_unfit(parts, component, f"{its_key} {given}", wanted // factor)
    return found


_WIDTHS = (
    ("in_channels", "vae", "latent_channels", 4),
    ("pooled_projection_dim", "text_encoder", "hidden_size", 1),
    ("joint_attention_dim", "text_encoder_2", "d_model", 1),
)
"""What the transformer's config says, and which component's config says the same, so many times."""


def _why_unfit(parts: Mapping[str, Part], component: str, width: str, wanted: int) -> UnsupportedModel:
    own = str(parts[component].path) if component in parts else f"the {TITLES[component]}"
    of = f" of {parts['transformer'].path}" if "transformer" in parts else ""
    return UnsupportedModel(
        f"{own} has {width}, and the transformer{of} reads {wanted}: they do not belong together; use the "
        f"{TITLES[component]} of FLUX.1"
    )


def _published(component: str, base: Path | None) -> Config:
    """The config of the component in the base, if it is of the same class; else FLUX.1's own. Raises ModelLoadError."""
    ours, path = configs.COMPONENTS[component], _in(base, component, "config.json")
    theirs = ours if path is None else read_json(path)
    if path is None or theirs.get("_class_name") != ours.get("_class_name"):
        return ours
    sizes = {key: read_size(str(path), theirs, key, size) for key, size in ours.items() if type(size) is int}
    return {
        **theirs,
        **sizes,
        **({"axes_dims_rope": read_axes(str(path), theirs)} if component == "transformer" else {}),
    }


def _in(base: Path | None, *names: str) -> Path | None:
    """What the base has of that name, which may be a part of a checkpoint only."""
    path = base.joinpath(*names) if base is not None else None
    return path if path is not None and path.exists() else None


def _write(folder: Path, parts: Mapping[str, Part], base: Path | None, sources: Sources, name: str) -> None:
    """At once: a folder of that name is whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ModelLoadError(f"{folder.parent} cannot be written to: {error.strerror}") from None
    try:
        _fill(draft, parts, base, sources, name)
        _check(draft, base)
        if not is_whole(folder):  # another process may have made it in the meantime
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
    except OSError as error:
        if not is_whole(folder):
            raise ModelLoadError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(draft: Path, base: Path | None) -> None:
    """What is wrong now came from the base: the files have been checked."""
    try:
        check_checkpoint(draft)
    except ModelLoadError as error:
        raise type(error)(error.message.replace(str(draft), str(base or draft))) from None


def _fill(draft: Path, parts: Mapping[str, Part], base: Path | None, sources: Sources, name: str) -> None:
    _write_configs(draft, parts, base, name)
    for component, network in NETWORKS.items():
        if component in parts:
            link = draft / component / _link_name(parts[component], network)
            link.symlink_to(parts[component].path.resolve())
        else:
            assert base is not None, "what no file has comes from there"
            _link(draft / component, _files_of(base, network))
    for tokenizer, (hub_id, words) in TOKENIZERS.items():
        origin = _in(base, tokenizer) or sources.fetch_tokenizer(hub_id, words)
        (draft / tokenizer).mkdir()
        _link(draft / tokenizer, [path for path in sorted(origin.iterdir()) if path.is_file()])


def _write_configs(draft: Path, parts: Mapping[str, Part], base: Path | None, name: str) -> None:
    found, index = _settle(parts, base), dict(configs.INDEX)
    its_index = read_json(path) if (path := _in(base, INDEX)) else {}
    for component in NETWORKS:
        if component in parts or base is None:
            _write_json(draft / component / "config.json", found.get(component) or _published(component, None))
        else:
            (draft / component).mkdir()
            _link(draft / component, [base / component / "config.json"])
            index[component] = its_index.get(component, index[component])
    _write_json(draft / "scheduler" / "scheduler_config.json", _schedule(found.get("transformer"), base))
    sidecar = read_json(path) if (path := _in(base, SIDECAR)) else {}
    _write_json(draft / SIDECAR, sidecar | {"name": name})
    _write_json(draft / INDEX, index)


def _schedule(transformer: Config | None, base: Path | None) -> Config:
    """The base's own where its transformer is of the same kind, else what is published."""
    schedule, its_own = _in(base, "scheduler", "scheduler_config.json"), _in(base, "transformer", "config.json")
    kind = None if its_own is None else bool(read_json(its_own).get("guidance_embeds", False))
    if schedule is not None and (transformer is None or transformer["guidance_embeds"] == kind):
        return read_json(schedule)
    return configs.scheduler_config(guidance_embeds=bool(transformer and transformer["guidance_embeds"]))


def _link_name(part: Part, network: Network) -> str:
    """The file's own, with the ending of its format; none that a set would have."""
    ending = {"gguf": ".gguf", "safetensors": ".safetensors"}[part.head.format]
    stem = printable_name(part.path.stem)
    return f"{'single-' if stem.startswith(network.stem) else ''}{stem}{ending}"


def _files_of(base: Path, network: Network) -> Iterator[Path]:
    weights, paths = find_weights(base, network)
    if weights.is_index:
        yield base / network.name / weights.name
    yield from paths


def _link(place: Path, files: Iterable[Path]) -> None:
    for file in files:
        (place / file.name).symlink_to(file.absolute())


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
