"""The mirror of Stripe's entitlements, the inbox of webhooks, and the log of changes.

Two kinds of time live here and never meet. Ours are datetimes and only schedule work. Stripe's are whole Unix seconds
in integer columns (`created`, `sent_at`, `window_from`, `window_to`), and only they tell which state is newer.

Customers and active entitlements are written by `mirror` alone, features by `mirror` and `catalog_writes`, products and
what is attached to them by `catalog_writes`, overrides by `overrides` and `bridges`, the change log and subscriber
states by `changes`, how a change is delivered by `provisioning`, the inbox by `inbox`, sync runs by `runs`, account
states by `budget` and `poll`, what is counted for the overview by `counts`.
"""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import conf
from .in_force import DENY, GRANT, Period
from .lookup_keys import check_key
from .windows import Schedule, Window

# Stripe's ids are opaque text; it asks for room for 255 characters.
ID_LENGTH = 255


class CustomerQuerySet(models.QuerySet["Customer"]):
    def in_mode(self, livemode: bool) -> CustomerQuerySet:
        """Customers of the site's own account in that mode."""
        return self.filter(account="", livemode=livemode)

    def due(self, now: datetime) -> CustomerQuerySet:
        """Customers to be fetched now, in the order of work."""
        return self.filter(next_fetch_at__lte=now).order_by("-urgent", "next_fetch_at", "pk")

    def entitled_to(self, lookup_key: str) -> CustomerQuerySet:
        """Customers who hold this key at Stripe: live ones of the own account, in the configured mode.

        Overrides belong to subscribers: `access.subscribers_with` counts them. Raises `TypeError` for what is no key.
        """
        key = check_key(lookup_key)
        rows = ActiveEntitlement.objects.granting(conf.livemode()).with_key(key)
        return self.filter(pk__in=rows.values("customer_id"))

    def marked(self) -> CustomerQuerySet:
        """Customers with a hint that no fetch has settled yet."""
        return self.filter(hinted_at__isnull=False, deleted_at=None)


