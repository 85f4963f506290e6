"""`await wait_for_entitlement(…)`: for the seconds after a checkout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, transaction

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


@pytest.mark.parametrize(("max_age", "is_kept"), [(0, False), (None, True)])
def test_no_connection_is_kept_between_two_looks_unless_django_keeps_it(
    acme: Any, monkeypatch: pytest.MonkeyPatch, max_age: int | None, is_kept: bool
) -> None:
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", max_age)
    connection.close()
    connection.connect()

    async def checkout() -> bool:
        waiting = asyncio.ensure_future(wait_for_entitlement(acme, "sso", timeout=60))
        await asyncio.sleep(0)  # it has begun
        is_open = await sync_to_async(lambda: connection.connection is not None)()  # its thread has looked
        await sync_to_async(deliver)(summary("cus_acme", "sso"))
        assert await waiting
        return is_open

    assert async_to_sync(checkout)() is is_kept


def test_inside_a_transaction_it_is_kept(acme: Any) -> None:
    with transaction.atomic():
        grant(acme, "sso", force=True)
        assert async_to_sync(wait_for_entitlement)(acme, "sso", timeout=0) is True
        transaction.set_rollback(True)
    assert async_to_sync(wait_for_entitlement)(acme, "sso", timeout=0) is False


@pytest.fixture
def committing_by_hand() -> Iterator[None]:
    connection.set_autocommit(False)
    yield
    connection.rollback()
    connection.set_autocommit(True)


def test_what_a_site_commits_by_hand_is_kept(acme: Any, committing_by_hand: None) -> None:
    acme.delete()
    assert async_to_sync(wait_for_entitlement)(acme, "sso", timeout=0) is False
    connection.commit()
    assert not type(acme).objects.exists()
