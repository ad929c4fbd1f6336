"""The manifest of a folder of pictures: which line of a prompt file became which files, or why it did not.

A line is added when its files are there, so whatever ends the run, what the manifest says is true. When a run ends, the
manifest is put in order: one entry for each line.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safelight.cli.output_files import PARTIAL, write_whole
from safelight.errors import InvalidRequest

FILE_NAME = "manifest.jsonl"
_START = b'{"line": '
"""How an entry begins."""

Entry = Mapping[str, Any]


class Manifest:
    """`manifest.jsonl` of one folder, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._entries: dict[int, Entry] = {}

    def __enter__(self) -> Self:
        """Make the folder if it is not there. Raises InvalidRequest."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise InvalidRequest(f"{self._folder} cannot be written to: {error.strerror}", field="out") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InvalidRequest(f"another run is writing to {self._folder}", field="out") from None
        try:
            self._entries = {entry["line"]: entry for entry in self._read()}
        except InvalidRequest:
            self._file.close()
            raise
        for partial in self._folder.glob(PARTIAL):
            partial.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entries = [self._entries[number] for number in sorted(self._entries)]
        with self._file:
            write_whole(self._path, b"".join(_line(entry) for entry in entries))

    def is_made(self, number: int, request: Mapping[str, object]) -> bool:
        """Whether this very request was made for this line, and its files are still there."""
        entry = self._entries.get(number, {})
        files = entry.get("files", [])
        return bool(files) and entry.get("request") == request and all((self._folder / name).exists() for name in files)

    def check_model(self, model: str) -> None:
        """Raises InvalidRequest if another model's pictures are in the folder."""
        others = {str(entry["model"]) for entry in self._entries.values() if "model" in entry} - {model}
        if others:
            raise InvalidRequest(
                f"{self._folder} has pictures of {others.pop()}, and these would be {model}'s; give another --out",
                field="out",
            )

    def add(self, entry: Entry, files: Mapping[str, bytes]) -> None:
        """Write the files, then the entry; in place of what was said of its line. Raises InvalidRequest."""
        for name, content in files.items():
            write_whole(self._folder / name, content)
        with self._lock:
            self._entries[entry["line"]] = entry
            try:
                self._file.write(_line(entry))
                self._file.flush()
            except OSError as error:
                raise InvalidRequest(f"{self._path} cannot be written: {error.strerror}", field="out") from None

    def _read(self) -> list[Entry]:
        """The entries so far. What a process that was killed wrote of its last one is cut off."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            entries = [json.loads(line) for line in whole.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            entries = [None]
        is_ours = _START.startswith(content[len(whole) :][: len(_START)])
        if not is_ours or not all(map(_is_entry, entries)):
            raise InvalidRequest(f"{self._path} is not a manifest of ours; move it, or give another --out", field="out")
        self._file.truncate(len(whole))
        return entries


def _is_entry(value: object) -> bool:
    """Whether it can be one of ours, as far as it is used."""
    if not isinstance(value, dict) or not isinstance(value.get("line"), int):
        return False
    files = value.get("files", [])
    return isinstance(files, list) and all(isinstance(name, str) and len(name) < 256 for name in files)


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
