"""System checks of a site that runs beside dj-stripe. Ids: see entitlements_app.checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  (Django's own name)
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, router
from djstripe.enums import WebhookEndpointStatus, WebhookEndpointValidation
from djstripe.models import WebhookEndpoint
from djstripe.settings import djstripe_settings

from entitlements_app import beside_djstripe, conf
from entitlements_app.checks import if_well_formed
from entitlements_app.stripe_objects import CUSTOMER_DELETED, SUBSCRIPTION_PREFIX, SUMMARY_UPDATED
from entitlements_app.subscribers import get_subscriber_model

from .accounts import is_own, own_account, owner_of
from .subscribers import get_their_model, is_same_model

EVENT_TYPES = (
    SUMMARY_UPDATED,
    CUSTOMER_DELETED,
    *(f"{SUBSCRIPTION_PREFIX}{what}" for what in ("created", "updated", "deleted", "paused", "resumed")),
)


def check_plugged_in(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    return [*_other_subscribers(), *_other_mode()]


def check_endpoints(app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for alias in databases or ():
        if router.allow_migrate_model(alias, WebhookEndpoint):
            try:
                everybodys = _endpoints(alias)
                endpoints = [row for row in everybodys if is_own(row)]
                found += _several_accounts(everybodys)
            except (DatabaseError, ImproperlyConfigured):
                continue  # it is before the first migrate, or another check tells what is malformed
            found += [*_unverified(endpoints), *_event_types(endpoints)]
    return found


def _other_subscribers() -> Iterator[CheckMessage]:
    theirs, ours = get_their_model(), get_subscriber_model()
    if theirs is not None and not is_same_model():
        yield Error(
            f"The subscribers of dj-stripe's customers are {theirs._meta.label} (DJSTRIPE_SUBSCRIBER_MODEL), and those "
            f"of entitlements {ours._meta.label} (ENTITLEMENTS_SUBSCRIBER_MODEL): its customers cannot be linked.",
            hint="Leave ENTITLEMENTS_SUBSCRIBER_MODEL out: then it is dj-stripe's. If entitlements_app was migrated "
            f"before, that is refused; then take {beside_djstripe.APP} out of INSTALLED_APPS.",
            id="entitlements_app.E020",
        )


def _other_mode() -> Iterator[CheckMessage]:
    livemode = if_well_formed(conf.livemode)
    if livemode is not None and livemode is not bool(djstripe_settings.STRIPE_LIVE_MODE):
        ours, theirs = ("live", "test") if livemode else ("test", "live")
        yield Warning(
            f"Gates see {ours} mode, and dj-stripe makes customers of {theirs} mode (STRIPE_LIVE_MODE).",
            hint=f"Set STRIPE_LIVE_MODE = {livemode}. Or, if dj-stripe is right, correct ENTITLEMENTS_LIVEMODE or the "
            "API key that this app uses.",
            id="entitlements_app.W013",
        )


def _endpoints(alias: str) -> list[WebhookEndpoint]:
    """Those of the own mode by which Stripe delivers to dj-stripe, which also has rows of other sites'."""
    rows = WebhookEndpoint.objects.using(alias).filter(livemode=conf.livemode())
    rows = rows.exclude(status=WebhookEndpointStatus.disabled).select_related("djstripe_owner_account")
    return [row for row in rows if str(row.djstripe_uuid) in row.url]


def _several_accounts(endpoints: list[WebhookEndpoint]) -> Iterator[CheckMessage]:
    owners = {owner for owner in map(owner_of, endpoints) if owner is not None}
    if len(owners) > 1 and own_account() is None:
        yield Warning(
            f"dj-stripe has webhook endpoints of several Stripe accounts, {', '.join(sorted(owners))}, and does not "
            "know of which the API key is: what any of them sells counts here.",
            hint="Run manage.py djstripe_sync_models Account, which asks Stripe; again when the key was replaced.",
            id="entitlements_app.W017",
        )


def _unverified(endpoints: list[WebhookEndpoint]) -> Iterator[CheckMessage]:
    for endpoint in endpoints:
        if endpoint.djstripe_validation_method != WebhookEndpointValidation.verify_signature:
            said = (
                "dj-stripe does not verify the signature of what is posted to its webhook endpoint "
                f"{endpoint.djstripe_uuid}: dj-stripe believes strangers, also in who pays. Its events are here "
                "only hints, and each costs a call to Stripe."
            )
            hint = 'Set its djstripe_validation_method to "verify_signature", in dj-stripe\'s admin.'
        elif not endpoint.secret.strip():
            said = (
                f"dj-stripe does not have the secret of its webhook endpoint {endpoint.djstripe_uuid}, which Stripe "
                "tells only whoever makes an endpoint: it refuses all events that come there."
            )
            hint = "Make another endpoint in dj-stripe's admin, and delete this one."
        else:
            continue
        yield Warning(said, hint=hint, id="entitlements_app.W014")


def _event_types(endpoints: list[WebhookEndpoint]) -> Iterator[CheckMessage]:
    if not beside_djstripe.has_endpoint() or _receives_by_itself():
        return
    enabled = {name for endpoint in endpoints for name in endpoint.enabled_events or ()}
    missing = [] if "*" in enabled else [name for name in EVENT_TYPES if name not in enabled]
    if missing:
        what = f"has {', '.join(missing)} enabled" if endpoints else "is known to dj-stripe"
        yield Warning(
            f"No webhook endpoint of {'live' if conf.livemode() else 'test'} mode {what}: what Stripe does not send is "
            "known only when events are polled for, or a customer is asked about.",
            hint=f"Make an endpoint in dj-stripe's admin, or enable these events for one in Stripe's Dashboard and run "
            f"manage.py djstripe_sync_models WebhookEndpoint: {', '.join(EVENT_TYPES)}.",
            id="entitlements_app.W015",
        )


def _receives_by_itself() -> bool:
    """Whether events can come by our own endpoint; which of them Stripe sends there is not known here."""
    return bool(if_well_formed(conf.webhook_secrets)) and beside_djstripe.is_routed("entitlements:webhook")
