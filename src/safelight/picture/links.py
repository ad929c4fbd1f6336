"""Pictures behind links: kept in a folder for an hour, and read by whoever has the link.

The folder may be anywhere that fsspec reaches (`s3://bucket/prefix` with `safelight[s3]` installed). A name holds the
second at which its link ends, so that neither checking nor cleaning up needs a database; a signature over it keeps
anyone from naming another second, and random bits keep names from being guessed.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from safelight.disk import Disk
from safelight.errors import ConfigurationError, ImageNotKept, NotReady, ResourceNotFound
from safelight.picture.generation import ImageFormat
from safelight.settings import Settings

LIFETIME_S = 3600
"""Of a link, as OpenAI's clients expect it."""
RETRY_AFTER_S = 5
KEY_FILE = "image-links.key"
REMEDY = "ask for response_format 'b64_json'"
_NAME = re.compile(r"([0-9]{10})-[A-Za-z0-9_-]{32}\.(png|jpeg|webp)")


class ImageStore:
    """Blocking: call it in a thread. Nothing is created before the first picture is kept."""

    def __init__(
        self, url: str, key_path: Path, *, disk: Disk | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._files, self._folder = fsspec.core.url_to_fs(url)
        self._key_path = key_path
        self._disk = disk or Disk()
        self._clock = clock

    def keep(self, content: bytes, image_format: ImageFormat) -> str:
        """The name of the picture's link, with its signature. Raises StorageUnavailable or ImageNotKept."""
        name = f"{int(self._clock()) + LIFETIME_S}-{secrets.token_urlsafe(24)}.{image_format}"
        try:
            with self._disk.writing("the store of pictures", remedy=f", or {REMEDY}"), _failures_as_os_errors():
                signature = self._sign(name)
                self._make_folder()
                self._write(name, content)
            return f"{name}?signature={signature}"
        except OSError as error:
            raise ImageNotKept(f"the picture cannot be kept behind a link ({_reason(error)}); {REMEDY}") from error

    def read(self, name: str, signature: str) -> tuple[bytes, ImageFormat]:
        """The picture. Raises ResourceNotFound, saying no more about a wrong link than about one that has ended.

        Raises NotReady if the store does not answer.
        """
        match = _NAME.fullmatch(name)
        if match is None or self._has_ended(match) or not self._key_path.exists():  # without a key nothing is signed
            raise _not_there()
        try:
            with _failures_as_os_errors():
                content = self._files.cat_file(f"{self._folder}/{name}") if self._is_signed(name, signature) else None
        except (FileNotFoundError, PermissionError):  # S3's word for what is not there, unless one may list
            raise _not_there() from None
        except OSError as error:
            raise NotReady(
                f"the store of the pictures does not answer ({_reason(error)}); try the link again",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        if content is None:
            raise _not_there()
        return content, cast(ImageFormat, match[2])

    def clean_up(self) -> int:
        """Remove the pictures whose links have ended, and what was left half-written. Returns their number.

        Raises OSError.
        """
        with _failures_as_os_errors():
            if not self._files.exists(self._folder):
                return 0
            paths = self._files.ls(self._folder, detail=False, refresh=True)
            ended = [path for path in paths if (match := _NAME.search(path)) and self._has_ended(match)]
            for path in ended:
                self._files.rm_file(path)
            return len(ended)

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all."""
        partial = f"{self._folder}/.{name}.partial"
        try:
            self._files.pipe_file(partial, content)
            self._files.mv(partial, f"{self._folder}/{name}")
        except OSError:
            with suppress(OSError):
                self._files.rm_file(partial)  # it would keep its room for as long as the link would have lasted
            raise

    def _make_folder(self) -> None:
        """On a disk for its owner alone, if it is new: who may not list the pictures has to have their links."""
        if isinstance(self._files, LocalFileSystem):
            Path(self._folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        else:
            self._files.makedirs(self._folder, exist_ok=True)

    def _has_ended(self, match: re.Match[str]) -> bool:
        return int(match[1]) <= self._clock()

    def _is_signed(self, name: str, signature: str) -> bool:
        return hmac.compare_digest(self._sign(name).encode(), signature.encode("utf-8", "surrogateescape"))

    def _sign(self, name: str) -> str:
        return hmac.new(self._read_key(), name.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    def _read_key(self) -> bytes:
        make_key(self._key_path)
        return self._key_path.read_bytes()


def open_image_store(settings: Settings, disk: Disk | None = None) -> ImageStore:
    """The store that the settings name. Raises ConfigurationError if there is no reaching it."""
    url = settings.image_store_url or str(settings.data_dir / "images")
    try:
        return ImageStore(url, settings.data_dir / KEY_FILE, disk=disk)
    except (ImportError, ValueError) as error:
        scheme, is_url, rest = url.partition("://")
        has_secret = bool(is_url) and ("@" in rest or "?" in rest)  # its libraries' words may repeat it
        shown, why = (f"{scheme}://…", type(error).__name__) if has_secret else (url, error)
        raise ConfigurationError(f"image_store_url {shown} cannot be used: {why}") from None


@contextmanager
def _failures_as_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # any library may be the store: botocore's "no connection" is no OSError
        raise OSError(errno.EIO, type(error).__name__) from error


def _not_there() -> ResourceNotFound:
    """Another one each time: an error that is raised again keeps the frames of every time before."""
    return ResourceNotFound("no such picture; links to pictures end after 60 minutes")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def make_key(path: Path) -> None:
    """If it is not there. Whoever is first makes it, whole or not at all: replicas of a server share the directory."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink(missing_ok=True)
