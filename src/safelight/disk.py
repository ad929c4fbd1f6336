"""What cannot be kept because a disk is full: told to whoever sent it, once in the log, and by `/health/ready`."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safelight.errors import StorageUnavailable

logger = logging.getLogger(__name__)

FULL, READ_ONLY = "its disk is full", "it may only be read"
_CAUSES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "its disk quota is used up",
    errno.EFBIG: "the limit on the size of its files is reached",
    errno.EROFS: READ_ONLY,
}
LOG_INTERVAL_S = 60.0
"""A disk that is nearly full takes this and refuses that: no more lines about one place than that."""


class Disk:
    """The places where a server keeps things, and what is wrong with them. Threads share it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: dict[str, str] = {}
        self._logged: dict[str, str] = {}
        """The causes that the log has, of places that have taken nothing since."""
        self._logged_at: dict[str, float] = {}

    @property
    def trouble(self) -> str | None:
        """The places that refused what they were given last, and why."""
        with self._lock:
            return "; ".join(f"{place} takes no writes: {cause}" for place, cause in self._causes.items()) or None

    def refused(self, place: str, cause: str, *, detail: str, remedy: str = "") -> StorageUnavailable:
        """What to raise. The log gets `detail` too, if this is news."""
        with self._lock:
            self._causes[place] = cause
            is_news = self._logged.get(place) != cause and self._is_due(place)
            if is_news:
                self._logged[place], self._logged_at[place] = cause, self._clock()
        if is_news:
            logger.error("%s takes no writes: %s (%s); what needs it is answered with 503", place, cause, detail)
        return StorageUnavailable(
            f"{place} takes no writes: {cause}; whoever runs this server has to mend that, then send it again{remedy}"
        )

    def took(self, place: str) -> None:
        """Something was kept there."""
        with self._lock:
            self._causes.pop(place, None)
            is_news = self._logged.pop(place, None) is not None
        if is_news:
            logger.info("%s takes writes again", place)

    @contextmanager
    def writing(self, place: str, *, remedy: str = "") -> Iterator[None]:
        """The block keeps something. Raises StorageUnavailable in place of the disk's own error."""
        try:
            yield
        except OSError as error:
            cause = _CAUSES.get(error.errno or 0)
            if cause is None:
                raise
            raise self.refused(place, cause, detail=str(error), remedy=remedy) from error
        self.took(place)

    def _is_due(self, place: str) -> bool:
        return place not in self._logged_at or self._clock() - self._logged_at[place] >= LOG_INTERVAL_S
