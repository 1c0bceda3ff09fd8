"""A thread for the steps of polled stories that block, kept from one story to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from scsiusb import ledger
from scsiusb.base.waits import join

Job = Callable[[], object]


class Helper:
    """Performs one job after the other in a thread, which begins with the first job; its owner closes it.

    To start a thread and to wait for its end takes several times as long as a job for one that waits already.
    """

    def __init__(self, wake: Job, what: str) -> None:
        """`wake`: tells the poll loop, from any thread, that a story has moved on. `what`: for the ledger."""
        self.wake = wake
        self._entry = ledger.entry("thread", what)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # reentrant: a signal handler may come at any point
        self._threads: list[threading.Thread] = []
        """One; more if Ctrl-C interrupted the start of one, which may still begin."""

    def perform(self, job: Job) -> None:
        """Perform the job in the thread, after those before it; it must not raise. Raise RuntimeError without a thread.

        If this raises, the job may be performed nevertheless.
        """
        if not any(thread.is_alive() for thread in self._threads):
            self._start()
        self._jobs.put(job)

    def _start(self) -> None:
        thread = threading.Thread(target=_perform, args=(self._jobs,), name="scsiusb recovery", daemon=True)
        self._threads.append(thread)
        self._entry.hold()
        thread.start()

    def close(self) -> None:
        """End the thread after the job that it performs, and wait for that. May be called again."""
        for _ in self._threads:  # one that begins only now ends at once, too
            self._jobs.put(None)
        for thread in self._threads:
            join(thread)
        self._entry.release()


def _perform(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it refers to the story, and must not keep it until the next one comes
