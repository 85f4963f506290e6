"""Whether this code may wait for the database."""

import asyncio
import os


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread, where Django refuses a query, unless it was told to allow them."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
