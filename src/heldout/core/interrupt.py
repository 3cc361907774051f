"""Ctrl-C as a request: the first lets the current step end, the second stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Truthy once the user has asked to stop, or once ``also`` says so."""

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self.asked = False
        self.also = also

    def __bool__(self) -> bool:
        return self.asked or self.also()


_in_force: list[StopRequest] = []


def ask_to_stop() -> None:
    """What the first Ctrl-C does, from any thread: requests in force, and later ones in them."""
    for request in list(_in_force):
        request.asked = True


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM set the request; the earlier handlers are put back on leaving.

    In a thread other than the main one, signals cannot be caught and only ``ask_to_stop`` sets it.
    """
    request = StopRequest()
    request.asked = any(outer.asked for outer in _in_force)

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    _in_force.append(request)
    try:
        if threading.current_thread() is not threading.main_thread():
            yield request
            return
        earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield request
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
    finally:
        _in_force.remove(request)
