"""A gateway of a newer version joins one that runs: as in any update that replaces one after the other."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.e2e.gateways import ENCRYPTION_KEY, gateway, leader_pid, serve_flux
from tests.e2e.online_client import drawing
from tests.e2e.processes import run_safelight
from tests.e2e.test_gateway_faults import send_job, state_of
from tests.postgresql import postgresql
from tests.versions import write_version
from tests.waiting import eventually
from tests.warm import cold

ROOM = {"maxConcurrentRequestsPerInstance": 8}
"""For all who draw at once; Azure's default of 1 would refuse some of them."""


def test_while_a_newer_version_takes_over_no_request_fails_and_what_either_is_asked_for_is_done(tmp_path: Path) -> None:
    newer = write_version(tmp_path / "newer", "9.9.9", migrates=True)
    with postgresql() as database, ExitStack() as stack:
        a = stack.enter_context(gateway(tmp_path / "a", database.url))
        key = serve_flux(a.client, tmp_path / "model", requestSettings=ROOM)
        with drawing(a.client, key) as at_a:
            with cold():
                b = stack.enter_context(gateway(tmp_path / "b", database.url, PYTHONPATH=newer))
            eventually(lambda: leader_pid(database.url) == b.server.pid)
            eventually(lambda: b.client.get("/health/ready").status_code == 200)
            with drawing(b.client, key) as at_b:
                assert a.client.deploy("green", requestSettings=ROOM)["status"] == "Succeeded"
                b.client.create_endpoint(traffic={"green": 100})
                for each in (a.client, b.client):
                    eventually(lambda: each.draw(key).headers["azureml-model-deployment"] == "green")  # noqa: B023
                job = send_job(a.client, key, "at a")
                eventually(lambda: state_of(b.client, key, job) == "succeeded")

        assert {*at_a, *at_b} == {200}
        warned = [line for line in a.server.log if "a newer Safelight has migrated the database" in line]
        assert len(warned) == 1
        assert not [line for each in (a, b) for line in each.server.log if "Traceback" in line]
        settings = {"SAFELIGHT_DATABASE_URL": database.url, "SAFELIGHT_ENCRYPTION_KEYS": ENCRYPTION_KEY}
        again = run_safelight("serve", "--data-dir", str(tmp_path / "again"), "--port", "0", env=settings)
        assert again.returncode == 1
        assert "error: the database was migrated by a newer Safelight than this one; install" in again.stderr
        assert "Traceback" not in again.stderr
