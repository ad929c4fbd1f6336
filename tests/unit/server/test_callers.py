"""Whose jobs are whose, and what a request that is only looked at does not do."""

from __future__ import annotations

import asyncio
import time

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from safelight.api import huggingface, openai
from safelight.control.job_queue import Run
from safelight.control.jobs import StoredRequest
from safelight.control.reconciler import EndpointState
from safelight.server.deployment_starter import ServedDeployment
from safelight.server.endpoint_gateway import EndpointGateway
from safelight.server.endpoint_routes import EndpointRoutes
from safelight.server.error_handlers import ErrorRenderer
from safelight.server.replay import send_through
from tests.fakes import until


def routes_with(auth_mode: str, **deployments: ServedDeployment) -> EndpointRoutes:
    routes = EndpointRoutes("localhost", None)
    state = EndpointState(
        name="flux",
        auth_mode=auth_mode,
        keys=("primary", "secondary"),
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


def test_two_keys_of_an_endpoint_are_two_callers() -> None:
    routes = routes_with("key")

    assert routes.identity_of("flux", "primary") == routes.identity_of("flux", "primary")
    assert routes.identity_of("flux", "primary") != routes.identity_of("flux", "secondary")


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
        errors=ErrorRenderer((openai.DIALECT, huggingface.DIALECT)),
        has_azure_status_codes=False,
        max_mirrored_bytes=100,
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
