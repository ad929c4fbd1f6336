"""Prometheus metrics: what HTTP saw is counted here, what the replicas did is read from the dispatcher when asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
from safelight.api.dialects import all_dialects
from safelight.control.jobs.queue import JobQueue
from safelight.control.store.tables import JobState
from safelight.serving.counters import StageName, StageTime
from safelight.serving.dispatcher import Dispatcher

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180)


class RequestMetrics:
    """Requests by dialect and status, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "safelight_requests", "Requests answered; 499: the client left", ["dialect", "status"], registry=registry
        )
        self._seconds = Histogram(
            "safelight_request_seconds",
            "From a request's first byte to the end of its answer",
            ["dialect"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    def observe(self, request: Request, *, status: int, seconds: float) -> None:
        dialect = self._label(request)
        self._requests.labels(dialect, str(status)).inc()
        self._seconds.labels(dialect).observe(seconds)

    def _label(self, request: Request) -> str:
        path = request.scope["path"]
        if path.startswith("/health") or (path == "/" and request.method in ("GET", "HEAD")):
            return "health"
        owner = owner_of(path, all_dialects())
        return owner.name if owner else "other"


def create_router(registry: CollectorRegistry) -> APIRouter:
    """`/metrics`."""
    router = APIRouter(tags=["Health"])

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


class DispatcherCollector(Collector):
    """Reads the dispatcher's counters at each scrape."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[Metric]:
        snapshot = self._dispatcher.snapshot()
        counters = snapshot.counters
        yield GaugeMetricFamily("safelight_ready", "1 when a picture can be made", float(self._dispatcher.is_available))
        yield GaugeMetricFamily("safelight_queue_depth", "Requests that wait for a replica", snapshot.queued)
        yield GaugeMetricFamily("safelight_running", "Requests in a replica", snapshot.running)
        for name, text, value in (
            ("transformer_calls", "Forward passes of the transformer", counters.transformer_calls),
            ("steps_run", "Denoising steps, counted for each image", counters.steps_run),
            ("steps_saved", "Denoising steps not run because the client left or time was up", counters.steps_saved),
            ("prompt_cache_hits", "Prompts whose embeddings were in the cache", counters.prompt_cache_hits),
            ("prompt_cache_misses", "Prompts that were encoded", counters.prompt_cache_misses),
            ("replica_restarts", "Replica processes started again", snapshot.restarts),
        ):
            yield CounterMetricFamily(f"safelight_{name}", text, value)
        yield _batch_rows(counters.batch_sizes)
        yield _stage_seconds(counters.stages)


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


def _batch_rows(calls_by_rows: Mapping[int, int]) -> Metric:
    family = HistogramMetricFamily("safelight_batch_rows", "Rows of each transformer call; a guided image has two")
    buckets, num_calls = [], 0
    for rows, calls in sorted(calls_by_rows.items()):
        num_calls += calls
        buckets.append((str(float(rows)), float(num_calls)))
    total = sum(rows * calls for rows, calls in calls_by_rows.items())
    family.add_metric([], [*buckets, ("+Inf", float(num_calls))], total)
    return family


def _stage_seconds(stages: Mapping[StageName, StageTime]) -> Metric:
    family = SummaryMetricFamily("safelight_stage_seconds", "Time in each stage of a picture", labels=["stage"])
    for stage, time in stages.items():
        family.add_metric([stage], time.count, time.seconds)
    return family
