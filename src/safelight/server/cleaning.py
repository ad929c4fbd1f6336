"""Removes pictures whose links have ended, for as long as the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight.picture.links import ImageStore

INTERVAL_S = 300.0

logger = logging.getLogger(__name__)


@asynccontextmanager
async def kept_clean(store: ImageStore, *, interval_s: float = INTERVAL_S) -> AsyncIterator[None]:
    """Cleans up inside the block: at once, and then every `interval_s`."""
    cleaning = asyncio.create_task(_clean_up(store, interval_s), name="cleaning of the image store")
    try:
        yield
    finally:
        cleaning.cancel()
        await asyncio.gather(cleaning, return_exceptions=True)


async def _clean_up(store: ImageStore, interval_s: float) -> None:
    while True:
        try:
            await asyncio.to_thread(store.clean_up)
        except OSError as error:
            logger.warning("pictures whose links have ended cannot be removed: %s", error)
        await asyncio.sleep(interval_s)
