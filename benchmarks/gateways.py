"""How long until a change at one gateway holds at another: `python -m benchmarks.gateways`.

Real servers with FakeEngine over one PostgreSQL from a wheel. A change is timed from its answer at one gateway to the
first answer of another that shows it; the other is asked without a pause.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.e2e.gateways import gateways, serve_flux
from tests.e2e.online_client import OnlineClient
from tests.postgresql import postgresql


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=100)
    changes = parser.parse_args().changes
    with (
        postgresql() as database,
        tempfile.TemporaryDirectory() as folder,
        gateways(Path(folder), database.url, names="abc") as (a, b, c),
    ):
        serve_flux(a.client, Path(folder) / "model")
        for each in (b, c):
            each.client.wait_until_it_draws(a.client.key())
        print("| change | median | 95 of 100 | longest |\n|---|---|---|---|")
        _tell("a key, from the leader to a follower", changes, lambda _: _rotate(a.client, b.client))
        _tell("a key, from a follower to another", changes, lambda _: _rotate(b.client, c.client))
        _tell("traffic, from a follower to the leader", changes, lambda turn: _move(b.client, a.client, turn))
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute("ALTER TABLE endpoints DISABLE TRIGGER safelight_tell")
        _tell("a key, without any notification", changes, lambda _: _rotate(a.client, b.client))


def _tell(what: str, changes: int, change: Callable[[int], float]) -> None:
    times = sorted(change(turn) for turn in range(changes))
    late = times[int(0.95 * (len(times) - 1))]
    print(f"| {what} | {statistics.median(times) * 1000:.0f} ms | {late * 1000:.0f} ms | {times[-1] * 1000:.0f} ms |")


def _rotate(at: OnlineClient, seen_by: OnlineClient) -> float:
    old = at.key()
    assert at.arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Primary"}).is_success
    return _seconds_until(lambda: _status(seen_by, old) == 401)


def _move(at: OnlineClient, seen_by: OnlineClient, turn: int) -> float:
    """All traffic to blue, or to nobody: what is asked without a deployment is 404 then."""
    percent, status = (100, 200) if turn % 2 else (0, 404)
    body = {"location": "local", "properties": {"authMode": "Key", "traffic": {"blue": percent}}}
    answer = at.arm("PUT", "/onlineEndpoints/flux", body)
    key = at.key()
    seconds = _seconds_until(lambda: _status(seen_by, key) == status)
    at.finish(answer)
    return seconds


def _status(client: OnlineClient, key: str) -> int:
    return client.get("/endpoints/flux/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def _seconds_until(holds: Callable[[], bool]) -> float:
    began_at = time.perf_counter()
    while not holds():
        pass
    return time.perf_counter() - began_at


if __name__ == "__main__":
    main()
