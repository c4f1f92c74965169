"""Being asked to end: by the user (SIGINT), or by a scheduler, a container or a kill (SIGTERM).

A signal raises `Interrupted` wherever the program is, so that drafts are removed and locks released. A
library that computes for long without looking up is not waited for: what is published is whole
whenever a process ends. Where it pays to end in order, the program says so (`deferred`), and asks
itself from time to time. A second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
RISING_SECONDS = 3.0  # from a signal until the program has looked up
ENDING_SECONDS = 10.0  # from then on until it has removed its drafts and ended
SAYING_SECONDS = 1.0  # for the sentence to be written
AGAIN_SECONDS = 0.01  # until what was swallowed is raised again

_asked: int | None = None  # the signal that came
_raised_at: float | None = None
_deferring = 0
_ending = threading.Lock()
_own = 0  # signals that this process has sent itself


class Interrupted(KeyboardInterrupt):
    """This process was asked to end.

    Attributes:
      number: of the signal.
      status: the exit status that tells so.
    """

    def __init__(self, number: int, how: str = ""):
        """`how` the program ended in order, as a sentence begun; "" where it did not."""
        name = signal.Signals(number).name
        super().__init__(f"ended by {name}{how}; the same command goes on from whatever is saved.")
        self.number = number

    @property
    def status(self) -> int:
        return 128 + self.number


def listen() -> None:
    """Makes SIGTERM and SIGINT raise `Interrupted` in this, the main thread; one that is ignored stays so."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    sys.unraisablehook = _on_unraisable
    threading.Thread(target=_watch, args=(reading,), daemon=True, name="signals").start()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """In the block the first signal raises nothing: the block asks for it, and ends when that suits it.

    Raises:
      Interrupted: when the block ends well, and there was a signal.
    """
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
    if _asked is not None and not _deferring:
        raise Interrupted(_asked)


def asked() -> int | None:
    """The signal that asked this process to end, if one did."""
    return _asked


def _interrupt(number: int, frame: object) -> None:
    global _asked, _raised_at
    if _asked is not None:
        _end_at_once(number)
    _asked = number
    if not _deferring:
        _raised_at = time.monotonic()
        raise Interrupted(number)


def _on_unraisable(swallowed: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while it collects garbage: the signal comes again, a moment later."""
    if isinstance(swallowed.exc_value, Interrupted):
        threading.Timer(AGAIN_SECONDS, _send_again, (swallowed.exc_value.number,)).start()
    else:
        sys.__unraisablehook__(swallowed)


def _send_again(number: int) -> None:
    global _asked, _own
    _own += 1
    _asked = None
    signal.pthread_kill(threading.main_thread().ident, number)  # pyright: ignore[reportArgumentType]


def _watch(reading: int) -> None:
    """Sees signals that the main thread is too busy for: its handler runs between two lines of Python only."""
    global _own
    known = {int(number) for number in SIGNALS}
    count = 0
    while True:
        for number in os.read(reading, 64):
            if number in known and _own:
                _own -= 1
                continue
            count += number in known
            if count == 1 and not _deferring:
                threading.Thread(target=_allow, args=(number,), daemon=True, name="signal").start()
            elif count > 1:
                _end_at_once(number)


def _allow(number: int) -> None:
    """The time that a program has which was not prepared for a signal."""
    time.sleep(RISING_SECONDS)
    if _raised_at is not None:
        time.sleep(max(0.0, _raised_at + ENDING_SECONDS - time.monotonic()))
    _end_at_once(number)


def _end_at_once(number: int) -> None:
    if not _ending.acquire(blocking=False):  # the other thread says so just now
        time.sleep(SAYING_SECONDS)
        os._exit(128 + number)
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{name}: {Interrupted(number)}\n".encode("utf-8", "replace"))
    os._exit(128 + number)
