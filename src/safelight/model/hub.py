"""Downloads from the hub: only the files that are read, and one clear message for each refusal."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import DryRunFileInfo, constants, get_cached_repo_tree, get_token, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm
from rich.filesize import decimal

from safelight.errors import DownloadError, UnsupportedModel
from safelight.model.checkpoint import check_checkpoint, config_files
from safelight.model.configs import INDEX
from safelight.model.other_formats import explain_folder
from safelight.model.weight_files import Network, WeightFiles, choose_weights, list_shards

logging.getLogger("huggingface_hub._snapshot_download").setLevel(logging.ERROR)
"""What it finds nothing for it repeats, and that may be a URL with a secret. What is missing we say ourselves."""


class _SilentBar(tqdm):
    """A progress bar of huggingface_hub that draws nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]  # tqdm has no types


TOKENIZER_FILES = ("tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model")
Report = Callable[[int, int], None]
"""Told, from any thread, how many bytes are here and how many there are in all."""


def download_model(
    hub_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    components: Collection[str] | None = None,
    report: Report | None = None,
) -> Path:
    """The local folder of a checkpoint: first its configs, then one set of weights of those there are, nothing else.

    Given `components`, of their weights only.

    What is not served is refused before its weights are fetched. `token` and `report` are those of `download`.
    Raises DownloadError, UnsupportedModel or ModelLoadError with the remedy.
    """
    token, configs = _checked(token), tuple(config_files())
    with _explained(hub_id, revision):
        folder = _fetch(hub_id, revision, token, configs)
    names = _list_names(hub_id, folder)
    if INDEX not in names:
        explanation = explain_folder([name for name in names if "/" not in name])
        raise UnsupportedModel(f"{hub_id} {explanation or f'has no {INDEX}: it is not in the diffusers layout'}")
    layout = check_checkpoint(folder)
    wanted = [network for network in layout.networks if components is None or network.name in components]
    weights = {network.name: _choose(hub_id, network, names) for network in wanted}
    indexes = [f"{component}/{chosen.name}" for component, chosen in weights.items() if chosen.is_index]
    if indexes:
        with _explained(hub_id, revision):
            _fetch(hub_id, folder.name, token, indexes)
    shards = [f"{Path(index).parent}/{shard}" for index in indexes for shard in list_shards(folder / index)]
    whole = [f"{component}/{chosen.name}" for component, chosen in weights.items() if not chosen.is_index]
    files = (*configs, *indexes, *shards, *whole)
    return download(hub_id, files=files, revision=folder.name, token=token, report=report)


def download(
    hub_id: str,
    *,
    files: Sequence[str],
    revision: str | None = None,
    token: str | None = None,
    report: Report | None = None,
) -> Path:
    """The local folder with a repository's `files`, in huggingface_hub's own cache; those that are there are kept.

    `token` defaults to what huggingface_hub finds (HF_TOKEN or `hf auth login`). Without `report` huggingface_hub draws
    its progress bars. Raises DownloadError with the remedy.
    """
    token = _checked(token)
    with _explained(hub_id, revision):
        found = _list_files(hub_id, revision, token, files)
        _check_disk_space(hub_id, found)
        return _fetch(hub_id, revision, token, files, None if report is None else _bar_reporting_to(report, found))


def download_once(hub_id: str, *, files: Sequence[str], one_of: Collection[str]) -> Path:
    """The local folder with a repository's `files`; the hub is not asked if one of `one_of` is there already.

    Raises DownloadError, also where the repository has none of them.
    """
    folder = find_cached_files(hub_id, files=files, one_of=one_of) or download(hub_id, files=files)
    if not any((folder / name).exists() for name in one_of):
        raise DownloadError(f"{hub_id} has none of {', '.join(one_of)}; check the name")
    return folder


def find_cached_files(hub_id: str, *, files: Sequence[str], one_of: Collection[str]) -> Path | None:
    """The local folder with a repository's `files`, if one of `one_of` is there; the hub is not asked."""
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, HFValidationError, ValueError):
        return None
    return folder if any((folder / name).exists() for name in one_of) else None


def _fetch(
    hub_id: str, revision: str | None, token: str | None, files: Sequence[str], bar: type[tqdm] | None = _SilentBar
) -> Path:
    return Path(snapshot_download(hub_id, revision=revision, token=token, allow_patterns=list(files), tqdm_class=bar))


