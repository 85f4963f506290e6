"""Somebody kills the programs of a site, one after the other, and starts each again after a moment."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.soak.site import Site

ALL = "everything"  # as if the power failed


class Chaos:
    """Works in a thread of its own, from now on. `kills` are names of programs, spread over so many seconds."""

    def __init__(self, site: Site, kills: Sequence[str], *, seconds: float, seed: int) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chaos")
        self._work = self._thread.submit(self._kill_all, kills, seconds / (len(kills) + 1))

    def wait(self) -> None:
        """Return when the last one is killed and runs again. Raises what went wrong."""
        self._work.result()
        self._thread.shutdown()

    def _kill_all(self, kills: Sequence[str], pause: float) -> None:
        for name in kills:
            time.sleep(pause * self._random.uniform(0.7, 1))
            victims = list(self._site.programs.values()) if name == ALL else [self._site.programs[name]]
            for program in victims:
                program.kill()
            time.sleep(self._random.uniform(0.5, 2))
            for program in victims:
                program.start()
