"""The manifest of a folder of pictures: which line of a prompt file became which files, or why it did not.

An entry is written before its files, so whatever ends the run, the next one knows its own files from a stranger's; a
line whose files are not there is not made. When a run ends, the manifest is put in order: one entry for each line.
"""

from __future__ import annotations

import fcntl
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safelight.cli.pictures.output_files import PARTIAL, write_whole
from safelight.errors import InvalidRequest

FILE_NAME = "manifest.jsonl"
_START = b'{"line": '
"""How an entry begins."""
_PICTURE = re.compile(r"(\d{6,18})(-\d{1,18})?\.(png|jpg|webp)", re.ASCII)
"""The name of a picture: its line, and which of several it is."""

Entry = Mapping[str, Any]


class Manifest:
    """`manifest.jsonl` of one folder, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._entries: dict[int, Entry] = {}
        self._pictures: dict[int, list[str]] = {}
        """Of each line, what was in the folder when the run began."""

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
        for name in sorted(path.name for path in self._folder.iterdir()):
            if match := _PICTURE.fullmatch(name):
                self._pictures.setdefault(int(match[1]), []).append(name)
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

    def check_room(self, number: int, request: Mapping[str, object] | None) -> None:
        """Raises InvalidRequest if this line's pictures would take the place of another request's, or of a stranger's.

        `request` is None for a line that cannot be made.
        """
        entry = self._entries.get(number, {})
        for name in self._pictures.get(number, []):
            if name not in entry.get("files", []):
                raise InvalidRequest(
                    f"{self._folder / name} is in the way of line {number}, and {FILE_NAME} does not know it; "
                    "give another --out, or --overwrite",
                    field="out",
                )
            if entry.get("request") != request:
                raise InvalidRequest(
                    f"line {number} has changed since {self._folder / name} was made; give another --out, "
                    "put new prompts at the end, or give --overwrite to make changed lines anew",
                    field="out",
                )

    def other_revisions(self, revision: str) -> set[str]:
        """What other revisions made the pictures of the folder, as far as it is known."""
        return {str(entry["revision"]) for entry in self._entries.values() if entry.get("revision")} - {revision}

    def check_model(self, model: str) -> None:
        """Raises InvalidRequest if another model's pictures are in the folder."""
        others = {str(entry["model"]) for entry in self._entries.values() if "model" in entry} - {model}
        if others:
            raise InvalidRequest(
                f"{self._folder} has pictures of {others.pop()}, and these would be {model}'s; give another --out",
                field="out",
            )

    def add(self, entry: Entry, files: Mapping[str, bytes]) -> None:
        """Write the entry, then the files; in place of what was there of its line. Raises InvalidRequest."""
        with self._lock:
            earlier = self._entries.get(entry["line"], {})
            self._entries[entry["line"]] = entry
            try:
                for name in earlier.get("files", []):
                    (self._folder / name).unlink(missing_ok=True)
                self._file.write(_line(entry))
                self._file.flush()
            except OSError as error:
                raise InvalidRequest(f"{self._folder} cannot be written to: {error.strerror}", field="out") from None
        for name, content in files.items():
            write_whole(self._folder / name, content)

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
    return isinstance(files, list) and all(isinstance(name, str) and _PICTURE.fullmatch(name) for name in files)


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
