"""Attach a feature to a product, and detach it: from the page of either."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.translation import gettext as _

from entitlements_app import catalog
from entitlements_app.admin.links import Links
from entitlements_app.admin.words import active_tag
from entitlements_app.models import Feature, Product, ProductFeature
from entitlements_app.transactions import own, primary

from .attempts import KEY, Trouble, attempt, get_key
from .confirmation import ConfirmingAdmin, is_confirmed, when_it_counts
from .pages import entitled, is_popup, listed, name_of, named_by, why_not

ATTACH, DETACH = "add_productfeature", "delete_productfeature"
LISTED_AT_MOST = 200
OFFERED_AT_MOST = 500


class Pair(NamedTuple):
    """A feature and a product, of the own account and the configured mode."""

    feature: Feature
    product: Product

    @property
    def names(self) -> dict[str, str]:
        return {"key": self.feature.lookup_key, "product": name_of(self.product)}

    @property
    def is_attached(self) -> bool:
        return primary(ProductFeature).filter(feature=self.feature, product=self.product).exists()


class AttachingAdmin(ConfirmingAdmin):
    """`other`: what the rows of this admin are attached to. A form names one of them by its primary key."""

    other: type[Feature] | type[Product]

    def get_urls(self) -> list[URLPattern]:
        return [
            self.action_path("attach", self.attach, permission=ATTACH),
            self.action_path("detach", self.detach, permission=DETACH),
            *super().get_urls(),
        ]

    def attach(self, request: HttpRequest, row: Any) -> HttpResponse:
        pair = self._pair(request, row)
        if not isinstance(pair, Pair):
            return self.say(request, row, pair, messages.ERROR)
        if pair.is_attached:
            return self.say(request, row, _("%(product)s has “%(key)s” already.") % pair.names, messages.INFO)
        if not pair.feature.active:
            text = _("“%(key)s” is archived, which is final: it cannot be attached to another product.") % pair.names
            return self.say(request, row, text, messages.ERROR)
        key = get_key(request.POST)
        if not is_confirmed(request):
            return self._ask_to_attach(request, row, pair, key)
        made = attempt(key, lambda key: catalog.attach_feature(pair.product, pair.feature, idempotency_key=key))
        if isinstance(made, Trouble):
            return self._ask_to_attach(request, row, pair, key, made)
        self._log(request, pair, _("Attached to %(product)s."), _("Attached “%(key)s”."))
        text = _("“%(key)s” is attached to %(product)s.") % pair.names
        return self.say(request, row, f"{text} {when_it_counts()}", messages.SUCCESS)

    def detach(self, request: HttpRequest, row: Any) -> HttpResponse:
        pair = self._pair(request, row)
        if not isinstance(pair, Pair):
            return self.say(request, row, pair, messages.ERROR)
        if not pair.is_attached:
            return self.say(request, row, _("%(product)s does not have “%(key)s”.") % pair.names, messages.INFO)
        if not is_confirmed(request):
            return self._ask_to_detach(request, row, pair)
        made = attempt("", lambda _key: catalog.detach_feature(pair.product, pair.feature), is_known=False)
        if isinstance(made, Trouble):
            return self._ask_to_detach(request, row, pair, made)
        self._log(request, pair, _("Detached from %(product)s."), _("Detached “%(key)s”."))
        text = _("“%(key)s” is detached from %(product)s.") % pair.names
        return self.say(request, row, f"{text} {when_it_counts()}", messages.SUCCESS)

    def _pair(self, request: HttpRequest, row: Any) -> Pair | str:
        """The row and the other one that was chosen; or why nothing can be done about them."""
        if problem := why_not(row):
            return problem
        other = named_by(own(self.other), request.POST.get(self.other._meta.model_name or ""))
        if isinstance(other, Product):
            return Pair(row, other)
        if isinstance(other, Feature):
            return Pair(other, row)
        return _("Choose a %(model)s that is still there.") % {"model": self.other._meta.verbose_name}

    def _log(self, request: HttpRequest, pair: Pair, to_feature: str, to_product: str) -> None:
        """In the history of both."""
        self.log_change(request, pair.feature, to_feature % pair.names)
        self.log_change(request, pair.product, to_product % pair.names)

    # What is asked before

    def _ask_to_attach(
        self, request: HttpRequest, row: Any, pair: Pair, key: str, trouble: Trouble | None = None
    ) -> HttpResponse:
        return self._ask(
            request,
            row,
            pair,
            title=_("Attach “%(key)s” to %(product)s?") % pair.names,
            button=_("Attach it"),
            effects=[_("Who subscribes to %(product)s from then on is entitled to “%(key)s”.") % pair.names],
            key=key,
            trouble=trouble,
        )

    def _ask_to_detach(
        self, request: HttpRequest, row: Any, pair: Pair, trouble: Trouble | None = None
    ) -> HttpResponse:
        effects = [
            _("Who subscribes to %(product)s from then on is not entitled to “%(key)s” by it.") % pair.names,
            _("Who is entitled to it by another product stays so."),
        ]
        if not pair.feature.active:
            effects.append(_("The feature is archived, so that it can never be attached again."))
        title = _("Detach “%(key)s” from %(product)s?") % pair.names
        return self._ask(request, row, pair, title=title, button=_("Detach it"), effects=effects, trouble=trouble)

    def _ask(
        self, request: HttpRequest, row: Any, pair: Pair, *, effects: list[str], key: str = "", **context: Any
    ) -> HttpResponse:
        other = pair.product if self.other is Product else pair.feature
        hidden = {str(self.other._meta.model_name): other.pk}
        return self.ask(
            request,
            row,
            template="attach",
            hidden={**hidden, KEY: key} if key else hidden,
            effects=[when_it_counts(), *effects],
            facts=self._facts(request, pair),
            **context,
        )

    def _facts(self, request: HttpRequest, pair: Pair) -> list[tuple[str, str]]:
        links = Links(self.admin_site, request)
        products = [each.product for each in get_attached(pair.feature)]
        return [
            (_("Feature"), links.to(pair.feature, pair.feature.name or pair.feature.lookup_key)),
            (_("Product"), links.to(pair.product, name_of(pair.product))),
            (_("Customers entitled now"), entitled(pair.feature, links, looks=True)),
            (_("Products that have it now"), listed(products, links) if products else _("none")),
        ]

    # What the page of a row shows

    def get_panels(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        shown = super().get_panels(request, row)
        if is_popup(request):
            return shown
        can_change = not why_not(row)
        can_attach = can_change and self.may(request, ATTACH) and (isinstance(row, Product) or row.active)
        return {
            **shown,
            **self.get_table(request, row, can_detach=can_change),
            "attached_title": _("Products that have it") if self.other is Product else _("Its features"),
            "attach": self.page("attach", row) if can_attach else "",
            "offered": self._offered(row) if can_attach else (),
            "offered_at_most": OFFERED_AT_MOST,
        }

    def get_table(self, request: HttpRequest, row: Any, *, can_detach: bool) -> dict[str, Any]:
        """What it is attached to, or has, with buttons for who may detach."""
        attached = get_attached(row)
        return {
            "attached": [self._line(request, each) for each in attached[:LISTED_AT_MOST]],
            "attached_left": max(len(attached) - LISTED_AT_MOST, 0),
            "other": self.other._meta,
            "detach": self.page("detach", row) if can_detach and self.may(request, DETACH) else "",
        }

    def _line(self, request: HttpRequest, attached: ProductFeature) -> dict[str, Any]:
        other = attached.product if self.other is Product else attached.feature
        name = name_of(other)
        return {
            "pk": other.pk,
            "name": name,
            "link": Links(self.admin_site, request).to(other, name),
            "state": active_tag(other.active),
            "stripe_id": other.stripe_id,
            "below": other.name if isinstance(other, Feature) else "",
        }

    def _offered(self, row: Feature | Product) -> list[tuple[Any, str]]:
        """What can be attached, or attached to, with its name: as much as fits into one list."""
        if isinstance(row, Feature):
            products = own(Product).exclude(product_features__feature=row).order_by("-active", "name", "pk")
            return [(each.pk, _choice(each)) for each in products[:OFFERED_AT_MOST]]
        features = own(Feature).filter(active=True).exclude(product_features__product=row).order_by("lookup_key", "pk")
        return [(each.pk, _choice(each)) for each in features[:OFFERED_AT_MOST]]


def get_attached(row: Feature | Product) -> list[ProductFeature]:
    """What it is attached to, or has, in the order of their names."""
    rows = primary(ProductFeature).select_related("product", "feature")
    if isinstance(row, Feature):
        return list(rows.filter(feature=row).order_by("product__name", "pk"))
    return list(rows.filter(product=row).order_by("feature__lookup_key", "pk"))


def _choice(row: Feature | Product) -> str:
    """In a list to choose from, where two may have one name."""
    if isinstance(row, Feature):
        return f"{row.lookup_key} – {row.name}" if row.name else row.lookup_key
    name = f"{name_of(row)} ({row.stripe_id})"
    return name if row.active else _("%(product)s, archived") % {"product": name}
