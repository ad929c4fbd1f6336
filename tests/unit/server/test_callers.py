"""Whose jobs are whose, and what a request that is only looked at does not do."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.control.endpoints.transactions import EndpointState
from safelight.control.jobs.queue import Run
from safelight.control.jobs.records import StoredRequest
from safelight.server.endpoints.gateway import EndpointGateway
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import ServedDeployment
from safelight.server.jobs.resend import PART_BYTES, send_through
from safelight.settings import Settings
from tests.fakes import until

CREATED_AT = datetime(2026, 11, 23, tzinfo=UTC)


def routes_with(
    auth_mode: str,
    *,
    keys: tuple[str, ...] = ("primary", "secondary"),
    created_at: datetime = CREATED_AT,
    **deployments: ServedDeployment,
) -> EndpointRoutes:
    routes = EndpointRoutes("localhost", None)
    state = EndpointState(
        name="flux",
        created_at=created_at,
        auth_mode=auth_mode,
        keys=keys,
        token_key="",
        traffic={"blue": 100},
        mirror_traffic={"green": 100},
        deployment_names=frozenset(deployments),
    )
    routes.publish(state, deployments)
    return routes


def token(subject: str | None) -> str:
    claims = {"exp": int(time.time()) + 60, "iat": time.time()}
    return jwt.encode(claims if subject is None else claims | {"sub": subject}, "k" * 32, "HS256")


def test_all_keys_of_an_endpoint_are_one_caller_also_after_one_was_regenerated() -> None:
    before, after = routes_with("key"), routes_with("key", keys=("regenerated", "secondary"))

    assert before.identity_of("flux", "primary") == before.identity_of("flux", "secondary")
    assert before.identity_of("flux", "primary") == after.identity_of("flux", "regenerated")


@pytest.mark.parametrize("auth_mode", ["key", "aml_token"])
def test_an_endpoint_that_is_created_again_under_its_name_is_another_caller(auth_mode: str) -> None:
    later = CREATED_AT + timedelta(microseconds=1)
    first, second = routes_with(auth_mode), routes_with(auth_mode, created_at=later)

    assert first.identity_of("flux", "primary") != second.identity_of("flux", "primary")


def test_a_new_token_is_the_same_caller() -> None:
    aml, aad = routes_with("aml_token"), routes_with("aad_token")

    assert aml.identity_of("flux", token("flux")) == aml.identity_of("flux", token("flux"))
    assert aad.identity_of("flux", token("ann")) == aad.identity_of("flux", token("ann"))
    assert aad.identity_of("flux", token("ann")) != aad.identity_of("flux", token("bob"))
    assert aad.identity_of("flux", token(None)) != aad.identity_of("flux", token(None) + "x")


def test_a_job_is_mirrored_once_and_not_when_it_is_only_looked_at() -> None:
    mirrored: list[bytes] = []

    def served(bodies: list[bytes]) -> ServedDeployment:
        async def answer(request: Request) -> Response:
            bodies.append(await request.body())
            return PlainTextResponse("")

        app = Starlette(routes=[Route("/score", answer, methods=["POST"])])
        return ServedDeployment(None, app, 0)  # type: ignore[arg-type]

    gateway = EndpointGateway(
        PlainTextResponse("the server's own model"),
        routes=routes_with("key", blue=served([]), green=served(mirrored)),
        arm=PlainTextResponse("arm"),
        settings=Settings(),
        uploads=UploadBudget(1000),
    )

    async def send(body: bytes, run: Run) -> None:
        stored = StoredRequest(endpoint_name="flux", server="http://s", path="/score", query="", headers=(), body=body)
        answer = await send_through(gateway, stored, run, request_id="r")
        assert dict(answer.headers)["azureml-model-deployment"] == "blue"

    async def look_and_send() -> None:
        await send(b"looked at", Run(is_check=True))
        await send(b"sent", Run())
        await until(lambda: len(mirrored) > 0)

    asyncio.run(look_and_send())

    assert mirrored == [b"sent"]


@pytest.mark.anyio
async def test_a_long_body_comes_in_parts_between_which_others_have_their_turn() -> None:
    body, turns, parts = bytes(range(256)) * 1000, [], []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            parts.append(message["body"])
            turns.append(num_turns)
            more = message["more_body"]
        await Response()(scope, receive, send)

    num_turns = 0
    stored = StoredRequest(endpoint_name=None, server="http://x", path="/", query="", headers=(), body=body)
    sending = asyncio.create_task(send_through(app, stored, Run(), request_id="r"))
    while not sending.done():
        num_turns += 1
        await asyncio.sleep(0)

    assert b"".join(parts) == body
    assert max(map(len, parts)) <= PART_BYTES
    assert len(set(turns)) == len(turns) == 4
