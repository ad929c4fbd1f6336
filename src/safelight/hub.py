"""Downloads of model folders from the hub: only the files the engine needs, and one clear message for each refusal."""

from __future__ import annotations

from pathlib import Path

import httpx2
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from safelight.errors import DownloadError

NEEDED_FILES = (
    "model_index.json",
    "safelight.json",
    "scheduler/*",
    "tokenizer/*",
    "tokenizer_2/*",
    "*/config.json",
    "*/*.safetensors",
    "*/*.safetensors.index.json",
)


def download(hub_id: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The local folder of a hub model, downloaded or resumed into huggingface_hub's own cache.

    `token` defaults to what huggingface_hub finds (HF_TOKEN or `hf auth login`). Raises DownloadError with the remedy.
    """
    try:
        return Path(snapshot_download(hub_id, revision=revision, token=token, allow_patterns=list(NEEDED_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError) as error:
        raise DownloadError(_explain(hub_id, revision, _refusal_behind(error))) from error
    except httpx2.HTTPError as error:
        raise DownloadError(
            f"the connection to {constants.ENDPOINT} broke off ({error}); run the same command again: it goes on where "
            "it stopped"
        ) from error
    except OSError as error:
        raise DownloadError(f"{hub_id} could not be written to {constants.HF_HUB_CACHE}: {error}") from error


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
            f"{constants.ENDPOINT}/settings/tokens, and set HF_TOKEN"
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


def _page(hub_id: str) -> str:
    return f"{constants.ENDPOINT}/{hub_id}"
