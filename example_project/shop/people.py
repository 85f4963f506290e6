"""Customers and staff whom nobody signs in as, so that Django admin has something to show.

As on a real site: they bought through a payment link, Stripe's events tell of them, and the metadata says whose they
are. Support and sales did the rest by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.contrib.auth.models import Group, Permission, User
from django.utils import timezone

from entitlements_app.overrides import deny, grant

from . import billing, stripe_faults
from .plans import ADVANCED_REPORTING, API_ACCESS, ENTERPRISE, FREE, PRO, SSO, Plan

PEOPLE: dict[str, Plan] = {
    "Ada Lovelace": PRO,
    "Alan Turing": PRO,
    "Barbara Liskov": ENTERPRISE,
    "Edsger Dijkstra": PRO,
    "Grace Hopper": PRO,
    "Katherine Johnson": ENTERPRISE,
}
UNKNOWN = "Margaret Hamilton"  # to this site: her customer's metadata names no user


def support_group() -> Group:
    """Staff who may look at all pages of entitlements, and do nothing."""
    group, _ = Group.objects.get_or_create(name="Support, view only")
    group.permissions.set(
        Permission.objects.filter(content_type__app_label="entitlements_app", codename__startswith="view_")
    )
    return group


def buy_first_plans() -> dict[str, str]:
    """Returns the customers' ids by name."""
    for name in PEOPLE:
        User.objects.create_user(_username(name), _email(name), first_name=name.split()[0], last_name=name.split()[1])
    customers = {
        name: billing.create_customer(name, _email(name), made_for=_username(name)) for name in [*PEOPLE, UNKNOWN]
    }
    for name, customer in customers.items():
        billing.switch_plan_of(customer, PEOPLE.get(name, PRO))
    return customers


def change_their_minds(customers: dict[str, str], wait: Callable[[], None]) -> None:
    """Upgrades, a cancellation, decisions by hand, and an event that nobody can read. `wait`: for the webhooks."""
    billing.switch_plan_of(customers["Grace Hopper"], ENTERPRISE)
    billing.switch_plan_of(customers["Edsger Dijkstra"], FREE)
    wait()
    billing.switch_plan_of(customers["Barbara Liskov"], PRO)
    wait()
    billing.switch_plan_of(customers["Barbara Liskov"], ENTERPRISE)
    sales, in_two_weeks = User.objects.get(username="admin"), timezone.now() + timedelta(days=14)
    grant(
        _user("Ada Lovelace"),
        ADVANCED_REPORTING.lookup_key,
        until=in_two_weeks,
        reason="Trial, agreed on the phone",
        by=sales,
    )
    grant(_user("Edsger Dijkstra"), API_ACCESS.lookup_key, reason="Speaks at our conference", by=sales)
    deny(_user("Katherine Johnson"), SSO.lookup_key, reason="Shared her login; see ticket 4711", by=sales)
    stripe_faults.send_unreadable_event(customers["Alan Turing"])


def _user(name: str) -> User:
    return User.objects.get(username=_username(name))


def _username(name: str) -> str:
    return name.partition(" ")[0].lower()


def _email(name: str) -> str:
    return f"{name.lower().replace(' ', '.')}@example.com"
