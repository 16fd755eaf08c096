"""An executor without threads: jobs wait until a test runs them, so that a run depends on nothing but its seed."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class StepPool(Executor):
    """Runs one job at a time in the caller's thread, when `step` is called."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        self._jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self, index: int = 0) -> None:
        """Run the job at `index` of those that wait."""
        future, job = self._jobs.pop(index)
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = job()
        except BaseException as error:  # whoever waits for the job gets it, whatever it is
            future.set_exception(error)
        else:
            future.set_result(result)


class InlinePool(StepPool):
    """Runs every job at once."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future = super().submit(fn, *args, **kwargs)
        self.step()
        return future
