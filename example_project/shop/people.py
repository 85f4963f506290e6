"""Customers and staff whom nobody signs in as, so that Django admin has something to show.

As on a real site: they bought through a payment link, Stripe's events tell of them, and their metadata says whose they
are. Support and sales did the rest by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.contrib.auth.models import Group, Permission, User
from django.utils import timezone

from entitlements_app.overrides import deny, grant

from . import billing, stripe_faults
from .plans import ADVANCED_REPORTING, API_ACCESS, ENTERPRISE, FREE, PRO, SSO, Plan

NAMES = ("Ada Lovelace", "Alan Turing", "Barbara Liskov", "Edsger Dijkstra", "Grace Hopper", "Katherine Johnson")
UNKNOWN = "Margaret Hamilton"  # to this site: the metadata of her customer names no user


def support_group() -> Group:
    """Staff who may look at all pages of entitlements, and do nothing."""
    group, _ = Group.objects.get_or_create(name="Support, view only")
    group.permissions.set(
        Permission.objects.filter(content_type__app_label="entitlements_app", codename__startswith="view_")
    )
    return group


def live() -> Iterator[None]:
    """What they do, and what is done to them, day by day: yields at the end of each."""
    for name in NAMES:
        User.objects.create_user(_username(name), _email(name), first_name=name.split()[0], last_name=name.split()[1])
    sales = User.objects.get(username="admin")

    _buy("Ada Lovelace", PRO)
    alan = _buy("Alan Turing", PRO)
    _buy("Katherine Johnson", ENTERPRISE)
    yield
    grace, edsger = _buy("Grace Hopper", PRO), _buy("Edsger Dijkstra", PRO)
    yield
    barbara = _buy("Barbara Liskov", ENTERPRISE)
    _buy(UNKNOWN, PRO)
    yield
    billing.switch_plan_of(grace, ENTERPRISE)
    until = timezone.now() + timedelta(days=30)
    grant(_user("ada"), ADVANCED_REPORTING.lookup_key, until=until, reason="Trial, agreed on the phone", by=sales)
    yield
    billing.switch_plan_of(edsger, FREE)
    billing.switch_plan_of(barbara, PRO)
    yield
    billing.switch_plan_of(barbara, ENTERPRISE)
    grant(_user("edsger"), API_ACCESS.lookup_key, reason="Speaks at our conference", by=sales)
    deny(_user("katherine"), SSO.lookup_key, reason="Shared her login, ticket 4711", by=sales)
    stripe_faults.send_unreadable_event(alan)
    yield


def _buy(name: str, plan: Plan) -> str:
    """The id of a new customer."""
    customer = billing.create_customer(name, _email(name), made_for=_username(name))
    billing.switch_plan_of(customer, plan)
    return customer


def _user(username: str) -> User:
    return User.objects.get(username=username)


def _username(name: str) -> str:
    return name.partition(" ")[0].lower()


def _email(name: str) -> str:
    return f"{name.lower().replace(' ', '.')}@example.com"
