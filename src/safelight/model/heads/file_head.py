"""The head of a file of weights, by what the file begins with; its ending is not believed."""

from __future__ import annotations

from pathlib import Path

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.heads.gguf_head import MARK, read_gguf_head
from safelight.model.heads.own_format import as_numbers
from safelight.model.heads.safetensors_head import read_safetensors_head
from safelight.model.heads.tensor_head import FileHead

_OTHERS = (
    (b"PK\x03\x04", "is a pickle or an archive, which can run code when it is read; convert it to safetensors"),
    (b"\x80", "is a pickle, which can run code when it is read; convert it to safetensors"),
    (b"version https://git-lfs", "is only a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"<", "is a web page, not weights; download the file itself"),
)
"""What a file that is neither begins with."""


def read_head(path: Path) -> FileHead:
    """Within a second, however large the file is.

    Raises UnsupportedModel for a file in another format, ModelLoadError for one that is missing, broken or cut short.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UnsupportedModel(f"{path} is no file; give a file of weights")
        with path.open("rb") as file:
            beginning = file.read(32)
        if beginning.startswith(MARK):
            return read_gguf_head(path)
        for mark, explanation in _OTHERS:
            if beginning.startswith(mark) and not _may_be_length(beginning):
                raise UnsupportedModel(f"{path} {explanation}")
        return as_numbers(read_safetensors_head(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelLoadError(f"{path} is missing{_target(path)}") from None
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}; download it again") from None


def is_weights(path: Path) -> bool:
    """Whether a file begins as those that are read do. Raises OSError."""
    with path.open("rb") as file:
        beginning = file.read(32)
    return beginning.startswith(MARK) or _may_be_length(beginning)


def _may_be_length(beginning: bytes) -> bool:
    """A safetensors file begins with the length of its JSON, whose first byte may be anything."""
    return beginning[8:9] == b"{" and beginning[4:8] == bytes(4)


def _target(path: Path) -> str:
    return f": it was {path.readlink()}; put that back, or give the file anew" if path.is_symlink() else ""
