from __future__ import annotations

import pytest

from safelight.errors import NotReady, ResourceNotFound
from safelight.server.endpoints.router import RoutedEndpoint, Router, choose, digest

FLUX = RoutedEndpoint(
    name="Flux",
    traffic={"blue": 90, "green": 10},
    deployments={"blue": "blue replicas", "green": "green replicas", "red": None},
    key_digests=frozenset({digest("primary"), digest("secondary")}),
)


@pytest.fixture
def router() -> Router[str]:
    router = Router[str]("images.example.org")
    router.publish(FLUX)
    return router


@pytest.mark.parametrize(
    ("path", "host", "key", "rest"),
    [
        ("/endpoints/flux/score", "127.0.0.1:8000", None, "/score"),
        ("/endpoints/FLUX/v1/images/generations", "127.0.0.1", None, "/v1/images/generations"),
        ("/endpoints/flux", "127.0.0.1", None, "/"),
        ("/score", "flux.images.example.org:443", None, "/score"),
        ("/v1/models", "127.0.0.1:8000", "primary", "/v1/models"),
        ("/v1/models", "127.0.0.1:8000", "secondary", "/v1/models"),
    ],
)
def test_a_request_finds_its_endpoint_by_path_host_or_key(
    router: Router[str], path: str, host: str, key: str | None, rest: str
) -> None:
    location = router.locate(path=path, host=host, key=key)

    assert location is not None
    assert (location.endpoint, location.path) == (FLUX, rest)


@pytest.mark.parametrize("key", [None, "another"])
def test_a_request_that_names_no_endpoint_is_for_somebody_else(router: Router[str], key: str | None) -> None:
    assert router.locate(path="/score", host="127.0.0.1", key=key) is None


@pytest.mark.parametrize(
    ("path", "host"), [("/endpoints/nobody/score", "127.0.0.1"), ("/score", "nobody.images.example.org")]
)
def test_an_endpoint_that_is_not_here_is_not_found(router: Router[str], path: str, host: str) -> None:
    with pytest.raises(ResourceNotFound, match="nobody"):
        router.locate(path=path, host=host, key="primary")


def test_an_old_key_names_nothing_after_it_was_replaced(router: Router[str]) -> None:
    router.publish(RoutedEndpoint(name="Flux", traffic={}, key_digests=frozenset({digest("new")})))

    assert router.locate(path="/", host="", key="primary") is None
    assert router.locate(path="/", host="", key="new") is not None


def test_a_removed_endpoint_is_gone_with_its_keys(router: Router[str]) -> None:
    router.remove("flux")

    assert router.locate(path="/", host="", key="primary") is None


@pytest.mark.parametrize(("draw", "name"), [(0.0, "blue"), (0.899, "blue"), (0.9, "green"), (0.999, "green")])
def test_traffic_is_shared_out_by_percent(draw: float, name: str) -> None:
    assert choose(FLUX, None, draw=draw).name == name


def test_the_header_wins_over_traffic_in_any_case() -> None:
    assert choose(FLUX, "Green", draw=0.0).deployment == "green replicas"


def test_without_traffic_or_header_nothing_is_found() -> None:
    idle = RoutedEndpoint(name="flux", traffic={}, deployments={"blue": "blue replicas"})

    with pytest.raises(ResourceNotFound, match="azureml-model-deployment"):
        choose(idle, None)


def test_a_deployment_that_does_not_exist_is_named_beside_those_that_do() -> None:
    with pytest.raises(ResourceNotFound, match="it has: blue, green, red"):
        choose(FLUX, "yellow")


def test_a_deployment_whose_replicas_start_is_not_ready() -> None:
    with pytest.raises(NotReady, match="not ready yet"):
        choose(FLUX, "red")


def test_mirrored_traffic_goes_to_both() -> None:
    mirrored = RoutedEndpoint(
        name="flux",
        traffic={"blue": 100},
        mirror_traffic={"green": 100},
        deployments={"blue": "blue replicas", "green": "green replicas"},
    )

    assert choose(mirrored, None).mirror == "green replicas"
    assert choose(mirrored, "blue").mirror is None