class Customer(models.Model):
    """A Stripe customer, from the first event or link that names it."""

    stripe_id = models.CharField(_("Stripe ID"), max_length=ID_LENGTH)
    account = models.CharField(
        _("account"), max_length=ID_LENGTH, default="", blank=True, help_text=_("Empty for the site's own.")
    )
    livemode = models.BooleanField(_("live mode"))
    subscriber = models.ForeignKey(
        conf.subscriber_model(),
        verbose_name=_("subscriber"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="entitlements_customers",
    )
    email = models.CharField(
        _("e-mail"), max_length=512, default="", blank=True, help_text=_("As Stripe last told it.")
    )
    name = models.CharField(_("name"), max_length=ID_LENGTH, default="", blank=True)
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    version = models.BigIntegerField(
        _("version"), default=0, help_text=_("Rises with each state applied; orders fetches.")
    )
    window_from = models.BigIntegerField(
        _("window from"), null=True, help_text=_("Stripe seconds: what we hold is no older than this.")
    )
    window_to = models.BigIntegerField(
        _("window to"), null=True, help_text=_("Stripe seconds: what we hold is no newer than this.")
    )
    hinted_at = models.DateTimeField(
        _("last news at"), null=True, help_text=_("Of news that no fetch has settled yet.")
    )
    urgent = models.BooleanField(_("urgent"), default=False)
    next_fetch_at = models.DateTimeField(_("next fetch at"), null=True, default=timezone.now)
    claim = models.CharField(max_length=32, default="", editable=False)
    fetch_failures = models.PositiveSmallIntegerField(_("failed fetches in a row"), default=0)
    fetched_at = models.DateTimeField(_("fetched at"), null=True)
    missing_since = models.DateTimeField(
        _("missing since"), null=True, help_text=_("Stripe says that it does not know this customer.")
    )
    deleted_at = models.DateTimeField(_("deleted at"), null=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    objects = CustomerQuerySet.as_manager()

    class Meta:
        verbose_name = _("customer")
        verbose_name_plural = _("customers")
        constraints = (
            models.UniqueConstraint(
                fields=["stripe_id", "account", "livemode"], name="entitlements_customer_stripe_id"
            ),
            models.CheckConstraint(
                condition=models.Q(next_fetch_at__isnull=False) | models.Q(deleted_at__isnull=False),
                name="entitlements_customer_scheduled",
            ),
        )
        indexes = (
            models.Index(fields=["livemode", "next_fetch_at"], name="entitlements_customer_next"),
            # Urgent ones come first, however many others are due: the two are never sorted together.
            models.Index(
                fields=["livemode", "next_fetch_at"],
                condition=models.Q(urgent=True),
                name="entitlements_customer_urgent",
            ),
            models.Index(
                fields=["livemode", "hinted_at"],
                condition=models.Q(hinted_at__isnull=False),
                name="entitlements_customer_marked",
            ),
            # What staff looks for. Words of the name have an index on PostgreSQL, made by migration 0007.
            models.Index(Lower("email"), condition=~models.Q(email=""), name="entitlements_customer_email"),
            models.Index(fields=["livemode", "id"], name="entitlements_customer_mode"),
            models.Index(
                fields=["livemode", "id"],
                condition=models.Q(subscriber__isnull=True),
                name="entitlements_customer_unlinked",
            ),
            models.Index(
                fields=["livemode", "id"],
                condition=models.Q(missing_since__isnull=False),
                name="entitlements_customer_missing",
            ),
            models.Index(
                fields=["livemode", "id"],
                condition=models.Q(deleted_at__isnull=False),
                name="entitlements_customer_deleted",
            ),
        )
        permissions = (
            ("confirm_customer", _("Can ask Stripe what a customer is entitled to")),
            ("link_customer", _("Can link and unlink customers")),
        )

    def __str__(self) -> str:
        return self.stripe_id

    @property
    def window(self) -> Window | None:
        """The Stripe seconds in which what we hold was true; `None` before the first payload or fetch."""
        if self.window_from is None or self.window_to is None:
            return None
        return Window(self.window_from, self.window_to)

    @window.setter
    def window(self, window: Window) -> None:
        self.window_from, self.window_to = window.start, window.end

    @property
    def schedule(self) -> Schedule:
        """When the next fetch is due, of a customer that is not deleted."""
        if self.next_fetch_at is None:
            raise ValueError("A deleted customer is not fetched.")
        return Schedule(self.hinted_at, self.urgent, self.next_fetch_at)

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self.hinted_at, self.urgent, self.next_fetch_at = schedule.hinted_at, schedule.urgent, schedule.next_fetch_at


class Feature(models.Model):
    """A Stripe feature. A row with an empty name is a placeholder: a grant named it before the catalogue did."""

    stripe_id = models.CharField(_("Stripe ID"), max_length=ID_LENGTH)
    account = models.CharField(_("account"), max_length=ID_LENGTH, default="", blank=True)
    livemode = models.BooleanField(_("live mode"))
    lookup_key = models.CharField(_("lookup key"), max_length=ID_LENGTH)
    name = models.CharField(_("name"), max_length=ID_LENGTH, default="", blank=True)
    active = models.BooleanField(
        _("active"), default=True, help_text=_("An archived feature is not active, and keeps granting.")
    )
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    attached_at = models.DateTimeField(
        _("attached at"),
        null=True,
        help_text=_("When the catalogue last showed it with a product that had not had it before."),
    )
    detached_at = models.DateTimeField(
        _("detached at"), null=True, help_text=_("When the catalogue last showed it gone from a product.")
    )
    version = models.PositiveIntegerField(default=0, editable=False)  # rises with each change made from here

    class Meta:
        verbose_name = _("feature")
        verbose_name_plural = _("features")
        constraints = (
            models.UniqueConstraint(fields=["stripe_id", "account", "livemode"], name="entitlements_feature_stripe_id"),
        )
        # Not unique: an archived feature keeps its key, and a new one may take it.
        indexes = (models.Index(fields=["lookup_key"], name="entitlements_feature_key"),)
        permissions = (("archive_feature", _("Can archive features")),)

    def __str__(self) -> str:
        return f"{self.lookup_key} ({self.stripe_id})"


class Product(models.Model):
    """A Stripe product. Its features are what a new subscription to it grants; access never follows from them."""

    stripe_id = models.CharField(_("Stripe ID"), max_length=ID_LENGTH)
    account = models.CharField(_("account"), max_length=ID_LENGTH, default="", blank=True)
    livemode = models.BooleanField(_("live mode"))
    name = models.CharField(_("name"), max_length=ID_LENGTH, default="", blank=True)
    active = models.BooleanField(_("active"), default=True, help_text=_("An archived product is not active."))
    features_read_at = models.DateTimeField(
        _("features read at"), null=True, help_text=_("When Stripe was last asked which features are attached to it.")
    )
    version = models.PositiveIntegerField(default=0, editable=False)  # rises with each feature attached, detached here

    class Meta:
        verbose_name = _("product")
        verbose_name_plural = _("products")
        constraints = (
            models.UniqueConstraint(fields=["stripe_id", "account", "livemode"], name="entitlements_product_stripe_id"),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.stripe_id})"


class ProductFeature(models.Model):
    """A feature is attached to a product."""

    stripe_id = models.CharField(_("Stripe ID"), max_length=ID_LENGTH)
    account = models.CharField(_("account"), max_length=ID_LENGTH, default="", blank=True)
    livemode = models.BooleanField(_("live mode"))
    product = models.ForeignKey(
        Product, verbose_name=_("product"), on_delete=models.CASCADE, related_name="product_features"
    )
    feature = models.ForeignKey(
        Feature, verbose_name=_("feature"), on_delete=models.CASCADE, related_name="product_features"
    )

    class Meta:
        verbose_name = _("product feature")
        verbose_name_plural = _("product features")
        constraints = (
            models.UniqueConstraint(
                fields=["stripe_id", "account", "livemode"], name="entitlements_product_feature_stripe_id"
            ),
        )

    def __str__(self) -> str:
        return self.stripe_id


class ActiveEntitlementQuerySet(models.QuerySet["ActiveEntitlement"]):
    def granting(self, livemode: bool) -> ActiveEntitlementQuerySet:
        """Those that count in an answer: of live customers of the own account in that mode."""
        return self.filter(customer__account="", customer__livemode=livemode, customer__deleted_at=None)

    def with_key(self, lookup_key: str) -> ActiveEntitlementQuerySet:
        """Those of this key, found by the index of the few features that have it: Stripe never changes a key."""
        return self.filter(
            lookup_key=lookup_key, feature__in=Feature.objects.filter(lookup_key=lookup_key).values("pk")
        )


class ActiveEntitlement(models.Model):
    """What a customer holds. Keyed by feature: Stripe gives a kept grant a new id when the plan changes."""

    customer = models.ForeignKey(
        Customer,
        verbose_name=_("customer"),
        on_delete=models.CASCADE,
        related_name="active_entitlements",
        db_index=False,  # the unique constraint begins with it
    )
    feature = models.ForeignKey(
        Feature, verbose_name=_("feature"), on_delete=models.PROTECT, related_name="active_entitlements"
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    confirmed_at = models.DateTimeField(
        _("confirmed at"), null=True, help_text=_("When a fetch first confirmed what an event had said.")
    )
    # Texts come last, so that PostgreSQL has nothing to pad: a big site has millions of these rows.
    stripe_id = models.CharField(_("Stripe ID"), max_length=ID_LENGTH)
    lookup_key = models.CharField(_("lookup key"), max_length=ID_LENGTH)

    objects = ActiveEntitlementQuerySet.as_manager()

    class Meta:
        verbose_name = _("active entitlement")
        verbose_name_plural = _("active entitlements")
        constraints = (
            models.UniqueConstraint(fields=["customer", "feature"], name="entitlements_active_entitlement_grant"),
        )
        permissions = (("export_activeentitlement", _("Can export active entitlements")),)

    def __str__(self) -> str:
        return f"{self.lookup_key} ({self.stripe_id})"


class EntitlementOverrideQuerySet(models.QuerySet["EntitlementOverride"]):
    def in_force(self, now: datetime) -> EntitlementOverrideQuerySet:
        """Those that count at that moment."""
        return self.not_over(now).filter(starts_at__lte=now)

    def in_mode(self, livemode: bool) -> EntitlementOverrideQuerySet:
        """Those that count in that mode: all but bridges over what Stripe owes in the other."""
        return self.filter(models.Q(bridge_livemode=None) | models.Q(bridge_livemode=livemode))

    def not_over(self, now: datetime) -> EntitlementOverrideQuerySet:
        """Those that count at that moment, or will."""
        return self.filter(models.Q(expires_at=None) | models.Q(expires_at__gt=now))


class EntitlementOverride(models.Model):
    """Our own word: a subscriber is granted or denied a key, whatever Stripe says, in both modes. Deny wins.

    A bridge counts in the mode in which Stripe owes the key, and in no other.

    It counts from `starts_at` on and no longer at `expires_at`, at the moment of the question; no task is needed. Rows
    that are over stay: they tell who did it, and why.
    """

    class Effect(models.TextChoices):
        GRANT = GRANT, _("grant")
        DENY = DENY, _("deny")

    subscriber = models.ForeignKey(
        conf.subscriber_model(),
        verbose_name=_("subscriber"),
        on_delete=models.CASCADE,
        related_name="entitlements_overrides",
    )
    lookup_key = models.CharField(_("lookup key"), max_length=ID_LENGTH)
    effect = models.CharField(_("effect"), max_length=5, choices=Effect.choices)
    starts_at = models.DateTimeField(_("starts at"), default=timezone.now)
    expires_at = models.DateTimeField(
        _("expires at"), null=True, blank=True, help_text=_("From this moment on it does not count. Empty: never.")
    )
    reason = models.TextField(_("reason"), default="", blank=True)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("author"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    # Of a bridge alone: the mode in which Stripe owes the key, where alone it counts.
    bridge_livemode = models.BooleanField(null=True, editable=False)

    objects = EntitlementOverrideQuerySet.as_manager()

    class Meta:
        verbose_name = _("entitlement override")
        verbose_name_plural = _("entitlement overrides")
        constraints = (
            models.CheckConstraint(
                condition=models.Q(expires_at=None) | models.Q(expires_at__gte=models.F("starts_at")),
                name="entitlements_override_period",
            ),
            models.CheckConstraint(condition=models.Q(effect__in=[GRANT, DENY]), name="entitlements_override_effect"),
            models.CheckConstraint(
                condition=models.Q(bridge_livemode=None) | models.Q(effect=GRANT, expires_at__isnull=False),
                name="entitlements_override_bridge",
            ),
        )
        indexes = (models.Index(fields=["lookup_key", "effect"], name="entitlements_override_key"),)
        permissions = (("end_entitlementoverride", _("Can end entitlement overrides")),)

    def __str__(self) -> str:
        return f"#{self.pk} {self.effect} {self.lookup_key}"

    @property
    def is_bridge(self) -> bool:
        """Whether it stands in for what Stripe owes, and ends by itself when Stripe grants the key."""
        return self.bridge_livemode is not None

    @property
    def period(self) -> Period:
        return Period(self.lookup_key, self.effect, self.starts_at, self.expires_at)


class EntitlementChangeQuerySet(models.QuerySet["EntitlementChange"]):
    def undelivered(self) -> EntitlementChangeQuerySet:
        """Those that some receiver has still to be told of, parked ones included."""
        return self.filter(delivered_at=None)

    def waiting(self) -> EntitlementChangeQuerySet:
        """Those that will be delivered, now or later: not parked, and about a subscriber that is still there."""
        return self.undelivered().filter(parked_at=None, subscriber__isnull=False)


class EntitlementChange(models.Model):
    """A lookup key was gained or lost. The rows of a subscriber are written, and numbered, in order."""

    class Kind(models.TextChoices):
        GRANTED = "granted", _("granted")
        REVOKED = "revoked", _("revoked")

    class Cause(models.TextChoices):
        EVENT = "event", _("event")
        FETCH = "fetch", _("fetch")
        LINK = "link", _("link")
        UNLINK = "unlink", _("unlink")
        OVERRIDE = "override", _("override")
        EXPIRY = "expiry", _("expiry")

    class Drift(models.TextChoices):
        """Why a fetch, and no event, told of it: the likely cause."""

        EVENT_LOST = "event_lost", _("event lost")
        CATALOG = "catalog", _("catalogue changed")
        UNKNOWN = "unknown", _("unknown")

    subscriber = models.ForeignKey(
        conf.subscriber_model(),
        verbose_name=_("subscriber"),
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        help_text=_("As it was then."),
    )
    customer = models.ForeignKey(
        Customer, verbose_name=_("customer"), on_delete=models.SET_NULL, null=True, related_name="changes"
    )
    lookup_key = models.CharField(_("lookup key"), max_length=ID_LENGTH)
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    cause = models.CharField(_("cause"), max_length=8, choices=Cause.choices)
    effective = models.BooleanField(_("effective"), help_text=_("The subscriber's answer changed."))
    drift = models.CharField(
        _("drift"),
        max_length=10,
        choices=Drift.choices,
        default="",
        blank=True,
        help_text=_("Our copy was wrong until a fetch corrected it, and this is the likely cause."),
    )
    livemode = models.BooleanField(_("live mode"))
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    delivered_at = models.DateTimeField(
        _("delivered at"),
        null=True,
        help_text=_("Every receiver of the signal has succeeded, or there is none to call."),
    )
    parked_at = models.DateTimeField(
        _("parked at"), null=True, help_text=_("Given up after too many failures; later changes pass it.")
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True)
    receivers_done = models.JSONField(_("receivers done"), default=list)
    error = models.TextField(_("error"), default="", blank=True)

    objects = EntitlementChangeQuerySet.as_manager()

    class Meta:
        verbose_name = _("entitlement change")
        verbose_name_plural = _("entitlement changes")
        constraints = (
            models.CheckConstraint(
                condition=models.Q(effective=True) | models.Q(delivered_at__isnull=False),
                name="entitlements_change_delivery",
            ),
        )
        indexes = (
            models.Index(
                fields=["livemode", "subscriber", "id"],
                condition=models.Q(delivered_at__isnull=True),
                name="entitlements_change_waiting",
            ),
            models.Index(fields=["lookup_key", "id"], name="entitlements_change_key"),
            models.Index(fields=["livemode", "id"], condition=~models.Q(drift=""), name="entitlements_change_drift"),
        )
        permissions = (("resend_entitlementchange", _("Can send parked entitlement changes again")),)

    def __str__(self) -> str:
        return f"#{self.pk} {self.lookup_key} {self.kind}"


class WebhookEventQuerySet(models.QuerySet["WebhookEvent"]):
    def pending(self) -> WebhookEventQuerySet:
        return self.filter(status=WebhookEvent.Status.PENDING)

    def overdue(self, now: datetime) -> WebhookEventQuerySet:
        """Pending and past their retry time."""
        return self.pending().filter(next_attempt_at__lte=now).order_by("next_attempt_at", "pk")

    def due(self, now: datetime) -> WebhookEventQuerySet:
        """Pending, and either never tried or past their retry time."""
        return (
            self.pending()
            .filter(models.Q(attempts=0) | models.Q(next_attempt_at__lte=now))
            .order_by("next_attempt_at", "pk")
        )


class WebhookEvent(models.Model):
    """The inbox: each event once, with how it ended."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        PROCESSED = "processed", _("processed")
        IGNORED = "ignored", _("ignored")
        FAILED = "failed", _("failed")

    stripe_id = models.CharField(_("Stripe ID"), max_length=ID_LENGTH)
    account = models.CharField(_("account"), max_length=ID_LENGTH, default="", blank=True)
    livemode = models.BooleanField(_("live mode"))
    type = models.CharField(_("type"), max_length=ID_LENGTH)
    created = models.BigIntegerField(_("created"), null=True, help_text=_("Stripe seconds."))
    sent_at = models.BigIntegerField(
        _("sent at"), null=True, help_text=_("Stripe seconds: the time in the verified signature.")
    )
    customer_stripe_id = models.CharField(_("customer"), max_length=ID_LENGTH, default="", blank=True)
    payload = models.JSONField(
        _("payload"), null=True, help_text=_("The entitlements that a summary carried, nothing else.")
    )
    status = models.CharField(_("status"), max_length=9, choices=Status.choices)
    error = models.TextField(_("error"), default="", blank=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True)
    received_at = models.DateTimeField(_("received at"), default=timezone.now)
    processed_at = models.DateTimeField(_("processed at"), null=True)

    objects = WebhookEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook event")
        verbose_name_plural = _("webhook events")
        constraints = (
            models.UniqueConstraint(fields=["stripe_id", "account", "livemode"], name="entitlements_event_stripe_id"),
        )
        indexes = (
            models.Index(
                fields=["next_attempt_at"],
                condition=models.Q(status="pending"),
                name="entitlements_event_pending",
            ),
            models.Index(fields=["customer_stripe_id"], name="entitlements_event_customer"),
            models.Index(
                fields=["livemode", "received_at"],
                condition=models.Q(status="failed"),
                name="entitlements_event_failures",
            ),
            models.Index(
                fields=["received_at"],
                condition=models.Q(status="processed", payload__isnull=False),
                name="entitlements_event_payload",
            ),
        )
        permissions = (("replay_webhookevent", _("Can try failed webhook events again")),)

    def __str__(self) -> str:
        return self.stripe_id


class SyncRun(models.Model):
    """One run of periodic work and what came of it. Fetches of customers that are due share one row an hour."""

    class Kind(models.TextChoices):
        CONFIRM = "confirm", _("confirm customers")
        BACKFILL = "backfill", _("poll the Events API")
        CATALOG = "catalog", _("sync the catalogue")
        ALL = "all", _("sync all customers")
        PURGE = "purge", _("purge history")
        COUNT = "count", _("count for the overview")

    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    account = models.CharField(_("account"), max_length=ID_LENGTH, default="", blank=True)
    livemode = models.BooleanField(_("live mode"))
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    seen_at = models.DateTimeField(
        _("last seen at"), default=timezone.now, help_text=_("When it last said that it is still at work.")
    )
    finished_at = models.DateTimeField(_("finished at"), null=True)
    error = models.TextField(_("error"), default="", blank=True)
    total = models.PositiveIntegerField(_("total"), null=True, help_text=_("How many it is to do, if it knows."))
    done = models.PositiveIntegerField(
        _("done"),
        default=0,
        help_text=_("Customers asked about, events found, rows of the catalogue, rows purged, counts made."),
    )
    changed = models.PositiveIntegerField(_("changed something"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)
    calls = models.PositiveIntegerField(_("calls to Stripe"), default=0)
    drift_event_lost = models.PositiveIntegerField(_("drift: event lost"), default=0)
    drift_catalog = models.PositiveIntegerField(_("drift: catalogue changed"), default=0)
    drift_unknown = models.PositiveIntegerField(_("drift: unknown cause"), default=0)

    class Meta:
        verbose_name = _("sync run")
        verbose_name_plural = _("sync runs")
        constraints = (
            models.UniqueConstraint(
                fields=["account", "livemode", "kind"],
                condition=models.Q(finished_at__isnull=True),
                name="entitlements_run_one_at_a_time",
            ),
        )
        indexes = (models.Index(fields=["livemode", "kind", "started_at"], name="entitlements_run_latest"),)

    def __str__(self) -> str:
        return f"#{self.pk} {self.kind}"


class Overview(SyncRun):
    """No rows of its own: it gives the overview page in Django admin its place in the index, and its permission."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("overview")
        verbose_name_plural = _("overview")


class FeatureCount(models.Model):
    """Private. How many customers held a feature, and how many there were in its mode, when it was last counted."""

    feature = models.ForeignKey(Feature, on_delete=models.CASCADE, related_name="counts", db_index=False)
    customers = models.PositiveIntegerField()
    of_customers = models.PositiveIntegerField()
    counted_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["feature"], name="entitlements_feature_count_feature"),)

    def __str__(self) -> str:
        return f"{self.feature_id}: {self.customers}"


class ChangeCount(models.Model):
    """Private. How many effective changes a day saw, in the site's time zone, and where in the log that day lies.

    The log has no index on dates: its rows are numbered about in the order in which they are made. All rows of the day
    and mode, effective or not, have primary keys from `first_change` to `last_change`; both are 0 if there is none.
    Between them may be a few of the days before and after.
    """

    livemode = models.BooleanField()
    day = models.DateField()
    granted = models.PositiveIntegerField()
    revoked = models.PositiveIntegerField()
    first_change = models.BigIntegerField()
    last_change = models.BigIntegerField()
    counted_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["livemode", "day"], name="entitlements_change_count_day"),)

    def __str__(self) -> str:
        return f"{self.day} {'live' if self.livemode else 'test'}"


