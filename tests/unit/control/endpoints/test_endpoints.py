from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from safelight.control.endpoints.deployments import (
    AppliedDeployment,
    DeploymentBody,
    DeploymentSpec,
    delete_deployment,
    desired_spec,
    get_deployment,
    put_deployment,
    read_applied,
    record_applied,
)
from safelight.control.endpoints.endpoints import (
    EndpointSpec,
    Keys,
    delete_endpoint,
    find_endpoint,
    get_endpoint,
    put_endpoint,
    read_keys_of,
    read_token_key,
    regenerate_key,
    show_keys,
)
from safelight.control.endpoints.operations import get_operation, list_operations_in_progress, succeed
from safelight.control.secrets.connections import list_secret_reads
from safelight.control.secrets.encryption import Cipher
from safelight.control.secrets.secret_references import ENFORCE_ACCESS
from safelight.control.store.database import Database
from safelight.control.store.tables import OperationStatus
from safelight.errors import Conflict, InvalidRequest, ResourceNotFound

FLUX = EndpointSpec(name="flux")
BLUE = DeploymentSpec(model="sprite")


def _finish(database: Database) -> None:
    with database.transaction() as session:
        for operation in list_operations_in_progress(session):
            succeed(operation)


def _put(database: Database, cipher: Cipher, spec: EndpointSpec = FLUX) -> None:
    with database.transaction() as session:
        put_endpoint(session, cipher, spec)
    _finish(database)


def _deploy(database: Database, cipher: Cipher, name: str = "blue", *, is_ready: bool = True) -> None:
    with database.transaction() as session:
        deployment, _ = put_deployment(session, DeploymentBody(endpoint_name="flux", name=name, spec=BLUE))
        if is_ready:
            applied = AppliedDeployment(
                endpoint_name="flux", name=name, spec=BLUE, folder=Path("/models/sprite"), environment={"A": "b"}
            )
            record_applied(deployment, cipher, applied)
    _finish(database)


def test_two_operations_on_one_endpoint_at_once_let_one_through(database: Database, cipher: Cipher) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def create() -> None:
        start.wait()
        try:
            with database.transaction() as session:
                put_endpoint(session, cipher, FLUX)
            outcomes.append("accepted")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["accepted", "conflict", "conflict", "conflict"]


