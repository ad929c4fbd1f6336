"""One life of a replica's process after another: started, and started again when it ends, as long as that makes sense.

What is said to the process and by it is `converse`'s part; here is when it runs, why it ended, and what comes then.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn

from safelight.errors import ModelLoadError, OtherVersion, OutOfMemory, ReplicaLost, SafelightError, UnsupportedModel
from safelight.model.memory.exhausted import OLD_AND_NEW, what_needs_less
from safelight.serving.backends.child_process import Child, manner_of, spawned
from safelight.serving.backends.protocol import ReplicaState
from safelight.telemetry.log_lines import LogFormat

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
"""A replica that was ready for this long starts its back-off from the beginning."""
MAX_FIRST_LOADS = 3
"""Deaths before it was ever ready: a model that never loads is not tried for ever."""

_OUT_OF_MEMORY = "as a system ends what needs more memory than there is"

logger = logging.getLogger(__name__)


class Supervisor:
    """Owns the process of one replica, and the only task.

    `converse` talks to each process until that ends, and says by `enter` how far it is; `on_end` hears why it ended.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        converse: Callable[[Child], Awaitable[NoReturn]],
        on_end: Callable[[SafelightError], None],
        on_change: Callable[[], None],
        first_backoff_s: float,
        log_format: LogFormat = "text",
    ) -> None:
        self.state = ReplicaState.STARTING
        self.error: SafelightError | None = None
        self.last_words = ""
        self.restarts = 0
        self.child: Child | None = None
        self.smaller_plan = ""
        """The options of the next smaller plan, for whoever runs out of memory."""
        self._name = name
        self._command = command
        self._environment = environment
        self._converse = converse
        self._on_end = on_end
        self._on_change = on_change
        self._first_backoff_s = first_backoff_s
        self._log_format: LogFormat = log_format
        self._ready_at: float | None = None
        self._was_ready = False
        self._ran_out_of_memory = False
        self._deaths_in_a_row = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Also after `stop`."""
        self._ready_at, self._deaths_in_a_row = None, 0
        self.enter(ReplicaState.STARTING)
        self._task = asyncio.create_task(self._supervise(), name=f"supervisor of {self._name}")

    async def stop(self) -> None:
        """End the process now, and wait for its end."""
        self.enter(ReplicaState.STOPPED)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def enter(self, state: ReplicaState) -> None:
        if state is ReplicaState.READY:
            self._was_ready, self._ready_at = True, asyncio.get_running_loop().time()
        if state is not self.state:
            logger.info("%s is %s", self._name, state)
        self.state = state
        self._on_change()

    async def _supervise(self) -> None:
        while True:
            error = await self._live()
            self._bury(error)
            if self._is_beyond_help(error):
                self.error = self._final(error)
                self.enter(ReplicaState.FAILED)
                return
            backoff_s = min(self._first_backoff_s * 2 ** (self._deaths_in_a_row - 1), MAX_BACKOFF_S)
            logger.warning("%s; starting it again in %g s", error.message, backoff_s)
            self.enter(ReplicaState.STARTING)
            await asyncio.sleep(backoff_s)
            self.restarts += 1

    async def _live(self) -> SafelightError:
        """Run the process once, from its start to its end. Returns why it ended."""
        child: Child | None = None
        self.last_words, self._ran_out_of_memory = "", False
        try:
            spawning = spawned(self._command, self._environment, name=self._name, log_format=self._log_format)
            async with spawning as child:
                self.child = child
                try:
                    await self._converse(child)
                finally:
                    self.child = None
                    if self.state is not ReplicaState.STOPPED:
                        self.enter(ReplicaState.STARTING)  # at once: nothing more may be sent to it
        except EOFError:
            assert child is not None
            return self._why_it_ended(child)
        except OSError as error:
            return ReplicaLost(f"{self._name} cannot be started: {error}")
        except SafelightError as error:
            return error
        finally:
            if child is not None:
                self.last_words = child.last_words

    def _why_it_ended(self, child: Child) -> SafelightError:
        is_serving = self._ready_at is not None
        doing = "serving" if is_serving else "loading the model"
        ended = f"{self._name} ended {manner_of(child.exit_status)} while {doing}"
        was_killed = child.exit_status == -signal.SIGKILL
        self._ran_out_of_memory = was_killed or "MemoryError" in child.last_words
        if not self._ran_out_of_memory:
            return ReplicaLost(ended)
        why = f", {_OUT_OF_MEMORY}" if was_killed else " for want of memory"
        hint = "" if is_serving else f". {OLD_AND_NEW}"
        return ReplicaLost(f"{ended}{why}; {what_needs_less(self.smaller_plan)}{hint}")

    def _bury(self, error: SafelightError) -> None:
        now = asyncio.get_running_loop().time()
        was_stable = self._ready_at is not None and now - self._ready_at >= STABLE_AFTER_S
        self._deaths_in_a_row = 1 if was_stable else self._deaths_in_a_row + 1
        self._ready_at = None
        self.error = error
        if not isinstance(error, ReplicaLost):
            self.last_words = ""  # the error says it all
        self._on_end(error)

    def _is_beyond_help(self, error: SafelightError) -> bool:
        """A model that has never loaded here is not worth many tries, and none that found no memory; one that has is,
        while its files are.
        """
        if self._was_ready:
            return isinstance(error, UnsupportedModel | OtherVersion)
        return not isinstance(error, ReplicaLost) or self._ran_out_of_memory or self._deaths_in_a_row >= MAX_FIRST_LOADS

    def _final(self, error: SafelightError) -> SafelightError:
        """Why the model is given up."""
        if not isinstance(error, ReplicaLost):
            return error
        if self._ran_out_of_memory:
            return OutOfMemory(error.message)
        return ModelLoadError(
            f"{error.message}, {MAX_FIRST_LOADS} times in a row; the server's log says more, and for a deployment "
            "`safelight online-deployment get-logs`"
        )
