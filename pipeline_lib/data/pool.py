"""Work on several cores, with results in order."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipeline_lib.exits import TryAgain

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int | None = None
) -> Generator[Result, None, None]:
    """Results of all jobs in their order, computed by one process a core, a few jobs ahead of the reader.

    Processes, not threads: decoding releases the interpreter lock, but opening small files does not. Forked where that
    is safe: a spawned one first imports the main program again, in the time of thousands of small images.
    Raises TryAgain where a process was killed.
    """
    workers = workers or cores()
    if workers == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
            ahead: deque[Future[Result]] = deque()
            for job in jobs:
                ahead.append(pool.submit(work, job))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
    except BrokenProcessPool:
        raise TryAgain("a decoding process was killed, most likely for memory; raise runtime.memory_mb.") from None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _follow_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when the parent was killed (a pool's workers would stay)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
