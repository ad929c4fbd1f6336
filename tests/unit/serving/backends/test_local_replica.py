"""The child process on its own terms: what it does when the gateway dies or talks nonsense, and the other way round."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from safelight.errors import (
    ConfigurationError,
    EngineFailure,
    ModelLoadError,
    OtherVersion,
    OutOfMemory,
    ReplicaLost,
    UnsupportedModel,
)
from safelight.picture.generation import Failed, Step
from safelight.serving.backends.local_replica import LocalReplica
from safelight.serving.backends.protocol import Launch
from safelight.serving.backends.registry import find_factory
from safelight.serving.messages import (
    PROTOCOL_VERSION,
    Cancel,
    GatewayMessage,
    Happened,
    Hello,
    Load,
    LoadFailed,
    Planned,
    Ready,
    ReplicaMessage,
    Stats,
    Submit,
    encode_frame,
    receive_message,
    replica_messages,
)
from safelight.serving.start import create_dispatcher
from safelight.settings import EngineOptions, Settings
from tests.fakes import DEADLINE_S, FAKE_SPEC, FakeEngineOptions, Gate, fake_command, fake_replicas, fake_request, until

LOAD = Load(folder="/nowhere", spec=FAKE_SPEC, options=EngineOptions())
LAUNCH = Launch(load=LOAD)


class Child:
    """A replica's process, and the gateway's end of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.process = process
        self.sock = sock
        sock.settimeout(DEADLINE_S)
        self._received = sock.makefile("rb")

    def say(self, message: GatewayMessage) -> None:
        self.sock.sendall(encode_frame(message))

    def hear(self) -> ReplicaMessage:
        return receive_message(self._received, replica_messages)

    def leave(self) -> None:
        self._received.close()
        self.sock.close()

    def exit_status(self) -> int:
        return self.process.wait(timeout=DEADLINE_S)


@contextmanager
def running_child(options: FakeEngineOptions | None = None) -> Iterator[Child]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [*fake_command(options), "--fd", str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL)
        child = Child(process, ours)
        try:
            yield child
        finally:
            child.leave()
            process.kill()
            process.wait()


def test_a_child_says_hello_then_loads_then_is_ready() -> None:
    with running_child() as child:
        assert child.hear() == Hello(PROTOCOL_VERSION)

        child.say(LOAD)

        assert child.hear() == Planned("", "")
        assert child.hear() == Ready()


def test_a_child_ends_with_its_gateway() -> None:
    with running_child() as child:
        child.hear()

        child.leave()

        assert child.exit_status() == 0


def test_a_child_ends_with_its_gateway_in_the_middle_of_loading(tmp_path: Path) -> None:
    with running_child(FakeEngineOptions(load_gate=str(tmp_path / "never"))) as child:
        child.hear()
        child.say(LOAD)

        child.leave()

        assert child.exit_status() == 0


def test_a_child_ends_with_its_gateway_in_the_middle_of_a_step(gate: Gate) -> None:
    gate.allow(1)
    with running_child(FakeEngineOptions(gate=str(gate.path))) as child:
        child.hear()
        child.say(LOAD)
        child.say(Submit(1, fake_request(), 0.0))
        while not isinstance(child.hear(), Stats):
            pass  # now the second step is at the gate

        child.leave()

        assert child.exit_status() == 0


@pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff", struct.pack(">I", 3) + b"abc"])
def test_a_child_that_hears_nonsense_ends(frame: bytes) -> None:
    with running_child() as child:
        child.hear()

        child.sock.sendall(frame)

        assert child.exit_status() == 1


def test_a_child_that_is_not_told_what_to_load_ends() -> None:
    with running_child() as child:
        child.hear()

        child.say(Cancel(1))

        assert child.exit_status() == 1


def script(*frames: bytes, answer: bytes = b"") -> list[str]:
    """The command of a replica that says these frames, `answer` to each Submit, and then waits for its end."""
    code = f"""
import socket, sys
sock = socket.socket(fileno=int(sys.argv[-1]))
for frame in {frames!r}:
    sock.sendall(frame)
while received := sock.recv(65536):
    if b"Submit" in received:
        sock.sendall({answer!r})
"""
    return [sys.executable, "-c", code]


@contextmanager
def _replica(command: list[str]) -> Iterator[LocalReplica]:
    yield LocalReplica("replica 0", LAUNCH, environment=dict(os.environ), command=command, first_backoff_s=0.01)


async def failure_of(command: list[str]) -> str:
    """What is said of a replica that never comes up."""
    with _replica(command) as replica:
        replica.start()
        try:
            await until(lambda: replica.state == "failed")
        finally:
            await replica.stop()
    assert isinstance(replica.error, ModelLoadError)
    return replica.error.message