def _list_names(hub_id: str, folder: Path) -> list[str]:
    """Of all files that the hub has at the revision in `folder`; where that is not known any more, of those in it."""
    try:
        return [file.path for file in get_cached_repo_tree(hub_id, revision=folder.name)]
    except CachedRepoTreeNotFoundError:
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _choose(hub_id: str, network: Network, names: Sequence[str]) -> WeightFiles:
    prefix = f"{network.name}/"
    return choose_weights(
        f"{hub_id}/{network.name}", network, [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    )


@contextmanager
def _explained(hub_id: str, revision: str | None) -> Iterator[None]:
    """Whatever huggingface_hub raises becomes a DownloadError with the remedy."""
    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError) as error:
        raise DownloadError(_explain(hub_id, revision, _refusal_behind(error))) from error
    except httpx2.HTTPError as error:
        raise DownloadError(
            f"the connection to {constants.ENDPOINT} broke off ({error}); try again: files that have arrived are kept"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: what hf_xet raises
        raise DownloadError(_explain_broken_write(hub_id, error)) from error


def find_cached(hub_id: str, *, revision: str) -> Path | None:
    """The folder of a revision that was downloaded before; None if it was not."""
    try:
        return Path(
            snapshot_download(hub_id, revision=revision, local_files_only=True, allow_patterns=list(config_files()))
        )
    except (LocalEntryNotFoundError, HFValidationError, ValueError):
        return None


def _checked(token: str | None) -> str | None:
    """The token without the space around it. One that fits into no header is refused before a library repeats it."""
    token = (token or "").strip() or None
    if not _TOKEN.fullmatch(token or get_token() or "-"):
        raise DownloadError(
            "the hub's token has a space, a line break or another character that no token has; give the token alone, "
            f"as {constants.ENDPOINT}/settings/tokens shows it"
        )
    return token


_TOKEN = re.compile(r"[!-~]+")


def _list_files(hub_id: str, revision: str | None, token: str | None, files: Sequence[str]) -> list[DryRunFileInfo]:
    """What the hub has and the cache lacks; nothing if the hub cannot be asked, since the cache may have it all."""
    try:
        return snapshot_download(
            hub_id,
            revision=revision,
            token=token,
            allow_patterns=list(files),
            tqdm_class=_SilentBar,
            dry_run=True,
        )
    except DryRunError:
        return []


def _check_disk_space(hub_id: str, files: Sequence[DryRunFileInfo]) -> None:
    missing = sum(file.file_size or 0 for file in files if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if missing > free:
        raise DownloadError(
            f"the disk of {cache} is too small: {hub_id} needs {decimal(missing)} more, and {decimal(free)} are free; "
            f"{_ROOM_ON_DISK}"
        )


_ROOM_ON_DISK = (
    "make room (`hf cache ls` shows what the cache holds, `hf cache prune` removes unfinished downloads), or set "
    "HF_HUB_CACHE to a folder on a larger disk"
)


def _bar_reporting_to(report: Report, files: Sequence[DryRunFileInfo]) -> type[_SilentBar]:
    """The bars of one download: of the several that huggingface_hub makes, the one of the bytes on disk reports."""
    total = sum(file.file_size or 0 for file in files)
    num_here = sum(file.file_size or 0 for file in files if not file.will_download)
    lock = threading.Lock()
    if num_here < total:
        report(num_here, total)

    class ReportingBar(_SilentBar):
        def __init__(self, *args: Any, name: str | None = None, **options: Any) -> None:
            super().__init__(*args, name=name, **options)
            self._is_of_bytes = name == "huggingface_hub.snapshot_download"

        def update(self, n: float | None = 1) -> None:
            nonlocal num_here
            if self._is_of_bytes:
                with lock:
                    num_here += int(n or 0)
                    report(num_here, total)

    return ReportingBar


def _refusal_behind(error: BaseException) -> BaseException:
    """The hub's own answer, where huggingface_hub reports only that the cache is incomplete."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    return cause or error


def _explain(hub_id: str, revision: str | None, error: BaseException) -> str:
    text = str(error)
    if isinstance(error, GatedRepoError):
        return _explain_gate(hub_id, text, is_anonymous=error.response.status_code == 401)
    if isinstance(error, RevisionNotFoundError):
        return f"{hub_id} has no revision {revision!r}; see {_page(hub_id)}/commits"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub_id} is not on {constants.ENDPOINT}, or it is private and the token may not see it; check the name"
    if isinstance(error, HfHubHTTPError):
        return _explain_status(hub_id, error.response.status_code, text)
    if isinstance(error, HFValidationError):
        return f"{hub_id!r} is not a hub id; it has the form org/name"
    return (
        f"{hub_id} is not complete in {constants.HF_HUB_CACHE} and {constants.ENDPOINT} cannot be reached: connect and "
        "try again, or give a local folder"
    )


def _explain_gate(hub_id: str, text: str, *, is_anonymous: bool) -> str:
    if is_anonymous:
        return (
            f"{hub_id} is gated and no token was given: request access at {_page(hub_id)}, create a token at "
            f"{constants.ENDPOINT}/settings/tokens, and set HF_TOKEN (for a deployment in its environment_variables)"
        )
    if "awaiting" in text:
        return f"your request to access {hub_id} is awaiting a review by its authors; try again when they have answered"
    if "rejected" in text:
        return f"your request to access {hub_id} was rejected by its authors; this token's account cannot download it"
    return f"{hub_id} is gated and this token's account has never requested access: do so at {_page(hub_id)}"


def _explain_status(hub_id: str, status: int, text: str) -> str:
    if status == 401:
        return f"the hub does not accept the token: create a new one at {constants.ENDPOINT}/settings/tokens"
    if status == 403 and "fine-grained" in text:
        return (
            "the token is fine-grained and lacks 'Read access to contents of all public gated repos you can access'; "
            f"enable it at {constants.ENDPOINT}/settings/tokens"
        )
    return f"the hub answered {status} for {hub_id}; try again later, or give a local folder"


def _explain_broken_write(hub_id: str, error: Exception) -> str:
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or "os error 28" in str(error):  # hf_xet's words for ENOSPC
        return f"the disk of {constants.HF_HUB_CACHE} is full before all of {hub_id} has arrived; {_ROOM_ON_DISK}"
    return f"{hub_id} could not be written to {constants.HF_HUB_CACHE}: {error}"


def _page(hub_id: str) -> str:
    return f"{constants.ENDPOINT}/{hub_id}"
