"""What a replica's process says on standard error: passed on to ours at once, and the end of it kept."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from safelight.telemetry.log_lines import JsonLines, LogFormat, to_text

MAX_BYTES = 64 * 1024
_OURS = 2


class StandardError:
    """One end is the child's: give it `child_end` and then close that here; this one is read by the event loop."""

    def __init__(self, name: str, log_format: LogFormat) -> None:
        self._write = _write_through if log_format == "text" else JsonLines(name, _write_through)
        self._end, self.child_end = os.pipe()
        os.set_blocking(self._end, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end, self._pass_on)
        self._kept = b""

    def read_last(self) -> str:
        """The last `MAX_BYTES` of what was said, as text."""
        return to_text(self._kept.decode("utf-8", "replace"))

    def close(self) -> None:
        """When the child has ended: what it wrote until then is still read."""
        while self._pass_on():
            pass
        self._write(b"")
        self._loop.remove_reader(self._end)
        os.close(self._end)

    def _pass_on(self) -> bool:
        """Whether there may be more."""
        try:
            said = os.read(self._end, MAX_BYTES)
        except BlockingIOError:
            return False
        if not said:
            self._loop.remove_reader(self._end)
            return False
        self._kept = (self._kept + said)[-MAX_BYTES:]
        self._write(said)
        return True


def _write_through(said: bytes) -> None:
    with suppress(OSError):  # nobody reads ours
        os.write(_OURS, said)