@pytest.mark.anyio
async def test_a_replica_of_another_version_is_refused() -> None:
    message = await failure_of(script(encode_frame(Hello(PROTOCOL_VERSION + 1))))

    assert f"version {PROTOCOL_VERSION + 1}" in message
    assert "restart the server" in message


@pytest.mark.anyio
@pytest.mark.parametrize(
    "frames",
    [
        [b"\xff\xff\xff\xff"],
        [struct.pack(">I", 3) + b"abc"],
        [encode_frame(Ready())],
        [encode_frame(Hello(PROTOCOL_VERSION)), encode_frame(Hello(PROTOCOL_VERSION))],
    ],
)
async def test_a_replica_that_talks_nonsense_is_given_up(frames: list[bytes]) -> None:
    assert "3 times in a row" in await failure_of(script(*frames))


@pytest.mark.anyio
async def test_a_replica_that_talks_nonsense_after_it_was_ready_is_started_again() -> None:
    frames = [encode_frame(Hello(PROTOCOL_VERSION)), encode_frame(Ready()), encode_frame(Hello(PROTOCOL_VERSION))]
    with _replica(script(*frames)) as replica:
        replica.start()
        try:
            await until(lambda: replica.restarts >= 4)
        finally:
            await replica.stop()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "error", "state"),
    [
        (encode_frame(LoadFailed(ModelLoadError("no disk"))), ModelLoadError, "starting"),
        (encode_frame(LoadFailed(UnsupportedModel("a FluxFillPipeline"))), UnsupportedModel, "failed"),
        (encode_frame(Hello(PROTOCOL_VERSION + 1)), OtherVersion, "failed"),
    ],
)
async def test_what_was_ready_is_started_again_unless_it_can_never_load(
    tmp_path: Path, said: bytes, error: type[ModelLoadError], state: str
) -> None:
    """The files are others when it is started for the second time: the model's, or Safelight's own."""
    hello, ready = encode_frame(Hello(PROTOCOL_VERSION)), encode_frame(Ready())
    first, second = hello + ready, (said if error is OtherVersion else hello + said)
    code = f"""
import pathlib, socket, sys
sock = socket.socket(fileno=int(sys.argv[-1]))
lives = pathlib.Path({str(tmp_path / "lives")!r})
lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
sock.sendall({first!r} if lives.read_text() == "x" else {second!r})
"""
    with _replica([sys.executable, "-c", code]) as replica:
        replica.start()
        try:
            await until(lambda: replica.state == "failed" or replica.restarts >= 4)
            assert (type(replica.error), replica.state == "failed") == (error, state == "failed")
        finally:
            await replica.stop()

    assert len((tmp_path / "lives").read_text()) == 2 or state == "starting"


@pytest.mark.anyio
async def test_all_that_a_replica_has_sent_is_passed_on_at_once_however_many_others_have_turns() -> None:
    """A turn of the event loop is long when many ask: none may be spent on each message."""
    steps = [encode_frame(Happened(0, Step(0, index, 100))) for index in range(1, 101)]
    end = encode_frame(Happened(0, Failed(EngineFailure("no picture"))))
    command = script(encode_frame(Hello(PROTOCOL_VERSION)), encode_frame(Ready()), answer=b"".join((*steps, end)))
    num_turns = 0

    async def count_turns() -> None:
        nonlocal num_turns
        while True:
            num_turns += 1
            await asyncio.sleep(0)

    with _replica(command) as replica:
        replica.start()
        await until(lambda: replica.state == "ready")
        async with aclosing(replica.stream(fake_request(), age_s=0.0)) as events:
            first = await anext(events)
            others = asyncio.create_task(count_turns())
            told = [first, *[event async for event in events]]
        others.cancel()
        await replica.stop()

    assert [type(event).__name__ for event in told] == ["Step"] * 100 + ["Failed"]
    assert num_turns < 10


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("smaller", "told"),
    [
        ("--quantization nf4 --offload layers", "what needs less is --quantization nf4 --offload layers"),
        ("", "no plan of this model needs less"),
    ],
)
async def test_what_the_system_ends_for_its_memory_is_not_tried_again_and_names_what_needs_less(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], smaller: str, told: str
) -> None:
    """As the kernel does it: SIGKILL, without a word."""
    (tmp_path / "full").touch()
    options = FakeEngineOptions(plan="plan: int8", smaller=smaller, kill_on_load=str(tmp_path / "full"))
    with _replica(fake_command(options)) as replica:
        replica.start()
        await until(lambda: replica.state == "failed")
        await replica.stop()

    assert isinstance(replica.error, OutOfMemory)
    assert "ended by SIGKILL while loading the model, as a system ends what needs more memory" in replica.error.message
    assert told in replica.error.message
    assert replica.restarts == 0
    assert replica.plan == "plan: int8"


