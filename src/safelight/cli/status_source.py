"""What a server says of what it is doing: all of it to its administrator, to others what health and metrics tell.

Both are brought into one form, that of the control plane's `/status`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from safelight.cli.arm import Arm, RequestRefused, ask
from safelight.cli.output import JsonObject
from safelight.errors import ConfigurationError

TIMEOUT_S = 10.0
READY = "safelight_ready"
"""What every deployment that is there has."""


def find_source(data_dir: Path | None, server: str | None) -> Callable[[], JsonObject]:
    """Reads the status of a server anew at each call. Raises ConfigurationError if it is not known where one is."""
    if server is not None:
        return _OpenSource(server, data_dir).read
    arm = Arm(data_dir)

    def read() -> JsonObject:
        told = arm.get("/status")
        if not isinstance(told, dict) or not isinstance(told.get("deployments"), list):
            raise RequestRefused(f"what answers at {arm.address.url} is no server of ours")
        return told

    return read


class _OpenSource:
    """A server whose administrator we are not: with its key, if there is one in the settings, it tells more."""

    def __init__(self, url: str, data_dir: Path | None) -> None:
        from safelight.settings import load_settings

        key = load_settings(data_dir=data_dir).read_api_key()
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def read(self) -> JsonObject:
        """Raises RequestRefused."""
        status, content = self._get("/health/ready")
        health = _of_health(content)
        if health is None:
            raise RequestRefused(f"what answers at {self._url} with {status} is no server of ours")
        status, content = self._get("/metrics")
        served = _of_metrics(content.decode(errors="replace")) if status == HTTPStatus.OK else {}
        own = {**served.pop((None, None), _nothing(None, None)), **health}
        return {"endpoints": sorted({str(place) for place, _ in served}), "deployments": [own, *served.values()]}

    def _get(self, path: str) -> tuple[int, bytes]:
        import ssl
        from http.client import HTTPException

        def tls(_: str) -> ssl.SSLContext:
            return ssl.create_default_context()

        try:
            answer = ask("GET", self._url + path, headers=self._headers, tls=tls, timeout_s=TIMEOUT_S)
        except (OSError, ValueError, HTTPException) as error:
            raise RequestRefused(f"no server answers at {self._url} ({error})") from None
        return answer.status, answer.content


Served = dict[tuple[str | None, str | None], JsonObject]


def _nothing(endpoint: str | None, name: str | None) -> JsonObject:
    told: JsonObject = {
        "endpoint": endpoint,
        "name": name,
        "traffic": None,
        "model": None,
        "ready": False,
        "replicas": [],
    }
    return {**told, "replicas": [], "queued": 0, "running": 0, "pictures": 0, "latency": {}}


def _of_health(content: bytes) -> JsonObject | None:
    """What `/health/ready` tells of the server's own model; None if it is not ours."""
    try:
        told = json.loads(content)
        replicas = told.get("replicas", [{"state": told.get("cause") or "ready"}])
        return {
            "ready": bool(told["ready"]),
            "model": told.get("model"),
            "replicas": [{**each, "state": str(each["state"])} for each in replicas],
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _of_metrics(text: str) -> Served:
    """Each deployment, and the server's own model, as far as its metrics tell."""
    from prometheus_client.parser import text_string_to_metric_families

    served: Served = {}
    there: set[tuple[str | None, str | None]] = set()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not sample.name.startswith("safelight_"):
                    continue
                place = (sample.labels.get("endpoint"), sample.labels.get("deployment") or None)
                told = served.setdefault(place, _nothing(*place))
                _add(told, sample.name.removeprefix("safelight_"), sample.labels, sample.value)
                if sample.name == READY:
                    there.add(place)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"the server's metrics cannot be read: {error}") from None
    return {place: told for place, told in served.items() if place in there}  # requests are counted longer than that


def _add(told: JsonObject, name: str, labels: dict[str, str], value: float) -> None:
    match name:
        case "ready":
            told["ready"] = value == 1
        case "queue_depth":
            told["queued"] = int(value)
        case "running":
            told["running"] = int(value)
        case "stage_seconds_count" if labels["stage"] == "image_encode":
            told["pictures"] = int(value)
        case "request_seconds_bucket" if labels["dialect"] in ("openai", "huggingface"):
            told["latency"][labels["le"]] = told["latency"].get(labels["le"], 0.0) + value
