"""/metrics: everything is brought up to date when somebody asks, and costs nothing otherwise."""

from __future__ import annotations

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dispatch_controller import __version__
from dispatch_controller.fleet.traffic import Traffic
from dispatch_controller.loops.context import Context
from dispatch_controller.store import measures, tasks
from dispatch_controller.store.measures import Measured

CONTENT_TYPE = CONTENT_TYPE_LATEST
MOST_WAITING = 200_000
"""Tasks whose time of becoming runnable is remembered."""

_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_EVENTS = {
    "task_claimed": ("dispatches", "Attempts leased to a node."),
    "task_running": ("starts", "Attempts whose process a node confirmed."),
    "task_completed": ("completions", "Attempts that ended well."),
    "task_retry": ("retries", "Retries decided for failed tasks."),
    "task_deadletter": ("deadletters", "Tasks given up."),
    "stale_report": ("stale_reports", "Reports of an older attempt, which changed nothing."),
}


class Metrics:
    """The registry of one controller. Counters count from the start of the process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = trio.Lock()
        self._last_id: int | None = None
        self._runnable: dict[str, float] = {}
        self._restarts: dict[str, int] = {}
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"dispatch_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"dispatch_{name}", text, labels, registry=registry)

        def histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = _QUICK
        ) -> Histogram:
            return Histogram(f"dispatch_{name}", text, labels, registry=registry, buckets=buckets)

        gauge("info", "What runs.", "version").labels(__version__).set(1)
        self._tasks = gauge("tasks", "Tasks by status.", "status")
        self._counters = {event: counter(name, text) for event, (name, text) in _EVENTS.items()}
        self._failures = counter("failures", "Failed attempts by whose fault it was.", "cause")
        self._loop_age = gauge(
            "loop_age_seconds", "Since the end of a loop's last good step.", "loop"
        )
        self._loop_interval = gauge("loop_interval_seconds", "A loop's interval.", "loop")
        self._loop_restarts = counter("loop_restarts", "Failures of a loop.", "loop")
        self._loop_duration = histogram("loop_duration_seconds", "A loop's good steps.", "loop")
        self._write_wait = histogram(
            "write_queue_wait_seconds", "From a write's queueing to its commit."
        )
        self._write_batch = histogram(
            "write_batch_size", "Writes committed together.", buckets=_SIZES
        )
        self._write_depth = gauge("write_queue_depth", "Writes that wait.")
        self._dispatch_latency = histogram(
            "dispatch_latency_seconds", "From runnable to running.", buckets=_LATENCY
        )
        self._report_latency = histogram(
            "report_latency_seconds", "From finished to recorded.", buckets=_LATENCY
        )
        self._node_up = gauge("node_up", "Whether a node answered lately.", "node")
        self._node_slots = gauge("node_slots", "Slots of a node.", "node")
        self._round_trips = counter(
            "ssh_round_trips", "Calls of an SSH node that it answered.", "node"
        )
        self._ssh_failures = counter(
            "ssh_failures", "Calls of an SSH node without an answer.", "node"
        )
        self._round_trip = histogram(
            "ssh_round_trip_seconds", "Answered calls of an SSH node.", "node"
        )

    async def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        async with self._lock:
            await self._read_events()
            counts = await self._context.store.read(tasks.counts)
            for status, number in counts.items():
                self._tasks.labels(status).set(number)
            self._observe_loops()
            self._observe_writes()
            self._observe_nodes()
            return generate_latest(self._registry)

    async def _read_events(self) -> None:
        store = self._context.store
        if self._last_id is None:
            self._last_id = await store.read(measures.first_id, self._context.started_at)
        more = True
        while more:
            measured = await store.read(measures.measure, self._last_id)
            self._last_id, more = measured.last_id, measured.more
            self._observe_events(measured)

    def _observe_events(self, measured: Measured) -> None:
        for event, counter in self._counters.items():
            counter.inc(measured.counts.get(event, 0))
        for cause, number in measured.failures.items():
            self._failures.labels(cause).inc(number)
        for latency in measured.report_latencies:
            self._report_latency.observe(latency)
        for task, at in measured.runnable.items():
            if task not in measured.started or at <= measured.started[task]:
                self._runnable[task] = at
        for task, at in measured.started.items():
            # One that was there before this process, and waited for nothing since, is not timed.
            since = [self._runnable.pop(task, None), measured.parents_done.get(task)]
            known = [moment for moment in since if moment is not None and moment <= at]
            if known:
                self._dispatch_latency.observe(at - max(known))
        while len(self._runnable) > MOST_WAITING:
            del self._runnable[next(iter(self._runnable))]

    def _observe_loops(self) -> None:
        context = self._context
        now = context.clock.wall()
        for name, stats in context.stats.items():
            if stats.interval:
                since = max(stats.last_ok or 0.0, context.started_at)
                self._loop_age.labels(name).set(max(0.0, now - since))
                self._loop_interval.labels(name).set(stats.interval)
            durations, stats.durations = stats.durations, []
            histogram = self._loop_duration.labels(name)
            for seconds in durations:
                histogram.observe(seconds)
            self._loop_restarts.labels(name).inc(stats.restarts - self._restarts.get(name, 0))
            self._restarts[name] = stats.restarts

    def _observe_writes(self) -> None:
        stats = self._context.store.stats
        (waits, stats.waits), (sizes, stats.sizes) = (stats.waits, []), (stats.sizes, [])
        for seconds in waits:
            self._write_wait.observe(seconds)
        for size in sizes:
            self._write_batch.observe(size)
        self._write_depth.set(self._context.store.depth)

    def _observe_nodes(self) -> None:
        context = self._context
        now = context.clock.wall()
        for gauge in (self._node_up, self._node_slots):
            gauge.clear()
        for node in context.knowledge.nodes.values():
            self._node_up.labels(node.name).set(context.knowledge.in_touch(node.name, now))
            self._node_slots.labels(node.name).set(node.slots)
            traffic = getattr(context.fleet.transport(node.name), "traffic", None)
            if isinstance(traffic, Traffic) and node.ssh_host is not None:
                self._observe_traffic(node.name, *traffic.take())

    def _observe_traffic(self, node: str, round_trips: list[float], failures: int) -> None:
        self._round_trips.labels(node).inc(len(round_trips))
        self._ssh_failures.labels(node).inc(failures)
        for seconds in round_trips:
            self._round_trip.labels(node).observe(seconds)
