"""Explain: choose who and a key, get yes or no and why, in the words of `entitlements_explain`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from entitlements_app.explain import explain_found, read_catalogue
from entitlements_app.explanation import Explanation
from entitlements_app.explanation_text import Paragraph, get_paragraphs
from entitlements_app.models import Customer, EntitlementChange, EntitlementOverride
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.transactions import alias, primary
from entitlements_app.who_is_meant import NobodyMeant, SeveralMeant, find, get_name, get_ways

from .decisions import KNOWN_KEYS
from .links import address_of, list_of, page_of
from .read_only import ReadOnlyAdmin


class ExplainPage(ReadOnlyAdmin):
    """`explain/` beside the list of customers, about `customer`, `subscriber` or `who`, and a `key`."""

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_explain"
        view = require_safe(self.admin_site.admin_view(self.explain_view))
        return [path("explain/", view, name=name), *super().get_urls()]

    def explain_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        who, key = request.GET.get("who", "").strip(), request.GET.get("key", "").strip()
        try:
            if who:
                return HttpResponseRedirect(self._address(find(who), key))
            found = _read_row(request)
        except SeveralMeant as error:
            choices = [(self._address(row, key), exact, get_name(row)) for exact, row in error.candidates]
            return self._show(request, who=who, key=key, problem=str(error), choices=choices, is_cut=error.is_cut)
        except NobodyMeant as error:
            return self._show(request, who=who, key=key, problem=str(error))
        return self._show(request, found=found, key=key, problem=_problem(request, found, key))

    def _address(self, found: Model, key: str) -> str:
        """Of the explanation about this subscriber, or customer that is nobody's."""
        whose = "customer" if isinstance(found, Customer) else "subscriber"
        return f"{self.page('explain')}?{urlencode({whose: found.pk, 'key': key})}"

    def _show(
        self, request: HttpRequest, *, found: Model | None = None, key: str, problem: str = "", **context: Any
    ) -> HttpResponse:
        catalogue = read_catalogue()
        told = explain_found(found, key, catalogue=catalogue) if found is not None and key and not problem else None
        subscriber = _subscriber_of(found)
        request.current_app = self.admin_site.name  # for {% url %}
        customers = list_of(self.admin_site, request, Customer)
        return TemplateResponse(
            request,
            "admin/entitlements_app/customer/explain_page.html",
            {
                **self.admin_site.each_context(request),
                "title": _("Why, or why not?"),
                "opts": self.opts,
                "crumbs": self._crumbs(found, customers),
                "found": found,
                "of_customer": isinstance(found, Customer),
                "key": key,
                "problem": problem,
                "told": told,
                "paragraphs": _paragraphs(told, subscriber or found),
                "known_keys": catalogue,
                "known_keys_id": KNOWN_KEYS,
                "ways": get_ways(),
                "customer_list": customers,
                "subscriber_page": page_of(self.admin_site, request, subscriber),
                "change_list": list_of(self.admin_site, request, EntitlementChange),
                "override_page": self._override_page(request, subscriber, key),
                **context,
            },
        )

    def _crumbs(self, found: Model | None, customers: str) -> list[tuple[str, str]]:
        app = reverse("admin:app_list", args=[self.opts.app_label], current_app=self.admin_site.name)
        crumbs = [(app, str(self.opts.app_config.verbose_name)), (customers, _("Customers"))]
        if isinstance(found, Customer):
            crumbs.append((self.page("change", found), str(found)))
        return crumbs

    def _override_page(self, request: HttpRequest, subscriber: Model | None, key: str) -> str:
        """Where the key is granted to the subscriber, or denied; empty for who may not."""
        site = self.admin_site
        if subscriber is None or not site.is_registered(EntitlementOverride):
            return ""
        if not site.get_model_admin(EntitlementOverride).has_add_permission(request):
            return ""
        query = urlencode({"subscriber": subscriber.pk, "lookup_key": key})
        return f"{address_of(site, EntitlementOverride, 'add')}?{query}"


def _read_row(request: HttpRequest) -> Model | None:
    """Whom the address names by primary key, if it does. Raises `NobodyMeant`."""
    named: dict[str, QuerySet[Any]] = {
        "customer": primary(Customer).select_related("subscriber"),
        "subscriber": get_subscriber_model()._base_manager.using(alias()),
    }
    for name, rows in named.items():
        if text := request.GET.get(name, ""):
            try:
                found: Model = rows.get(pk=rows.model._meta.pk.to_python(text))
            except (ObjectDoesNotExist, ValidationError) as error:
                message = _("There is no such %(model)s.") % {"model": rows.model._meta.verbose_name}
                raise NobodyMeant(message) from error
            return found
    return None


def _problem(request: HttpRequest, found: Model | None, key: str) -> str:
    """What is wrong with the question, in a sentence."""
    if found is None:
        return _("Say who: %(ways)s.") % {"ways": get_ways()} if "who" in request.GET else ""
    if "\0" in key:
        return _("A lookup key cannot contain the character NUL.")
    return _("Name a lookup key.") if "key" in request.GET and not key else ""


def _subscriber_of(found: Model | None) -> Model | None:
    return found.subscriber if isinstance(found, Customer) else found


def _paragraphs(told: Explanation | None, found: Model | None) -> list[Paragraph]:
    if told is None or found is None:
        return []
    return [Paragraph(_("Subscriber"), [get_name(found)]), *get_paragraphs(told)]
