"""How jobs are handed out: the fleet's own logic, with workers that do nothing but end as they are told."""

import contextlib
import threading

import pytest

from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.fleet import Ended, Failures, Fleet, Gone
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.workers import Failed, Lost, Made, Stopped

PATIENCE = 60.0


class Scripted:
    """Ends each job with what `script` says of its order; Made when it says nothing."""

    def __init__(self, name, script=lambda order, stop: None):
        self.name, self._script, self.seen = name, script, []

    def run(self, order, stop):
        self.seen.append(order.graph)
        return self._script(order, stop) or Made(b"", (), 0.0, self.name, "")


@pytest.fixture
def jobs(describe):
    return all_jobs(read_description(str(describe(seeds=[1, 2, 3])), Overrides()))


def ended(events):
    return [event.job.key for event in events if isinstance(event, Ended)]


def test_every_job_ends_once(jobs):
    workers = [Scripted("a"), Scripted("b"), Scripted("c")]
    keys = ended(Fleet(workers).run(jobs))
    assert sorted(keys) == sorted(job.key for job in jobs)
    assert sum(len(worker.seen) for worker in workers) == len(jobs)


def test_the_job_of_a_lost_worker_is_done_by_another(jobs):
    """It is lost when the other has nothing else left to do: it must have waited."""
    taken, all_others_done = threading.Event(), threading.Event()

    def is_lost(order, stop):
        taken.set()
        assert all_others_done.wait(PATIENCE)
        return Lost("gone")

    def works(order, stop):
        assert taken.wait(PATIENCE)
        if len(other.seen) == len(jobs) - 1:
            all_others_done.set()

    dying, other = Scripted("dying", is_lost), Scripted("other", works)
    events = list(Fleet([dying, other]).run(jobs))
    assert [event for event in events if isinstance(event, Gone)] == [Gone("dying", "gone")]
    assert sorted(ended(events)) == sorted(job.key for job in jobs)
    assert len(dying.seen) == 1
    assert other.seen[-1] == dying.seen[0]


def test_nobody_is_left(jobs):
    events = list(Fleet([Scripted("a", lambda *_: Lost("x")), Scripted("b", lambda *_: Lost("y"))]).run(jobs))
    assert sorted(event.reason for event in events) == ["x", "y"]


def test_leaving_early_stops_the_workers(jobs):
    """A worker that waits for `stop` is let go; what ended meanwhile is still there."""
    begun = threading.Event()

    def waits(order, stop):
        begun.set()
        assert stop.wait(PATIENCE)
        raise Stopped

    def ends_late(order, stop):
        assert stop.wait(PATIENCE)

    fleet = Fleet([Scripted("quick"), Scripted("waits", waits), Scripted("late", ends_late)])
    with contextlib.closing(fleet.run(jobs)) as events:
        first = next(events)
        assert begun.wait(PATIENCE)
    rest = list(fleet.leftover())
    assert isinstance(first, Ended)
    keys = ended([first, *rest])
    assert len(keys) == len(set(keys)) >= 1
    assert not [thread for thread in threading.enumerate() if thread.name in ("quick", "waits", "late")]


def test_a_picture_that_is_gone_fails_its_job_alone(tmp_path, describe):
    from .test_description import files_of, picture

    for i in range(3):
        picture(tmp_path / "animal" / f"{i}.png", seed=i)
    jobs = all_jobs(read_description(str(describe(**files_of())), Overrides()))
    (tmp_path / "animal" / "1.png").unlink()
    outcomes = [event.outcome for event in Fleet([Scripted("a")]).run(jobs)]
    assert [type(outcome) for outcome in outcomes] == [Made, Made, Failed, Failed, Made, Made]
    assert "1.png does not exist" in outcomes[2].reason


def test_a_method_that_never_works_ends_the_run(jobs):
    failures = Failures()
    failures.note(Ended(jobs[0], Failed("why")))
    failures.note(Ended(jobs[1], Failed("why")))
    with pytest.raises(ValueError, match="method 'baseline' failed 3 times and never worked: why"):
        failures.note(Ended(jobs[2], Failed("why")))
    failures = Failures()
    failures.note(Ended(jobs[0], Made(b"", (), 0.0, "", "")))
    for job in jobs:
        failures.note(Ended(job, Failed("why")))
