from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only where dj-stripe is installed: `make djstripe-test`."""
    return None if settings.DJSTRIPE else True