class SubscriberState(models.Model):
    """Private. The answer that the change log has announced for a subscriber, and the lock under which it moves.

    Also who is delivering the subscriber's changes, and until when nobody else may.
    """

    subscriber = models.ForeignKey(conf.subscriber_model(), on_delete=models.CASCADE, related_name="+", db_index=False)
    livemode = models.BooleanField()
    announced = models.JSONField(null=True)
    next_boundary_at = models.DateTimeField(null=True)  # when an override next starts or ends
    delivery_token = models.CharField(max_length=16, default="", blank=True)  # of who is delivering its changes
    delivery_until = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["subscriber", "livemode"], name="entitlements_state_subscriber"),
        )
        indexes = (
            models.Index(
                fields=["next_boundary_at"],
                condition=models.Q(next_boundary_at__isnull=False),
                name="entitlements_state_boundary",
            ),
        )

    def __str__(self) -> str:
        return f"{self.subscriber_id} {'live' if self.livemode else 'test'}"


class AccountState(models.Model):
    """Private. The call budget of an account and mode, whether Stripe refused its key, and how far it was polled."""

    account = models.CharField(max_length=ID_LENGTH, default="", blank=True)
    livemode = models.BooleanField()
    next_call_at = models.DateTimeField(null=True)  # on the database's clock, which alone reads and writes it
    stopped_at = models.DateTimeField(null=True)
    stopped_key = models.CharField(max_length=32, default="", blank=True)  # a fingerprint
    stopped_reason = models.CharField(max_length=ID_LENGTH, default="", blank=True)
    paused_at = models.DateTimeField(null=True)
    pauses = models.PositiveSmallIntegerField(default=0)  # in a row
    month = models.PositiveIntegerField(default=0)  # 202611: the month that `calls` counts
    calls = models.PositiveBigIntegerField(default=0)
    polled_to = models.BigIntegerField(null=True)  # Stripe seconds: events created before were found

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "livemode"], name="entitlements_account_mode"),)

    def __str__(self) -> str:
        return f"{self.account or 'own account'} {'live' if self.livemode else 'test'}"
