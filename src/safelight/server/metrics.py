"""Prometheus metrics: what HTTP saw is counted here, what the replicas did is read from the dispatcher when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from safelight.api.dialect import owner_of
from safelight.api.dialects import PICTURES, all_dialects
from safelight.control.jobs.queue import JobQueue
from safelight.control.store.tables import JobState
from safelight.serving.dispatcher import Dispatcher, Snapshot

PATH = "/metrics"
HEALTH = "health"
"""The dialect of those who only look how the server is."""
PLACE = ("endpoint", "deployment")
"""The labels of what deployments do. The server's own model has none of them, as if there were no endpoints."""
Place = tuple[str, str]
Measured = Sequence[tuple[Sequence[str], Snapshot]]
LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180)


class RequestMetrics(Collector):
    """Requests by dialect and status, and how long they took; those of endpoints by endpoint and deployment too.

    Of what is not there any more, nothing is kept: endpoints that come and go would make series without end.
    """

    def __init__(self, registry: CollectorRegistry, is_there: Callable[[Place], bool] = lambda _: True) -> None:
        self._is_there = is_there
        self._own = _RequestCounts(())
        self._of_endpoints = _RequestCounts(PLACE)
        registry.register(self)

    def observe(self, request: Request, *, status: int, seconds: float) -> None:
        endpoint, deployment = place_of(request)
        dialect = self.dialect_of(request)
        if endpoint:
            self._of_endpoints.observe(dialect, status, seconds, (endpoint, deployment))
        else:
            self._own.observe(dialect, status, seconds, ())

    def collect(self) -> Iterator[Metric]:
        """Under one name, so that the sum over all labels is that over all requests."""
        self._of_endpoints.forget(lambda place: not self._is_there(place))
        for own, of_endpoints in zip(self._own.collect(), self._of_endpoints.collect(), strict=True):
            own.samples.extend(of_endpoints.samples)
            yield own

    def latency_of(self, place: Place) -> dict[str, float]:
        """Requests for pictures of a deployment that were answered: seconds -> those that took no longer."""
        counts: dict[str, float] = {}
        names = {each.name for each in PICTURES}
        for metric in self.collect():
            for sample in metric.samples:
                labels = sample.labels
                where = (labels.get("endpoint", ""), labels.get("deployment", ""))
                if sample.name.endswith("_bucket") and where == place and labels["dialect"] in names:
                    counts[labels["le"]] = counts.get(labels["le"], 0.0) + sample.value
        return counts

    def dialect_of(self, request: Request) -> str:
        path = request.scope["path"]
        if path.startswith("/health") or (path == "/" and request.method in ("GET", "HEAD")):
            return HEALTH
        owner = owner_of(path, all_dialects())
        return owner.name if owner else "other"


