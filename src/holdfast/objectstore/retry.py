"""Asking again, later and later, but not for ever."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from holdfast.objectstore.store import NotConnectedError, ThrottledError, UnreachableError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Retry:
    """When to ask again: the wait doubles, a random half of it is left out, so that many clients do not meet again.

    Attributes:
        attempts: how often at most, the first time included.
        first_attempts: how often a server is called that has never answered: its name is likely to be wrong.
        first_seconds: the wait after the first failure.
        longest_seconds: the longest wait.
        throttled_seconds: the shortest wait after 429: R2 takes one write a second for one key.
        limit_seconds: since the first attempt; after it only a second one begins.
        sleep: waits for that many seconds.
        clock: seconds that only grow.
        jitter: a number from 0 to 1.
    """

    attempts: int = 8
    first_attempts: int = 3
    first_seconds: float = 0.2
    longest_seconds: float = 15.0
    throttled_seconds: float = 1.0
    limit_seconds: float = 180.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def run(self, attempt: Callable[[], Result], *, known: bool = True) -> Result:
        """What ``attempt`` returns, called again while it raises `UnreachableError`.

        Args:
            attempt: what is tried.
            known: the server has answered before.

        Raises:
            UnreachableError: of the last attempt.
            Exception: any other that it raises, at once.
        """
        start = self.clock()
        number = 1
        while True:
            try:
                return attempt()
            except UnreachableError as error:
                wait = self._wait(number, throttled=isinstance(error, ThrottledError))
                unknown = not known and isinstance(error, NotConnectedError)
                attempts = min(self.attempts, self.first_attempts) if unknown else self.attempts
                late = number > 1 and self.clock() - start + wait > self.limit_seconds
                if number >= attempts or late:
                    raise
                self.sleep(wait)
            number += 1

    def _wait(self, number: int, *, throttled: bool) -> float:
        wait: float = min(self.longest_seconds, self.first_seconds * 2.0 ** (number - 1)) * (1 + self.jitter()) / 2
        return max(wait, self.throttled_seconds * (1 + self.jitter() / 2)) if throttled else wait
