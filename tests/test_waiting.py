"""`await wait_for_entitlement(…)`: for the seconds after a checkout."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group

from entitlements_app.access import wait_for_entitlement
from entitlements_app.overrides import grant
from tests.delivery import deliver, summary

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_returns_at_once_for_who_is_entitled(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    began = time.monotonic()
    assert async_to_sync(wait_for_entitlement)(acme, "sso", "audit") is True
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("local_seconds", [0, 60])
def test_it_returns_when_the_event_has_arrived(acme: Any, settings: Any, local_seconds: int) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = local_seconds

    async def checkout() -> bool:
        waiting = asyncio.create_task(wait_for_entitlement(acme, "sso", timeout=20))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await sync_to_async(deliver)(summary("cus_acme", "sso"))
        return await waiting

    began = time.monotonic()
    assert async_to_sync(checkout)() is True
    assert time.monotonic() - began < 10


def test_it_gives_up_in_time(acme: Any) -> None:
    began = time.monotonic()
    assert async_to_sync(wait_for_entitlement)(acme, "sso", timeout=0.7) is False
    assert 0.7 <= time.monotonic() - began < 10
    assert async_to_sync(wait_for_entitlement)(acme, "sso", timeout=0) is False


def test_one_of_two_keys_is_not_enough(acme: Any) -> None:
    grant(acme, "sso", force=True)
    assert async_to_sync(wait_for_entitlement)(acme, "sso", "audit", timeout=0.1) is False


def test_nobody_waits_in_vain_for_no_longer(db: None) -> None:
    assert async_to_sync(wait_for_entitlement)(None, "sso", timeout=0.1) is False


@pytest.mark.parametrize("bad", [(), ("",), (["sso"],), (None,)])
def test_what_is_no_key_is_a_type_error(acme: Any, bad: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        async_to_sync(wait_for_entitlement)(acme, *bad)
    with pytest.raises(TypeError):
        async_to_sync(wait_for_entitlement)(Group(name="a group"), "sso")
