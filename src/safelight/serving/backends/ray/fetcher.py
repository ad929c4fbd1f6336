"""What fetches a model on one node: an actor for each model and node, which all replicas and gateways share.

It is the only process of the cluster that is told the hub's token, in an argument of a call: those pass from process to
process, and are in no log, no table of the cluster and no process listing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import ray

from safelight.errors import SafelightError
from safelight.model import hub
from safelight.model.revision import ADAPTER_SETTINGS

POLL_S = 5.0
"""How long whoever asks is kept waiting: who asks again and again knows that the node lives."""
LINGER_S = 10.0
"""After it has fetched: those who ask, and other replicas that need the same, find it until then."""
WHOLE_MODEL = "."


class Fetcher:
    """Fetches once, however many ask."""

    def __init__(self) -> None:
        self._fetching: asyncio.Task[str] | None = None

    async def fetch(self, hub_id: str, revision: str, file: str, token: str | None) -> tuple[str, str] | None:
        """The path of a file of a repository, or of the folder of a whole model (`.`); or an error's message.

        None if it is on its way still: ask again.
        """
        if self._fetching is None:
            self._fetching = asyncio.create_task(asyncio.to_thread(_fetch, hub_id, revision, file, token))
            self._fetching.add_done_callback(_end_soon)
        done, _ = await asyncio.wait([self._fetching], timeout=POLL_S)
        if not done:
            return None
        try:
            return self._fetching.result(), ""
        except SafelightError as error:
            return "", error.message


def _end_soon(_: object) -> None:
    myself = ray.get_runtime_context().current_actor
    asyncio.get_running_loop().call_later(LINGER_S, lambda: ray.kill(myself, no_restart=True))


def _fetch(hub_id: str, revision: str, file: str, token: str | None) -> str:
    if file == WHOLE_MODEL:
        return str(hub.download_model(hub_id, revision=revision, token=token, report=_say_nothing))
    settings = str(Path(file).parent / ADAPTER_SETTINGS)
    folder = hub.download(hub_id, files=(file, settings), revision=revision, token=token, report=_say_nothing)
    return str(folder / file)


def _say_nothing(_here: int, _all: int) -> None:
    """In place of bars in the node's logs."""
