from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session

from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.jobs import webhooks
from safelight.control.jobs.owners import JobSecrets
from safelight.control.jobs.records import Answer, JobLimits, NewJob, StoredRequest, add_job, begin_job, finish_job
from safelight.control.jobs.webhook_sender import Message, WebhookSender
from safelight.control.jobs.webhooks import Webhooks
from safelight.control.plane import ControlPlane
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database, open_database
from safelight.control.store.gateways import Role, Standing
from safelight.control.store.tables import Job
from safelight.errors import InvalidRequest, StorageUnavailable
from safelight.server.certificates import certificate_files
from safelight.settings import Settings
from tests.fakes import until
from tests.webhook_receiver import Receiver, receiving

LIMITS = JobLimits(max_jobs=10, max_bytes=10_000, lifetime_s=3600)


def names(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that knows one answer."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def send(sender: WebhookSender, url: str) -> int:
    return await sender.send(url, b"{}", {"content-type": "application/json"})


def test_a_message_is_signed_as_the_specification_does_it() -> None:
    message = Message(id="msg_p5jXN8AQM9LWM0D4loKWxJek", body=b'{"test": 2432232314}')

    headers = message.signed(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 1614265330)

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (message.id, "1614265330")


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    sender = WebhookSender(allows_private=True, resolve=names("127.0.0.1"))
    with receiving(Receiver()) as receiver:
        url = f"http://receiver.invalid:{receiver.port}/hook?a=b"

        status = asyncio.run(send(sender, url))

    assert status == 204
    assert receiver.deliveries[0].headers["host"] == f"receiver.invalid:{receiver.port}"
    assert receiver.deliveries[0].path == "/hook?a=b"


@pytest.mark.parametrize(
    "addresses",
    [
        *(("127.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("::ffff:127.0.0.1",), ("8.8.8.8", "2606:4700::1111", "::1")),
        *(("192.0.0.192",), ("64:ff9b::a9fe:a9fe",), ("fe80::1%eth0",)),
    ],
)
def test_a_name_that_leads_inside_is_refused_when_it_is_connected_to(addresses: tuple[str, ...]) -> None:
    answers = [["8.8.8.8"], list(addresses)]

    async def rebind(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    sender = WebhookSender(allows_private=False, resolve=rebind)
    with receiving(Receiver()) as receiver:
        url = f"http://receiver.invalid:{receiver.port}/"

        async def check_and_send() -> None:
            await sender.check(url)
            await send(sender, url)

        with pytest.raises(InvalidRequest, match="no public address"):
            asyncio.run(check_and_send())

    assert receiver.deliveries == []


def test_a_name_that_takes_long_to_find_keeps_nobody_elses_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        is_asked.set()
        may_answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def check_meanwhile() -> str:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        checking = asyncio.create_task(WebhookSender(allows_private=False).check("http://slow.invalid/"))
        try:
            await until(is_asked.is_set)
            await asyncio.wait_for(asyncio.to_thread(may_answer.set), 30)
        finally:
            may_answer.set()
        return await checking

    assert asyncio.run(check_meanwhile()) == "http://slow.invalid/"


def test_a_redirect_is_not_followed() -> None:
    sender = WebhookSender(allows_private=True)
    with receiving(Receiver(statuses=[302], headers={"Location": "/elsewhere"})) as receiver:
        assert asyncio.run(send(sender, receiver.url)) == 302

    assert [each.path for each in receiver.deliveries] == ["/hook"]


def test_the_body_of_an_answer_is_not_read() -> None:
    sender = WebhookSender(allows_private=True)
    with receiving(Receiver(statuses=[200], is_endless=True)) as receiver:
        assert asyncio.run(send(sender, receiver.url)) == 200


def test_over_tls_the_certificate_must_be_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = certificate_files(Settings(data_dir=tmp_path, tls=True))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    sender = WebhookSender(allows_private=True, resolve=names("127.0.0.1"))
    port = server.server_address[1]
    try:
        assert asyncio.run(send(sender, f"https://localhost:{port}/")) == 204
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            asyncio.run(send(sender, f"https://receiver.invalid:{port}/"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def plane(tmp_path: Path, cipher: Cipher) -> ControlPlane:
    async def publish(_: str) -> None:
        pass

    return ControlPlane(
        database=open_database(None, tmp_path),
        cipher=cipher,
        logs=DeploymentLogs(tmp_path),
        admin_token="",
        wake=lambda: None,
        publish=publish,
        replicas_of=lambda *_: [],
        rotate_encryption_key=lambda: 0,
    )


def add_finished_job(database: Database, cipher: Cipher, owner: str, url: str) -> str:
    """A job whose webhook is to be told."""
    request = StoredRequest(endpoint_name="flux", server="http://s", path="/score", query="", headers=(), body=b"{}")
    new = NewJob(owner=owner, request=request, webhook_url=url)
    with database.transaction() as session:
        job, _ = add_job(session, cipher, new, LIMITS)
        begin_job(session, job.id)
        finish_job(session, job.id, Answer(status=200, headers=(), body=b"picture"), LIMITS)
        return job.id


def is_told(database: Database, id: str) -> bool:
    with database.transaction() as session:
        job = session.get(Job, id)
        assert job is not None
        return job.webhook_due_at is None


def deliver(plane: ControlPlane, id: str, tmp_path: Path, *, pauses_s: Sequence[float] = (0.001,) * 5) -> None:
    """Run the task until nothing is due any more."""
    sender = WebhookSender(allows_private=True)

    async def run() -> None:
        webhooks = Webhooks(plane, sender, JobSecrets(tmp_path), public_url=None, pauses_s=pauses_s)
        await webhooks.start()
        await until(lambda: is_told(database, id))
        await webhooks.stop()

    database = open_database(None, tmp_path)
    asyncio.run(run())
    database.close()


def test_a_message_is_sent_again_until_it_is_taken(plane: ControlPlane, tmp_path: Path) -> None:
    secrets = JobSecrets(tmp_path)
    owner = secrets.owner_of("flux", "key k")
    with receiving(Receiver(statuses=[500, 302, 200])) as receiver:
        job_id = add_finished_job(plane.database, plane.cipher, owner, receiver.url)

        deliver(plane, job_id, tmp_path)

    assert len(receiver.deliveries) == 3
    assert len({each.headers["webhook-id"] for each in receiver.deliveries}) == 1
    assert all(each.is_signed_with(secrets.webhook_secret(owner)) for each in receiver.deliveries)
    assert receiver.deliveries[2].json()["type"] == "job.succeeded"
    assert receiver.deliveries[2].json()["data"] == {
        "id": job_id,
        "state": "succeeded",
        "job": f"http://s/endpoints/flux/jobs/{job_id}",
        "result": f"http://s/endpoints/flux/jobs/{job_id}/result",
    }


def test_a_message_that_nobody_takes_is_given_up(
    plane: ControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(Receiver(statuses=[503])) as receiver:
        job_id = add_finished_job(plane.database, plane.cipher, "o", receiver.url)

        deliver(plane, job_id, tmp_path, pauses_s=[0.001, 0.001])

    assert len(receiver.deliveries) == 3
    assert "it answered 503; it is given up" in caplog.messages[-1]
    assert receiver.url not in caplog.text


def test_a_receiver_that_is_gone_for_good_is_not_asked_again(plane: ControlPlane, tmp_path: Path) -> None:
    with receiving(Receiver(statuses=[410])) as receiver:
        deliver(plane, add_finished_job(plane.database, plane.cipher, "o", receiver.url), tmp_path)

    assert len(receiver.deliveries) == 1


def test_a_receiver_that_says_nothing_keeps_no_other_one_waiting(plane: ControlPlane, tmp_path: Path) -> None:
    async def run(silent: socket.socket, receiver: Receiver) -> list[int]:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        first = add_finished_job(plane.database, plane.cipher, "ann", url)
        webhooks = Webhooks(plane, WebhookSender(allows_private=True), JobSecrets(tmp_path), public_url=None)
        await webhooks.start()
        connection, _ = await asyncio.to_thread(silent.accept)
        second = add_finished_job(plane.database, plane.cipher, "bob", receiver.url)
        webhooks.wake()
        await until(lambda: is_told(plane.database, second))
        attempts = [num_attempts(plane, each) for each in (first, second)]
        await webhooks.stop()
        connection.close()
        return attempts

    with socket.create_server(("127.0.0.1", 0)) as silent, receiving(Receiver()) as receiver:
        assert asyncio.run(run(silent, receiver)) == [0, 1]


@dataclass
class FullDisk:
    """A database that takes nothing for a while after the first message."""

    database: Database
    receiver: Receiver
    num_failures: int = 5

    async def run(self, work: Callable[..., object], *args: object) -> object:
        return await self.database.run(work, *args)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        if self.receiver.deliveries and self.num_failures:
            self.num_failures -= 1
            raise StorageUnavailable("the database takes no writes")
        with self.database.transaction() as session:
            yield session


def test_a_message_is_not_sent_again_because_the_disk_is_full(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PAUSES_S", (0.001,))
    with receiving(Receiver()) as receiver:
        job_id = add_finished_job(plane.database, plane.cipher, "o", receiver.url)
        full = FullDisk(plane.database, receiver)

        deliver(replace(plane, database=full), job_id, tmp_path)  # type: ignore[arg-type]

    assert full.num_failures == 0
    assert len(receiver.deliveries) == 1


def test_what_was_due_when_the_server_ended_is_sent_by_the_next_one(plane: ControlPlane, tmp_path: Path) -> None:
    with receiving(Receiver()) as receiver:
        pass  # its port is known, and closed
    job_id = add_finished_job(plane.database, plane.cipher, "o", receiver.url)

    async def fail_once() -> None:
        webhooks = Webhooks(
            plane, WebhookSender(allows_private=True), JobSecrets(tmp_path), public_url=None, pauses_s=[0.2] * 5
        )
        await webhooks.start()
        await until(lambda: num_attempts(plane, job_id) > 0)
        await webhooks.stop()

    asyncio.run(fail_once())
    with receiving(receiver):
        deliver(plane, job_id, tmp_path)

    assert len(receiver.deliveries) == 1


def test_of_several_gateways_only_the_leader_tells(plane: ControlPlane, tmp_path: Path) -> None:
    standing = Standing(id=1, role=Role.FOLLOWER)

    async def run(receiver: Receiver, id: str) -> None:
        follower, leader = (
            Webhooks(plane, WebhookSender(allows_private=True), JobSecrets(tmp_path), public_url=None, standing=each)
            for each in (standing, Standing(id=2, role=Role.LEADER))
        )
        await follower.start()
        follower.wake()
        await leader.start()
        await until(lambda: is_told(plane.database, id))
        await leader.stop()
        assert len(receiver.deliveries) == 1

        second = add_finished_job(plane.database, plane.cipher, "bob", receiver.url)
        follower.wake()
        standing.role = Role.LEADER  # the other one is gone
        follower.wake()
        await until(lambda: is_told(plane.database, second))
        await follower.stop()

    with receiving(Receiver()) as receiver:
        asyncio.run(run(receiver, add_finished_job(plane.database, plane.cipher, "ann", receiver.url)))

    assert len(receiver.deliveries) == 2


def num_attempts(plane: ControlPlane, id: str) -> int:
    with plane.database.transaction() as session:
        job = session.get(Job, id)
        assert job is not None
        return job.num_webhook_attempts


def test_two_owners_have_two_secrets(tmp_path: Path) -> None:
    secrets = JobSecrets(tmp_path)
    one, other = secrets.owner_of("flux", "key k"), secrets.owner_of("flux", "key l")

    assert one != other != secrets.owner_of(None, "key k")
    assert secrets.webhook_secret(one) != secrets.webhook_secret(other)
    assert JobSecrets(tmp_path).webhook_secret(one) == secrets.webhook_secret(one)
    assert (tmp_path / "job-secret").stat().st_mode & 0o777 == 0o600
