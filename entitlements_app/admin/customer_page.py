"""The page of a customer: what its subscriber is entitled to and why, and what happened."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.forms import Media
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from entitlements_app import conf
from entitlements_app.explanation_text import get_cause
from entitlements_app.models import (
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    Product,
    SyncRun,
    WebhookEvent,
)

from . import customer_facts
from .customer_facts import CustomerFacts
from .customer_forms import CustomerDecisionForm, CustomerForm, LinkForm, UnlinkForm
from .decisions import KNOWN_KEYS
from .links import elsewhere, list_of, page_of, seen_admin, stripe_dashboard
from .read_only import ReadOnlyAdmin
from .words import kind_tag, mode_tag, status_tag, tag

PERMISSIONS = {
    "confirm": "confirm_customer",
    "link": "link_customer",
    "override": "add_entitlementoverride",
    "end": "end_entitlementoverride",
}


class CustomerPage(ReadOnlyAdmin):
    change_form_template = "admin/entitlements_app/customer/change_form.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        return self.show(request, object_id)

    def show(self, request: HttpRequest, object_id: Any, *, form: CustomerForm | None = None) -> HttpResponse:
        """The page, in which this form takes the place of its kind and keeps what was typed."""
        try:
            facts = customer_facts.read(self.opts.pk.to_python(object_id))
        except (Customer.DoesNotExist, ValidationError) as error:
            raise Http404(_("There is no such customer.")) from error
        request.current_app = self.admin_site.name  # for {% url %}
        context = {
            **self.admin_site.each_context(request),
            "title": _("Customer %(customer)s") % {"customer": facts.customer},
            "opts": self.opts,
            "original": facts.customer,
            "has_view_permission": True,
            "change": True,
            "is_popup": False,
            "facts": facts,
            "customer": facts.customer,
            "known_keys_id": KNOWN_KEYS,
            "mode": _mode_tags(facts.customer),
            "others": [(other, _mode_tags(other)) for other in facts.others],
            "changes": [(change, kind_tag(change), get_cause(change)) for change in facts.changes],
            "events": [(event, status_tag(event)) for event in facts.events],
            "known_keys": facts.known_keys,
            "raw_fields": self._raw_fields(facts.customer),
            **self._links(request, facts),
            **self._forms(request, facts, form),
        }
        return TemplateResponse(request, self.change_form_template, context)

    def _links(self, request: HttpRequest, facts: CustomerFacts) -> dict[str, Any]:
        models = (EntitlementChange, EntitlementOverride, Feature, Product, WebhookEvent, SyncRun)
        site = self.admin_site
        return {
            "dashboard": stripe_dashboard(facts.customer),
            "elsewhere": elsewhere(site, request, facts.customer),
            "subscriber_page": page_of(site, request, facts.subscriber),
            "change_list": list_of(site, request, EntitlementChange),
            "event_list": list_of(site, request, WebhookEvent),
            "sees": {model._meta.model_name: seen_admin(site, request, model) is not None for model in models},
        }

    def _forms(self, request: HttpRequest, facts: CustomerFacts, form: CustomerForm | None) -> dict[str, Any]:
        """Those that apply to the customer, for who may send them."""
        may = {name: self.may(request, permission) for name, permission in PERMISSIONS.items()}
        customer = facts.customer
        is_linked, is_deleted = customer.subscriber_id is not None, customer.deleted_at is not None
        can_ask = facts.is_own and facts.has_api_key and not facts.calls_stopped and not is_deleted
        forms: dict[str, Any] = {"can_confirm": may["confirm"] and can_ask, "can_end": may["end"] and is_linked}
        if may["link"] and not is_deleted:
            forms["link_form"] = LinkForm(customer, site=self.admin_site, request=request)
        if may["link"] and is_linked:
            forms["unlink_form"] = UnlinkForm(customer)
        if may["override"] and is_linked:
            forms["override_form"] = CustomerDecisionForm(customer)
        for name, fresh in forms.items():
            if form is not None and type(fresh) is type(form):
                forms[name] = form
        if form is not None:
            form.focus_on_error()
        return {**forms, "wrong_form": form, "media": self._scripts(forms.get("link_form"))}

    def _scripts(self, form: LinkForm | None) -> Media:
        """Of the look-up of a subscriber, which works without them, too."""
        names = ("vendor/jquery/jquery.min.js", "jquery.init.js", "core.js", "admin/RelatedObjectLookups.js")
        return Media(js=[f"admin/js/{name}" for name in names] if form is not None and form.has_lookup else [])

    def _raw_fields(self, customer: Customer) -> list[tuple[str, Any]]:
        """All that the row holds, but for the claim of a fetch."""
        fields = [field for field in customer._meta.concrete_fields if field.name != "claim"]
        return [(str(field.verbose_name), field.value_from_object(customer)) for field in fields]


def _mode_tags(customer: Customer) -> str:
    """Its mode, and whose account it is of; with a warning, if that is not what counts here."""
    mode = mode_tag(customer.livemode, "" if customer.livemode is conf.livemode() else "ent-warn")
    if not customer.account:
        return mode
    account = tag(_("account %(account)s") % {"account": customer.account}, "ent-warn")
    return format_html("{} {}", account, mode)
