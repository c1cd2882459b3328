"""What is counted, for Prometheus. Nothing is labelled by task, of which there may be a million."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOGETHER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Metrics:
    """One server's counters, in a registry of their own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter("weft_requests", "answered requests", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "weft_request_seconds", "until a request was answered", ["route"], registry=own, buckets=SECONDS
        )
        self.first_piece = Histogram(
            "weft_first_piece_seconds", "until a stream began", registry=own, buckets=SECONDS
        )
        self.refused = Counter("weft_refused", "requests that were not admitted", ["reason"], registry=own)
        self.failed = Counter("weft_failed", "admitted requests without an answer", ["reason"], registry=own)
        self.answers = Counter("weft_answers", "answers given", ["finish"], registry=own)
        self.tokens = Counter("weft_tokens", "tokens read and written", ["kind"], registry=own)
        self.late = Counter("weft_late_answers", "answers that nobody waited for any more", registry=own)
        self.mismatched = Counter(
            "weft_mismatched_answers", "answers withheld: not of the question", registry=own
        )
        self.waiting = Gauge("weft_waiting_answers", "answers that wait for their turn", registry=own)
        self.waiting_tokens = Gauge("weft_waiting_tokens", "tokens, as estimated, that wait", registry=own)
        self.running = Gauge("weft_running_answers", "answers that the model works on", registry=own)
        self.tasks_together = Histogram(
            "weft_tasks_together",
            "different tasks that the model works on at once",
            registry=own,
            buckets=TOGETHER,
        )
        self.restarts = Counter(
            "weft_worker_restarts", "workers that were replaced", ["reason"], registry=own
        )
        self.reloads = Counter("weft_reloads", "new generations of the bank", ["result"], registry=own)
        self.generation = Gauge("weft_bank_generation", "generation that new requests get", registry=own)
        self.tasks = Gauge("weft_bank_tasks", "tasks of that generation", registry=own)
        self.ready = Gauge("weft_ready", "1 while requests are admitted", registry=own)

    def text(self) -> bytes:
        """In Prometheus' own form."""
        return generate_latest(self.registry)