@pytest.mark.anyio
async def test_a_replica_that_is_ended_while_it_serves_says_what_needs_less_and_is_started_again() -> None:
    with _replica(fake_command(FakeEngineOptions(plan="plan: int8", smaller="--quantization nf4"))) as replica:
        replica.start()
        await until(lambda: replica.state == "ready")

        os.kill(int(replica.whereabouts["pid"]), signal.SIGKILL)

        await until(lambda: replica.error is not None)
        told = replica.error
        await until(lambda: replica.state == "ready")
        await replica.stop()

    assert told is not None
    assert "by SIGKILL while serving" in told.message
    assert "what needs less is --quantization nf4" in told.message
    assert "deployment that is updated" not in told.message


@pytest.mark.anyio
async def test_a_replica_that_wants_too_much_memory_is_told_from_one_that_fails() -> None:
    code = "import sys; sys.stderr.write({!r}); sys.exit(1)"

    other = await failure_of([sys.executable, "-c", code.format("KeyError: 'memory'")])
    memory = await failure_of([sys.executable, "-c", code.format("numpy._core._exceptions._ArrayMemoryError: ...")])

    assert "with status 1" in other
    assert "memory" not in other
    assert "for want of memory" in memory


@pytest.mark.anyio
async def test_what_a_replica_says_is_passed_on_and_its_end_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os; os.write(2, b'x' * 200_000 + b'the end'); os._exit(1)"
    with _replica([sys.executable, "-c", code]) as replica:
        replica.start()
        await until(lambda: replica.state == "failed")
        await replica.stop()

    assert capfd.readouterr().err.count("x" * 200_000 + "the end") == 3
    assert len(replica.last_words) == 64 * 1024
    assert replica.last_words.endswith("xxxthe end")


@pytest.mark.anyio
async def test_a_command_that_does_not_exist_is_a_failure_that_names_it() -> None:
    assert "/no/such/python" in await failure_of(["/no/such/python"])


@pytest.mark.anyio
async def test_a_replica_that_does_not_load_in_time_is_given_up_at_once(tmp_path: Path) -> None:
    command = fake_command(FakeEngineOptions(load_gate=str(tmp_path / "never")))
    launch = Launch(load=LOAD, load_timeout_s=0.1)
    replica = LocalReplica("replica 0", launch, environment=dict(os.environ), command=command)
    replica.start()
    try:
        await until(lambda: replica.state == "failed")
    finally:
        await replica.stop()

    assert isinstance(replica.error, ModelLoadError)
    assert "did not load the model within 0.1 s" in replica.error.message
    assert replica.restarts == 0


@pytest.mark.anyio
async def test_a_request_to_a_replica_that_is_not_ready_fails_at_once() -> None:
    with _replica(fake_command()) as replica, pytest.raises(ReplicaLost):
        replica.stream(fake_request(), age_s=0.0)


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads what Linux shows of a process")
async def test_no_key_is_in_the_environment_or_the_arguments_of_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_API_KEY", "very-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret")
    dispatcher = create_dispatcher(fake_replicas(), Settings(), Path("/nowhere"), FAKE_SPEC)
    await dispatcher.start()
    try:
        await dispatcher.wait_until_ready()
        process = Path("/proc") / str(dispatcher.snapshot().replicas[0].whereabouts["pid"])

        environment, arguments = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
    finally:
        await dispatcher.stop()

    assert b"very-secret" not in environment + arguments
    assert b"OMP_WAIT_POLICY=PASSIVE" in environment


@pytest.mark.anyio
async def test_the_real_replica_process_says_why_a_folder_cannot_be_loaded(tmp_path: Path) -> None:
    dispatcher = create_dispatcher(find_factory(Settings()), Settings(), tmp_path, FAKE_SPEC)
    await dispatcher.start()
    try:
        with pytest.raises((ModelLoadError, ConfigurationError), match=str(tmp_path)):
            await dispatcher.wait_until_ready()
    finally:
        await dispatcher.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("num_turns", [*range(1, 8), 20, 100])
async def test_stopping_at_any_moment_of_the_start_leaves_nothing_behind(num_turns: int) -> None:
    """Warnings are errors here: a socket that is not closed or a process that is not awaited fails the test."""
    with _replica(fake_command()) as replica:
        replica.start()
        for _ in range(num_turns):
            await asyncio.sleep(0)

        await replica.stop()

    gc.collect()
    assert replica.state == "stopped"
    assert not replica.whereabouts
