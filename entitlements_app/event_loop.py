"""Whether this code may wait for the database."""

import os
from asyncio import _get_running_loop  # the public one raises where none runs: slower


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread, where Django refuses a query, unless it was told to allow them."""
    return _get_running_loop() is not None and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
