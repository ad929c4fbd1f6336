from __future__ import annotations

from pathlib import Path

from sqlalchemy import text
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.server.online_endpoints import OnlineEndpoints
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


def test_an_error_that_no_one_foresaw_is_still_arms_json(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    online = OnlineEndpoints(settings)
    app = create_app(settings, FakeDispatcher(), online)  # type: ignore[arg-type]
    with online.plane.database.transaction() as session:
        session.execute(text("DROP TABLE connections"))

    with TestClient(app, raise_server_exceptions=False) as client:
        headers = {"Authorization": f"Bearer {online.plane.admin_token}"}
        response = client.get(f"{WORKSPACE}/connections", headers=headers)

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "InternalServerError"
    assert "DROP" not in response.text
    assert "sqlite" not in response.text
