"""Several workers on one list of jobs: a job goes to whoever is free, and to another one when its server is gone."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from .jobs import Job
from .workers import Failed, Lost, Made, Stopped, Worker

POLL_SECONDS = 0.5  # how soon Ctrl-C is heard
STOP_SECONDS = 60.0
HOPELESS = 3  # failures of a method that never worked


@dataclass(frozen=True)
class Ended:
    """A job and how it went."""

    job: Job
    outcome: Made | Failed


@dataclass(frozen=True)
class Gone:
    """A worker that is lost."""

    name: str
    reason: str


class Fleet:
    """Hands out jobs. A lost worker's job goes back to the front of the list, so none is lost and none is made twice.

    It is for one use: iterate over `run`.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._stop = threading.Event()
        self._events: SimpleQueue[Ended | Gone | None] = SimpleQueue()  # None: a worker has nothing left to do
        self._waiting: deque[Job] = deque()
        self._running = 0
        self._changed = threading.Condition()

    def run(self, jobs: Sequence[Job]) -> Iterator[Ended | Gone]:
        """Yield what happens, as it happens, until every job has ended or every worker is gone.

        When the caller leaves early (Ctrl-C, an error), running jobs are cancelled; `leftover` then gives those that
        ended meanwhile.
        """
        self._waiting.extend(jobs)
        threads = [threading.Thread(target=self._work, args=(w,), name=w.name, daemon=True) for w in self._workers]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                try:
                    event = self._events.get(timeout=POLL_SECONDS)
                except Empty:
                    continue
                if event is None:
                    left -= 1
                else:
                    yield event
        finally:
            self._stop.set()
            with self._changed:
                self._changed.notify_all()
            for thread in threads:
                thread.join(STOP_SECONDS)

    def leftover(self) -> Iterator[Ended]:
        """What ended while the fleet was being stopped."""
        while not self._events.empty():
            if isinstance(event := self._events.get(), Ended):
                yield event

    def _work(self, worker: Worker) -> None:
        try:
            while (job := self._take()) is not None:
                back = [job]
                try:
                    outcome = self._outcome(worker, job)
                    if isinstance(outcome, Lost):
                        self._events.put(Gone(worker.name, outcome.reason))
                        return
                    back = []
                    self._events.put(Ended(job, outcome))
                except Stopped:
                    return
                finally:
                    self._give_back(back)
        finally:
            self._events.put(None)

    def _outcome(self, worker: Worker, job: Job) -> Made | Failed | Lost:
        try:
            order = job.order()
        except ValueError as error:  # the picture is gone since it was checked
            return Failed(str(error))
        return worker.run(order, self._stop)

    def _take(self) -> Job | None:
        """The next job; waits while others run, whose jobs may come back."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or self._waiting or not self._running)
            if self._stop.is_set() or not self._waiting:
                return None
            self._running += 1
            return self._waiting.popleft()

    def _give_back(self, jobs: list[Job]) -> None:
        with self._changed:
            self._running -= 1
            self._waiting.extendleft(jobs)
            self._changed.notify_all()


class Failures:
    """Counts failures; a method that failed several times and never worked ends the run."""

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._worked: set[str] = set()

    def note(self, ended: Ended) -> None:
        """Count one; ValueError when there is no hope for its method."""
        method = ended.job.method.name
        if isinstance(ended.outcome, Made):
            self._worked.add(method)
            return
        self._failed[method] += 1
        if method not in self._worked and self._failed[method] >= HOPELESS:
            raise ValueError(f"method {method!r} failed {HOPELESS} times and never worked: {ended.outcome.reason}")
