"""Pages of both admins lead to each other: those of customers, products and events.

On the default site each admin of dj-stripe's that is registered when this module is imported is registered again with a
mixin in front, whatever class it is by then. dj-stripe's own admin is imported first, so the order of INSTALLED_APPS
does not matter. A site that registers a class of its own later puts the mixin into it:

    @admin.register(djstripe.models.Customer)
    class CustomerAdmin(CustomerEntitlementsMixin, djstripe.admin.admin.CustomerAdmin): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import djstripe.admin  # noqa: F401  (registers its pages, unless that is done)
from django.contrib import admin
from django.contrib.admin import AdminSite, ModelAdmin
from django.db.models import Model, OuterRef, Subquery
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from djstripe import models as theirs

from entitlements_app import models as ours
from entitlements_app.admin.links import address_of, register_elsewhere, seen_admin

from . import admin_words
from .accounts import is_own_account, owner_of

if TYPE_CHECKING:
    _ModelAdmin = ModelAdmin[Any]
else:
    _ModelAdmin = object

FIELD = "entitlements_here"  # dj-stripe's customers have a property `entitlements`

COUNTERPARTS: dict[type[Model], Any] = {
    ours.Customer: theirs.Customer,
    ours.Product: theirs.Product,
    ours.WebhookEvent: theirs.Event,
}


class EntitlementsMixin(_ModelAdmin):
    """A read-only field, in a fieldset of its own after the first one, for who may see the page that it links to."""

    our_model: ClassVar[type[Model]]

    def _shows_ours(self, request: HttpRequest, obj: Model | None) -> bool:
        return obj is not None and seen_admin(self.admin_site, request, self.our_model) is not None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return [*fields, FIELD] if self._shows_ours(request, obj) else fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if not self._shows_ours(request, obj):
            return fieldsets
        first, *rest = [
            (title, {**options, "fields": [name for name in options["fields"] if name != FIELD]})
            for title, options in fieldsets
        ]
        return [first, (gettext_lazy("Stripe entitlements"), {"fields": [FIELD]}), *rest]

    def _page(self, row: Model) -> str:
        return address_of(self.admin_site, self.our_model, "change", row)


class CustomerEntitlementsMixin(EntitlementsMixin):
    """For an admin of dj-stripe's `Customer`: what it holds here, and whether that counts for its subscriber."""

    our_model = ours.Customer

    @admin.display(description=gettext_lazy("what counts here"))
    def entitlements_here(self, customer: Any) -> str:
        return admin_words.of_customer(customer, self._page)


class ProductEntitlementsMixin(EntitlementsMixin):
    """For an admin of dj-stripe's `Product`: its features here."""

    our_model = ours.Product

    @admin.display(description=gettext_lazy("features here"))
    def entitlements_here(self, product: Any) -> str:
        return admin_words.of_product(product, self._page)


class EventEntitlementsMixin(EntitlementsMixin):
    """For an admin of dj-stripe's `Event`: how it ended in the inbox."""

    our_model = ours.WebhookEvent

    @admin.display(description=gettext_lazy("in the inbox here"))
    def entitlements_here(self, event: Any) -> str:
        return admin_words.of_event(event, self._page)


def links_to_djstripe(site: AdminSite, request: HttpRequest, row: Model) -> list[tuple[str, str]]:
    """dj-stripe's pages about the same object: of the same ID, mode and account.

    One query, and one for the account if dj-stripe's row has one. None if who asks may not see dj-stripe's pages.
    """
    model = COUNTERPARTS.get(type(row))
    if model is None or seen_admin(site, request, model) is None:
        return []
    known = cast(Any, row)
    rows = model.objects.filter(id=known.stripe_id, livemode=known.livemode)
    if model is theirs.Event:
        newest = theirs.WebhookEventTrigger.objects.filter(event__id=OuterRef("id")).order_by("-id")
        rows = rows.annotate(delivery=Subquery(newest.values("id")[:1]))
    found = rows.first()
    if found is None or not _is_of_account(known.account, owner_of(found)):
        return []
    links = [(_("Open in dj-stripe"), address_of(site, model, "change", found))]
    delivery = theirs.WebhookEventTrigger(pk=getattr(found, "delivery", None))
    if delivery.pk and seen_admin(site, request, theirs.WebhookEventTrigger) is not None:
        links.append((_("Its delivery in dj-stripe"), address_of(site, theirs.WebhookEventTrigger, "change", delivery)))
    return links


def _is_of_account(account: str, owner: str | None) -> bool:
    return account == owner if account else is_own_account(owner)


def _mix_in(mixin: type[EntitlementsMixin]) -> None:
    model = COUNTERPARTS[mixin.our_model]
    if not admin.site.is_registered(model):
        return
    registered = type(admin.site.get_model_admin(model))
    if issubclass(registered, mixin):
        return
    admin.site.unregister(model)
    admin.site.register(model, type(registered.__name__, (mixin, registered), {"__module__": registered.__module__}))


for _mixin in (CustomerEntitlementsMixin, ProductEntitlementsMixin, EventEntitlementsMixin):
    _mix_in(_mixin)
register_elsewhere(links_to_djstripe)
