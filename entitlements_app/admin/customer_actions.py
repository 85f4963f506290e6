"""What staff may do on the page of a customer. Each is one call, told in a message and in the admin's log."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from entitlements_app import linking, overrides
from entitlements_app.exceptions import AlreadyLinked, CustomerDeleted, StripeRefused, StripeUnavailable
from entitlements_app.models import Customer
from entitlements_app.sync import Synced, sync_customer

from .customer_facts import is_own
from .customer_forms import MOVED, CustomerDecisionForm, CustomerForm, EndForm, LinkForm, UnlinkForm
from .customer_page import PERMISSIONS, CustomerPage
from .decisions import in_the_log, what_was_decided


class CustomerActions(CustomerPage):
    def get_urls(self) -> list[URLPattern]:
        return [
            self.action_path("confirm", self.confirm, permission=PERMISSIONS["confirm"]),
            self.action_path("link", self.link, permission=PERMISSIONS["link"]),
            self.action_path("unlink", self.unlink, permission=PERMISSIONS["link"]),
            self.action_path("override", self.override, permission=PERMISSIONS["override"]),
            self.action_path("end", self.end, permission=PERMISSIONS["end"]),
            *super().get_urls(),
        ]

    def confirm(self, request: HttpRequest, customer: Customer) -> HttpResponse:
        """Ask Stripe now, also who the customer is, and say what that changed."""
        if customer.deleted_at is not None:
            return self._failed(
                request, customer, _("The customer %(customer)s was deleted in Stripe, so there is nothing to ask.")
            )
        if not is_own(customer):
            text = _(
                "The customer %(customer)s is of another mode or account than the API key: Stripe would not know it."
            )
            return self._failed(request, customer, text)
        try:
            synced = sync_customer(customer, with_details=True)
        except StripeUnavailable as error:
            text = _(
                "Stripe could not be asked about %(customer)s, and nothing was changed. %(error)s Try again later."
            )
            return self._failed(request, customer, text, error=error)
        except (StripeRefused, ImproperlyConfigured) as error:
            text = _("Stripe could not be asked about %(customer)s, and nothing was changed. %(error)s")
            return self._failed(request, customer, text, error=error)
        text, level = _what_came_of_it(customer, synced)
        return self._done(request, customer, text, level=level)

    def link(self, request: HttpRequest, customer: Customer) -> HttpResponse:
        form = LinkForm(customer, request.POST, site=self.admin_site, request=request)
        if not form.is_valid():
            return self._refused(request, form)
        subscriber: Model = form.cleaned_data["subscriber"]
        if subscriber.pk == customer.subscriber_id:
            text = _("The customer %(customer)s is linked to %(subscriber)s already.")
            return self._done(request, customer, text % _names(customer, subscriber), level=messages.INFO, log=False)
        if customer.subscriber_id is not None and not form.cleaned_data["move"]:
            form.add_error("move", _("It is linked to another subscriber. Say that it moves."))
            return self._refused(request, form)
        link = partial(linking.link, subscriber, customer.stripe_id, move=True, **_whose(customer))
        try:
            linking.unless_moved(customer, link)
        except AlreadyLinked:
            return self._failed(request, customer, str(MOVED))
        except CustomerDeleted:
            return self._failed(
                request,
                customer,
                _("%(customer)s was deleted in Stripe. Link the customer that replaced it."),
            )
        text = _(
            "The customer %(customer)s is linked to %(subscriber)s. What it holds counts, and Stripe is asked soon."
        )
        return self._done(request, customer, text % _names(customer, subscriber))

    def unlink(self, request: HttpRequest, customer: Customer) -> HttpResponse:
        form = UnlinkForm(customer, request.POST)
        if not form.is_valid():
            return self._refused(request, form)
        if customer.subscriber is None:
            return self._failed(request, customer, _("The customer %(customer)s is linked to nobody."))
        names = _names(customer, customer.subscriber)
        try:
            linking.unless_moved(customer, partial(linking.unlink, customer.stripe_id, **_whose(customer)))
        except AlreadyLinked:
            return self._failed(request, customer, str(MOVED))
        text = _("The customer %(customer)s is no longer linked to %(subscriber)s. What it holds counts for nobody.")
        return self._done(request, customer, text % names)

    def override(self, request: HttpRequest, customer: Customer) -> HttpResponse:
        """Grant or deny a key to the customer's subscriber."""
        form = CustomerDecisionForm(customer, request.POST)
        if not form.is_valid():
            return self._refused(request, form)
        if customer.subscriber is None:
            return self._failed(request, customer, _("The customer %(customer)s is linked to nobody: link it first."))
        made = form.decide(request, customer.subscriber)
        if made is None:
            return self._refused(request, form)
        self.log_change(request, customer, in_the_log(made))
        return self._done(request, customer, what_was_decided(made), log=False)

    def end(self, request: HttpRequest, customer: Customer) -> HttpResponse:
        """End all overrides of a key of the customer's subscriber."""
        form = EndForm(customer, request.POST)
        if not form.is_valid():
            return self._refused(request, form)
        if customer.subscriber is None:
            return self._failed(request, customer, _("The customer %(customer)s is linked to nobody: link it first."))
        key = form.cleaned_data["lookup_key"]
        count = overrides.clear(customer.subscriber, key)
        if not count:
            text = _("No override of “%(key)s” was left to end.") % {"key": key}
            return self._done(request, customer, text, level=messages.WARNING, log=False)
        text = ngettext(
            "%(count)d override of “%(key)s” of %(subscriber)s has ended.",
            "%(count)d overrides of “%(key)s” of %(subscriber)s have ended.",
            count,
        ) % {"count": count, "key": key, "subscriber": customer.subscriber}
        return self._done(request, customer, text)

    def _done(
        self,
        request: HttpRequest,
        customer: Customer,
        text: str,
        *,
        level: int = messages.SUCCESS,
        log: bool = True,
    ) -> HttpResponse:
        if log:
            self.log_change(request, customer, text)
        self.message_user(request, text, level)
        return HttpResponseRedirect(self.page("change", customer))

    def _failed(self, request: HttpRequest, customer: Customer, text: str, **names: object) -> HttpResponse:
        text = text % {"customer": customer, **names}
        return self._done(request, customer, text, level=messages.ERROR, log=False)

    def _refused(self, request: HttpRequest, form: CustomerForm) -> HttpResponse:
        return self.show(request, form.customer.pk, form=form)


def _whose(customer: Customer) -> dict[str, Any]:
    return {"account": customer.account, "livemode": customer.livemode}


def _names(customer: Customer, subscriber: Model) -> dict[str, Any]:
    return {"customer": customer, "subscriber": subscriber}


def _what_came_of_it(customer: Customer, synced: Synced) -> tuple[str, int]:
    named = {"customer": customer}
    if not synced.applied:
        text = _("There was other news of %(customer)s meanwhile, so this answer was dropped. Confirm it again.")
        return text % named, messages.WARNING
    if not synced.known:
        text = _("Stripe does not know %(customer)s in this mode. What was confirmed before stays.")
        return text % named, messages.WARNING
    if not synced.changed:
        return _("Stripe has confirmed %(customer)s: nothing has changed.") % named, messages.SUCCESS
    keys = [*(f"+{key}" for key in sorted(synced.granted)), *(f"−{key}" for key in sorted(synced.revoked))]
    text = _("Stripe was asked about %(customer)s, and this has changed: %(keys)s.")
    return text % {**named, "keys": ", ".join(keys)}, messages.SUCCESS