def test_a_deployment_waits_for_no_operation_but_is_refused(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_endpoint(session, cipher, FLUX)

    with pytest.raises(Conflict, match="operation in progress"), database.transaction() as session:
        put_deployment(session, DeploymentBody(endpoint_name="flux", name="blue", spec=BLUE))


def test_keys_are_made_and_kept(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)

    with database.transaction() as session:
        keys = read_keys_of(get_endpoint(session, "FLUX"), cipher)
    assert len({keys.primary, keys.secondary}) == 2


def test_regenerating_one_key_leaves_the_other(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)

    with database.transaction() as session:
        endpoint = get_endpoint(session, "flux")
        before = read_keys_of(endpoint, cipher)
        regenerate_key(session, cipher, "flux", "secondary", reader="me")
        after = read_keys_of(endpoint, cipher)

    assert after.primary == before.primary
    assert after.secondary != before.secondary


def test_the_current_key_sent_as_the_new_one_still_makes_a_new_one(database: Database, cipher: Cipher) -> None:
    """azure-ai-ml sends the current value of the key that it wants to be rid of."""
    _put(database, cipher)

    with database.transaction() as session:
        endpoint = get_endpoint(session, "flux")
        before = read_keys_of(endpoint, cipher)
        regenerate_key(session, cipher, "flux", "primary", before.primary, reader="me")

        assert read_keys_of(endpoint, cipher).primary != before.primary


def test_a_key_of_another_endpoint_is_refused_without_saying_whose_it_is(database: Database, cipher: Cipher) -> None:
    _put(database, cipher, EndpointSpec(name="flux", primary_key="key-of-flux"))
    _put(database, cipher, EndpointSpec(name="other", secondary_key="key-of-other"))

    with pytest.raises(InvalidRequest, match="choose another") as on_creation:
        _put(database, cipher, EndpointSpec(name="third", secondary_key="key-of-flux"))
    with pytest.raises(InvalidRequest, match="choose another"), database.transaction() as session:
        regenerate_key(session, cipher, "flux", "secondary", "key-of-other", reader="me")

    assert "flux" not in on_creation.value.message
    with database.transaction() as session:
        assert find_endpoint(session, "third") is None
        assert regenerate_key(session, cipher, "flux", "secondary", "a-key-of-my-own", reader="me") == Keys(
            "key-of-flux", "a-key-of-my-own"
        )


def test_whoever_is_shown_keys_or_gets_a_token_is_in_the_audit_log(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)
    _put(database, cipher, EndpointSpec(name="tokens", auth_mode="aml_token"))

    with database.transaction() as session:
        show_keys(session, cipher, "FLUX", reader="me")
        regenerate_key(session, cipher, "flux", "primary", reader="you")
        read_token_key(session, cipher, "tokens", reader="them")

    with database.transaction() as session:
        lines = [(each.reader, each.connection_name, each.part) for each in list_secret_reads(session)]
    assert lines == [
        ("them", "endpoint tokens", "token"),
        ("you", "endpoint flux", "keys"),
        ("me", "endpoint flux", "keys"),
    ]


@pytest.mark.parametrize("name", ["ab", "1flux", "flux-", "a" * 33, "fl ux", "fl_ux"])
def test_names_follow_azures_rule(name: str) -> None:
    with pytest.raises(InvalidRequest, match="3 to 32"):
        EndpointSpec(name=name)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"traffic": {"blue": 50}}, "0 or 100"),
        ({"traffic": {"blue": 101}}, "0 to 100"),
        ({"traffic": {"blue": 100}, "mirror_traffic": {"green": 51}}, "at most 50"),
        ({"traffic": {"blue": 100}, "mirror_traffic": {"blue": 10}}, "cannot have"),
        ({"mirror_traffic": {"blue": 10, "green": 10}}, "one deployment only"),
        ({"auth_mode": "password"}, "auth_mode"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        EndpointSpec(name="flux", **spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("traffic", [{"green": 100}, {"blue": 100}])
def test_traffic_goes_only_to_deployments_that_have_been_ready(
    database: Database, cipher: Cipher, traffic: dict[str, int]
) -> None:
    _put(database, cipher)
    _deploy(database, cipher, is_ready=False)

    with (
        pytest.raises(InvalidRequest, match=r"has no deployment|never become ready"),
        database.transaction() as session,
    ):
        put_endpoint(session, cipher, replace(FLUX, traffic=traffic))


@pytest.mark.parametrize(
    ("created", "wanted"),
    [({}, "enabled"), ({ENFORCE_ACCESS: "disabled"}, "enabled"), ({ENFORCE_ACCESS: "enabled"}, "disabled")],
)
def test_access_to_secrets_is_decided_when_an_endpoint_is_created(
    database: Database, cipher: Cipher, created: dict[str, str], wanted: str
) -> None:
    _put(database, cipher, replace(FLUX, properties=created))

    with (
        pytest.raises(InvalidRequest, match=f"{ENFORCE_ACCESS}.*cannot be changed.*create a new endpoint"),
        database.transaction() as session,
    ):
        put_endpoint(session, cipher, replace(FLUX, properties={ENFORCE_ACCESS: wanted}))

    with database.transaction() as session:
        assert get_endpoint(session, "flux").properties == created


def test_a_misspelt_answer_to_whether_an_endpoint_may_read_secrets_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'enable'; it must be enabled or disabled"):
        replace(FLUX, properties={ENFORCE_ACCESS: "enable"})


def test_properties_can_be_added_but_not_changed(database: Database, cipher: Cipher) -> None:
    _put(database, cipher, replace(FLUX, properties={"team": "art"}))
    _put(database, cipher, replace(FLUX, properties={"cost": "none"}))

    with database.transaction() as session:
        assert get_endpoint(session, "flux").properties == {"team": "art", "cost": "none"}
    with pytest.raises(InvalidRequest, match="not changed"), database.transaction() as session:
        put_endpoint(session, cipher, replace(FLUX, properties={"team": "sales"}))


def test_the_auth_mode_stays(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)

    with pytest.raises(InvalidRequest, match="cannot be changed"), database.transaction() as session:
        put_endpoint(session, cipher, replace(FLUX, auth_mode="aml_token"))


def test_a_deployment_with_traffic_is_not_deleted(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)
    _deploy(database, cipher)
    _put(database, cipher, replace(FLUX, traffic={"blue": 100}))

    with pytest.raises(Conflict, match="move it first"), database.transaction() as session:
        delete_deployment(session, "flux", "blue")


def test_an_endpoint_has_at_most_twenty_deployments(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)
    for index in range(20):
        _deploy(database, cipher, f"blue{index}")

    with pytest.raises(Conflict, match="20 deployments"), database.transaction() as session:
        put_deployment(session, DeploymentBody(endpoint_name="flux", name="green", spec=BLUE))


@pytest.mark.parametrize(
    "values",
    [
        {"instance_count": 0},
        {"instance_count": 51},
        {"request_timeout_s": 181.0},
        {"max_concurrent_requests_per_instance": 0},
    ],
)
def test_a_deployment_out_of_limits_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        DeploymentSpec(model="sprite", **values)  # type: ignore[arg-type]


def test_a_spec_comes_back_from_the_database_as_it_was(database: Database, cipher: Cipher) -> None:
    _put(database, cipher)
    _deploy(database, cipher)

    with database.transaction() as session:
        assert desired_spec(get_deployment(session, "flux", "blue")) == BLUE
        (applied,) = read_applied(session, cipher, reader="me")
    assert applied.spec == BLUE
    assert applied.environment == {"A": "b"}


def test_what_does_not_exist_is_not_deleted_and_says_so(database: Database) -> None:
    with database.transaction() as session:
        assert delete_endpoint(session, "nobody") is None
        with pytest.raises(ResourceNotFound):
            get_operation(session, "nothing")


def test_an_operation_is_in_progress_until_it_is_finished(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        _, operation = put_endpoint(session, cipher, FLUX)
        assert operation.status is OperationStatus.IN_PROGRESS

    _finish(database)

    with database.transaction() as session:
        assert get_operation(session, operation.id).status is OperationStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("traffic", "mirror_traffic", "remedy"),
    [
        ({"blue": 100}, {}, "--traffic blue=0"),
        ({"blue": 90, "green": 10}, {}, "--traffic green=100"),
        ({"green": 100}, {"blue": 10}, "--mirror-traffic blue=0"),
    ],
)
def test_a_deployment_with_traffic_is_kept_and_the_command_that_frees_it_is_named(
    database: Database, cipher: Cipher, traffic: dict[str, int], mirror_traffic: dict[str, int], remedy: str
) -> None:
    _put(database, cipher)
    _deploy(database, cipher, "blue")
    _deploy(database, cipher, "green")
    _put(database, cipher, replace(FLUX, traffic=traffic, mirror_traffic=mirror_traffic))

    with pytest.raises(Conflict, match=f"{remedy}$"), database.transaction() as session:
        delete_deployment(session, "flux", "blue")
