"""What the outside may do with the control plane: run one transaction in a thread, and say that something changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.orm import Session

from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database

T = TypeVar("T")

ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """The database, the cipher and the logs, with the reconciler behind two functions."""

    database: Database
    cipher: Cipher
    logs: DeploymentLogs
    admin_token: str = field(repr=False)
    wake: Callable[[], None]
    """There is a new operation."""
    publish: Callable[[str], Awaitable[None]]
    """An endpoint's keys have changed."""
    replicas_of: Callable[[str, str], Sequence[Mapping[str, str | int | None]]]
    """What the replicas of an endpoint's deployment are doing now; none until it serves."""
    rotate_encryption_key: Callable[[], int]
    """Blocks; how many secrets were put under the new key."""

    async def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a thread, in one transaction; what it raises rolls back."""
        return await self.database.run(self._run, work)

    def _run(self, work: Callable[[Session], T]) -> T:
        with self.database.transaction() as session:
            return work(session)
