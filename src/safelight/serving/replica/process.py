"""The child process of a replica: `python -m safelight.serving.replica.process --fd N`.

The main thread loads the model and owns the device. One thread reads the gateway's messages, one writes ours, so that a
gateway that is slow to read never stalls the device. The socket is inherited, and its end is ours: when the gateway
closes it or dies, this process ends at once, in the middle of a load or a step too.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol

from safelight.errors import ModelLoadError, ProtocolViolation, SafelightError
from safelight.model.checkpoint import revision_of
from safelight.model.revision import hub_id_of
from safelight.picture.recipe import Origin
from safelight.serving.messages import (
    PROTOCOL_VERSION,
    Hello,
    Load,
    LoadFailed,
    Planned,
    Ready,
    ReplicaMessage,
    encode_frame,
    gateway_messages,
    receive_message,
)
from safelight.serving.replica.batcher import StepBatcher
from safelight.serving.replica.engine import Engine
from safelight.serving.replica.loop import Inbox, ReplicaLoop
from safelight.telemetry.log_lines import handler_for, log_everything

MAX_MESSAGES = 1024
"""On their way to the gateway; whoever has one more waits."""
MAX_BYTES_TOGETHER = 16 * 1024
"""Frames are written together until they have so many: each write would wake the gateway once."""


class Prepared(Protocol):
    """A model that fits, before it is loaded."""

    @property
    def plan(self) -> str:
        """In one line."""

    @property
    def smaller(self) -> str:
        """The options of the next smaller plan, or an empty text."""

    def fitting_rows(self, width: int, height: int) -> int:
        """How many rows of that size there is memory for."""
        ...

    def load(self) -> Engine:
        """Raises ModelLoadError."""
        ...


Prepare = Callable[[Load], Prepared]

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Safelight replica; started by the gateway, not by hand.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket to the gateway")
    run_replica(socket.socket(fileno=parser.parse_args().fd), prepare_engine)
    os._exit(0)  # what could not be loaded is told; a thread may still read its files


def prepare_engine(load: Load) -> Prepared:
    sys.modules.setdefault("peft", None)  # type: ignore[arg-type]  # diffusers imports it, for nothing that we use
    with _for_good():
        from safelight.engine import engine  # noqa: PLC0415  torch takes seconds to import; the gateway never does

        prepared = engine.prepare_engine(Path(load.folder), load.options, spec=load.spec)
        import_module(prepared.layout.engine)
    return prepared


@contextmanager
def _for_good() -> Iterator[None]:
    """What is imported in the block stays: nobody looks through it for garbage, meanwhile or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def run_replica(sock: socket.socket, prepare: Prepare) -> None:
    """Serve until the gateway closes the socket; returns only if the model cannot be loaded."""
    _leave_signals_to_the_gateway()
    logging.basicConfig(handlers=[handler_for("text", process_name())])
    inbox: Inbox = queue.Queue()  # the gateway bounds what runs; a message that waited to get in might be a Cancel
    threading.Thread(target=_read, args=(sock, inbox), name="reader", daemon=True).start()
    outbox = _Outbox(sock)
    outbox.send(Hello(PROTOCOL_VERSION))
    load = inbox.get()
    if not isinstance(load, Load):
        raise ProtocolViolation(f"the gateway's first message must be Load, not {type(load).__name__}")
    if load.log_format == "json":
        logging.basicConfig(handlers=[handler_for("json", process_name())], force=True)
        log_everything()
    try:
        prepared = prepare(load)
        outbox.send(Planned(prepared.plan, prepared.smaller))
        outbox.flush()  # the system may end us without another word while we load
        engine, origin = _load(Path(load.folder), prepared)
    except SafelightError as error:
        outbox.send(LoadFailed(error))
        outbox.close()
        return
    outbox.send(Ready(engine.picture_s))
    ReplicaLoop(
        engine,
        inbox,
        outbox.send,
        batcher=StepBatcher(max_batch_size=load.options.max_batch_size, fitting_rows=prepared.fitting_rows),
        origin=origin,
        private_prompts=load.private_prompts,
        credentials=load.credentials,
    ).run()


def process_name() -> str:
    """As the lines of the log have it."""
    return f"replica {os.getpid()}"


def _load(folder: Path, prepared: Prepared) -> tuple[Engine, Origin]:
    """The files are read once more for their revision, while they are loaded; a failure does not wait for that."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="revision")
    revision = reader.submit(revision_of, folder)
    reader.shutdown(wait=False)
    engine = prepared.load()
    model = hub_id_of(folder) or engine.spec.name
    try:
        return engine, Origin(model=model, revision=revision.result(), backend=engine.backend)
    except OSError as error:
        raise ModelLoadError(f"{error.filename or folder} cannot be read: {error.strerror}") from None


class _Outbox:
    """Frames on their way to the gateway, written by a thread of their own."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._frames: queue.Queue[bytearray | None] = queue.Queue(MAX_MESSAGES)
        self._has_ended = False
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._writer.start()

    def send(self, message: ReplicaMessage) -> None:
        self._frames.put(encode_frame(message))

    def flush(self) -> None:
        """Wait until all that was sent is written."""
        self._frames.join()

    def close(self) -> None:
        """Wait until everything is written."""
        self._frames.put(None)
        self._writer.join()

    def _write(self) -> None:
        while frames := self._next_frames():
            try:
                _send_all(self._socket, frames)
            except ConnectionError:
                os._exit(0)  # as in _read
            for _ in frames:
                self._frames.task_done()

    def _next_frames(self) -> list[bytearray]:
        """What waits, as far as it is small. Empty: there will be no more."""
        if self._has_ended or (frame := self._frames.get()) is None:
            return []
        frames, num_bytes = [frame], len(frame)
        while num_bytes < MAX_BYTES_TOGETHER and not self._frames.empty():
            frame = self._frames.get()
            if frame is None:
                self._has_ended = True
                break
            frames.append(frame)
            num_bytes += len(frame)
        return frames


def _send_all(sock: socket.socket, frames: Sequence[bytearray]) -> None:
    """In one write, if the socket has room, and without a copy of them."""
    unsent = [memoryview(each) for each in frames]
    while unsent:
        num_sent = sock.sendmsg(unsent)
        while unsent and num_sent >= len(unsent[0]):
            num_sent -= len(unsent.pop(0))
        if unsent:
            unsent[0] = unsent[0][num_sent:]


def _read(sock: socket.socket, inbox: Inbox) -> None:
    received = sock.makefile("rb")
    while True:
        try:
            inbox.put(receive_message(received, gateway_messages))
        except EOFError:
            os._exit(0)  # the gateway has gone: nothing that the main thread is doing is wanted any more
        except ProtocolViolation:
            logger.exception("the gateway is not understood")
            os._exit(1)


def _leave_signals_to_the_gateway() -> None:
    """Ctrl-C and a service manager's SIGTERM reach the whole group, but requests must finish: the gateway says when."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