class _RequestCounts:
    """With labels of their own after dialect and status."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._requests = Counter(
            "safelight_requests",
            "Requests answered; 499: the client left",
            ["dialect", "status", *labels],
            registry=None,
        )
        self._seconds = Histogram(
            "safelight_request_seconds",
            "From a request's first byte to the end of its answer",
            ["dialect", *labels],
            buckets=LATENCY_BUCKETS_S,
            registry=None,
        )
        self._places: dict[tuple[str, ...], set[tuple[str, str]]] = {}
        """Dialects and statuses that were counted of each."""

    def observe(self, dialect: str, status: int, seconds: float, place: tuple[str, ...]) -> None:
        self._places.setdefault(place, set()).add((dialect, str(status)))
        self._requests.labels(dialect, str(status), *place).inc()
        self._seconds.labels(dialect, *place).observe(seconds)

    def forget(self, is_gone: Callable[[Place], bool]) -> None:
        for endpoint, deployment in [each for each in self._places if is_gone((each[0], each[1]))]:
            counted = self._places.pop((endpoint, deployment))
            for dialect, status in counted:
                self._requests.remove(dialect, status, endpoint, deployment)
            for dialect in {dialect for dialect, _ in counted}:
                self._seconds.remove(dialect, endpoint, deployment)

    def collect(self) -> list[Metric]:
        return [*self._requests.collect(), *self._seconds.collect()]


def place_of(request: Request) -> tuple[str, str]:
    """The endpoint and the deployment that a request was for, as far as the gateway found them; empty if it did not."""
    state = request.scope.get("state", {})
    return state.get("endpoint", ""), state.get("deployment", "")


def create_router(registry: CollectorRegistry) -> APIRouter:
    """`/metrics`."""
    router = APIRouter(tags=["Health"])

    @router.get(PATH, summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


class DispatcherCollector(Collector):
    """Reads the counters of one or more dispatchers at each scrape, and labels those of deployments."""

    def __init__(self, own: Dispatcher, deployments: Callable[[], Mapping[Place, Dispatcher]] = dict) -> None:
        self._own = own
        self._deployments = deployments

    def collect(self) -> Iterator[Metric]:
        served = [([], self._own), *((list(place), each) for place, each in self._deployments().items())]
        measured = [(labels, each.is_available, each.snapshot()) for labels, each in served]
        for name, text, values in (
            ("ready", "1 when a picture can be made", [float(is_available) for _, is_available, _ in measured]),
            ("queue_depth", "Requests that wait for a replica", [each.queued for _, _, each in measured]),
            ("running", "Requests in a replica", [each.running for _, _, each in measured]),
        ):
            gauge = GaugeMetricFamily(f"safelight_{name}", text, labels=PLACE)
            for (labels, _, _), value in zip(measured, values, strict=True):
                gauge.add_metric(labels, value)
            yield gauge
        snapshots = [(labels, snapshot) for labels, _, snapshot in measured]
        yield from _totals(snapshots)
        yield _batch_rows(snapshots)
        yield _stage_seconds(snapshots)


class JobCollector(Collector):
    """Counts the jobs of the queue at each scrape."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        count = self._queue.count()
        live = GaugeMetricFamily("safelight_jobs", "Jobs that wait or run", labels=["state"])
        ended = CounterMetricFamily("safelight_jobs_ended", "Jobs that have ended, by how", labels=["state"])
        for state, number in count.items():
            (live if state in (JobState.QUEUED, JobState.RUNNING) else ended).add_metric([state.value], number)
        yield live
        yield ended


def _totals(measured: Measured) -> Iterator[Metric]:
    for name, text in (
        ("transformer_calls", "Forward passes of the transformer"),
        ("steps_run", "Denoising steps, counted for each image"),
        ("steps_saved", "Denoising steps not run because the client left or time was up"),
        ("prompt_cache_hits", "Prompts whose embeddings were in the cache"),
        ("prompt_cache_misses", "Prompts that were encoded"),
        ("replica_restarts", "Replica processes started again"),
    ):
        family = CounterMetricFamily(f"safelight_{name}", text, labels=PLACE)
        for labels, snapshot in measured:
            family.add_metric(labels, getattr(snapshot.counters, name))
        yield family


def _batch_rows(measured: Measured) -> Metric:
    family = HistogramMetricFamily(
        "safelight_batch_rows", "Rows of each transformer call; a guided image has two", labels=PLACE
    )
    for labels, snapshot in measured:
        calls_by_rows = snapshot.counters.batch_sizes
        buckets, num_calls = [], 0
        for rows, calls in sorted(calls_by_rows.items()):
            num_calls += calls
            buckets.append((str(float(rows)), float(num_calls)))
        total = sum(rows * calls for rows, calls in calls_by_rows.items())
        family.add_metric(labels, [*buckets, ("+Inf", float(num_calls))], total)
    return family


def _stage_seconds(measured: Measured) -> Metric:
    family = SummaryMetricFamily("safelight_stage_seconds", "Time in each stage of a picture", labels=["stage", *PLACE])
    for labels, snapshot in measured:
        for stage, time in snapshot.counters.stages.items():
            family.add_metric([stage, *labels], time.count, time.seconds)
    return family
