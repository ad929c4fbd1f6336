"""What of the backend on Ray needs no cluster."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import safelight
from safelight.errors import ConfigurationError
from safelight.serving.backends.ray import cluster, replica
from safelight.serving.backends.ray.frames import VERSION, Located, Source, encode, source_of
from safelight.serving.backends.ray.ledger import Ledger
from safelight.serving.backends.registry import find_factory
from safelight.serving.counters import Counters
from safelight.settings import Settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_what_lies_in_the_package_is_found_in_the_package_of_any_node() -> None:
    sprite = Path(safelight.__file__).parent / "models" / "sprite"

    assert source_of(sprite) == Source("models/sprite")


def test_a_model_of_the_hub_is_found_by_its_commit_and_a_file_of_it_by_its_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--acme--tiny-flux" / "snapshots" / COMMIT

    assert source_of(snapshot) == Source(".", "acme/tiny-flux", COMMIT)
    assert source_of(snapshot / "loras" / "ink.safetensors") == Source(
        "loras/ink.safetensors", "acme/tiny-flux", COMMIT
    )


def test_any_other_folder_is_at_the_same_path_everywhere(tmp_path: Path) -> None:
    assert source_of(tmp_path / "model") == Source(str(tmp_path / "model"))


def test_a_server_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("safelight.serving.backends.ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ConfigurationError, match=r"^runtime ray needs ray: pip install 'safelight\[ray\]'$"):
        find_factory(Settings(runtime="ray"))


@pytest.mark.parametrize(
    "address",
    [
        *("ray://head:10001", "http://head:8265", "local", "", " ", "head", "head:", ":6379", "head:0", "head:65536"),
        *("head:six", "head:6379/x", "head:6379 ", "me@head:6379", "::1:6379", "head\n:6379", "AUTO"),
    ],
)
@pytest.mark.parametrize("name", ["ray_address", "RAY_ADDRESS"])
def test_an_address_that_is_none_of_a_head_is_refused_with_what_to_give(
    name: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ray itself some are taken for its client's, or for a cluster of this machine that is to be started."""
    if name == "RAY_ADDRESS":
        monkeypatch.setenv(name, address or "nothing")
    given = address if name == "ray_address" else "auto"

    with pytest.raises(ConfigurationError, match=f"^{name} .*: give the address of the cluster's head") as refusal:
        find_factory(Settings(runtime="ray", ray_address=given))

    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no.such.invalid"])
def test_a_head_that_does_not_answer_is_told_at_once(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConfigurationError, match=rf"^ray_address {host}:{port}: nothing answers at .*:{port} \("):
        find_factory(Settings(runtime="ray", ray_address=f"{host}:{port}"))


def _answers(answer: Callable[[bytes], bytes]) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        while received := connection.recv(4096):
            connection.sendall(answer(received))

    return talk


NO_RAYS: dict[str, Callable[[socket.socket], object]] = {
    "HTTP": _answers(lambda _: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "Redis": _answers(lambda _: b"-ERR unknown command\r\n"),
    "an echo": _answers(lambda received: received),
    "one that hangs up": socket.socket.close,
    "silence": lambda _: threading.Event().wait(),
}


@pytest.mark.parametrize("talk", NO_RAYS.values(), ids=NO_RAYS)
def test_what_answers_and_is_no_ray_is_told_in_one_line(
    talk: Callable[[socket.socket], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself tries twenty times for 40 s each, with three lines of its own."""
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.2", 0)) as listener:  # 127.0.0.1 is another address of this machine to Ray
        threading.Thread(target=_serve, args=(listener, talk), daemon=True).start()
        address = f"127.0.0.2:{listener.getsockname()[1]}"

        with pytest.raises(
            ConfigurationError, match=rf"(what|nothing) answers at {address} (is no head of a Ray )?\("
        ) as refusal:
            find_factory(Settings(runtime="ray", ray_address=address))

    assert "\n" not in refusal.value.message
    assert "Traceback" not in refusal.value.message


def _serve(listener: socket.socket, talk: Callable[[socket.socket], object]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_talk, args=(connection, talk), daemon=True).start()


def _talk(connection: socket.socket, talk: Callable[[socket.socket], object]) -> None:
    with connection, suppress(OSError):
        talk(connection)


def test_an_actor_of_before_there_were_versions_is_known_for_one() -> None:
    """It says its node in a text."""
    located = Located("9.9.9/9", "a1b2")

    assert replica._located(encode(located)) == located
    assert replica._located("a1b2").node == "a1b2"
    assert replica._located("a1b2").version != VERSION


def test_each_count_is_told_to_one_gateway_so_their_sum_is_the_truth() -> None:
    ledger = Ledger()
    done = [Counters(steps_run=number, batch_sizes={1: number}) for number in (4, 4, 10)]
    one, other = Counters(), Counters()

    one += ledger.untold(done[0])
    other += ledger.untold(done[1])
    ledger.was_restarted = True
    other += ledger.untold(done[2])
    one += ledger.untold(done[2])

    assert (one.steps_run, other.steps_run) == (4, 6)
    assert one + other == Counters(steps_run=10, batch_sizes={1: 10}, replica_restarts=1)
