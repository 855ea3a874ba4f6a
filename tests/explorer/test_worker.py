import threading
from collections.abc import Iterator

import pytest

from unibrain.errors import InputError
from unibrain.explorer.worker import Job, Worker


@pytest.fixture
def failed() -> list[Exception]:
    return []


@pytest.fixture
def worker(failed: list[Exception]) -> Iterator[Worker]:
    made = Worker(failed.append)
    yield made
    made.close()


class Gate:
    """A job that tells when it runs, and goes on when it may."""

    def __init__(self) -> None:
        self.runs, self.may = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> str:
        self.runs.set()
        assert self.may.wait(10)
        job.show("shown")
        return "result"


def finish(job: Job) -> Job:
    job.wait(99, 10)
    assert job.over
    return job


def test_jobs_are_done_in_order_and_shown_while_they_run(worker: Worker) -> None:
    gate, order = Gate(), list[str]()
    first = worker.submit("first", gate)
    assert gate.runs.wait(10)
    others = [worker.submit(name, lambda job: order.append(job.key)) for name in ("second", "third")]
    assert [worker.ahead(job) for job in (first, *others)] == [0, 1, 2]
    gate.may.set()
    for job in (first, *others):
        finish(job)
    assert (first.state, first.result, first.events, order) == ("done", "result", ["shown"], ["second", "third"])


def test_the_same_request_is_one_job_until_nobody_waits_for_it(worker: Worker) -> None:
    gate, again = Gate(), Gate()
    job = worker.submit("key", gate)
    assert worker.submit("key", again) is job
    assert gate.runs.wait(10)
    worker.leave(job)
    gate.may.set()
    assert finish(job).state == "done"
    assert not again.runs.is_set()
    again.may.set()
    assert finish(worker.submit("key", again)).state == "done"  # what is done is asked for anew


def test_a_running_job_ends_at_its_next_step_and_a_waiting_one_at_once(worker: Worker) -> None:
    gate, never = Gate(), Gate()
    running = worker.submit("running", gate)
    waiting = worker.submit("waiting", never)
    assert gate.runs.wait(10)
    worker.leave(waiting)
    assert waiting.state == "cancelled"
    worker.leave(running)
    gate.may.set()
    assert finish(running).state == "cancelled"
    assert running.events == []
    assert not never.runs.is_set()


def test_a_mistake_of_the_user_is_its_sentence_and_one_of_ours_is_reported(
    worker: Worker, failed: list[Exception]
) -> None:
    def wrong(_: Job) -> None:
        raise InputError("steps is 0")

    def broken(_: Job) -> None:
        raise ZeroDivisionError("secret path")

    assert (finish(worker.submit("wrong", wrong)).error, failed) == ("steps is 0", [])
    job = finish(worker.submit("broken", broken))
    assert job.state == "failed"
    assert "secret" not in job.error
    assert [type(error) for error in failed] == [ZeroDivisionError]


def test_a_queue_has_an_end_and_closing_cancels_all(failed: list[Exception]) -> None:
    worker, gate = Worker(failed.append), Gate()
    running = worker.submit("running", gate)
    assert gate.runs.wait(10)
    waiting = [worker.submit(str(number), Gate()) for number in range(64)]
    with pytest.raises(InputError, match="64 requests are waiting"):
        worker.submit("one more", Gate())
    threading.Timer(0.05, gate.may.set).start()
    worker.close()
    assert {job.state for job in (running, *waiting)} == {"cancelled"}
