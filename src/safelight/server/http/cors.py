"""Pages of other origins may call this server from a browser, if its operator says which (the Fetch standard, CORS)."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from safelight.settings import ANY_ORIGIN

METHODS = ("GET", "HEAD", "POST", "DELETE")
"""Of the data plane; the control plane is not for pages."""
EXPOSED = (
    *("x-request-id", "x-ms-client-request-id", "x-should-retry", "retry-after"),
    *("x-safelight-seed", "x-safelight-parameters", "x-safelight-warning"),
    *("location", "preference-applied", "idempotent-replayed", "cache-status", "etag"),
    *("azureml-model-deployment", "ms-azureml-model-error-statuscode", "ms-azureml-model-error-reason"),
)
"""Fields of answers that a page's script may read."""


def add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Around everything that `app` has by now: errors carry the fields as well, or a page could not read them."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            allow_credentials=ANY_ORIGIN not in origins,
            expose_headers=EXPOSED,
        )
