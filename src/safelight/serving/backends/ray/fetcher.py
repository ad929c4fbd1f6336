"""What fetches a model on one node: an actor for each model and node, which all replicas and gateways share.

It is the only process of the cluster that is told the hub's token, in an argument of a call: those pass from process to
process, and are in no log, no table of the cluster and no process listing.
"""

from __future__ import annotations

import asyncio

import ray

from safelight.errors import SafelightError
from safelight.model import hub

LINGER_S = 5.0


class Fetcher:
    """Fetches once, however many ask."""

    def __init__(self) -> None:
        self._fetching: asyncio.Task[str] | None = None

    async def fetch(self, hub_id: str, revision: str, token: str | None) -> tuple[str, str]:
        """The folder, or the error and its message."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(asyncio.to_thread(_fetch, hub_id, revision, token))
        try:
            return await asyncio.shield(self._fetching), ""
        except SafelightError as error:
            return "", error.message
        finally:
            myself = ray.get_runtime_context().current_actor
            asyncio.get_running_loop().call_later(LINGER_S, lambda: ray.kill(myself, no_restart=True))


def _fetch(hub_id: str, revision: str, token: str | None) -> str:
    return str(hub.download_model(hub_id, revision=revision, token=token, report=lambda _here, _all: None))
