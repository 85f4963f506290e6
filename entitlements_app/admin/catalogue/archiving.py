"""Archive a feature, or several, for good."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app import catalog
from entitlements_app.admin.links import Links
from entitlements_app.admin.listing import AT_ONCE, Button
from entitlements_app.models import Feature
from entitlements_app.transactions import primary

from .attaching import AttachingAdmin, get_attached
from .attempts import KEY, Trouble, attempt, get_key
from .confirmation import is_confirmed
from .pages import entitled, listed, name_of, why_not

ARCHIVE = "archive_feature"
ARCHIVE_SECONDS = 10.0  # then no other one is begun: a web server waits for about 30, and each may take 20
REFUSED_AT_MOST = 5
_NAMED = 10


class ArchivingAdmin(AttachingAdmin):
    def get_urls(self) -> list[URLPattern]:
        return [self.action_path("archive", self.archive, permission=ARCHIVE), *super().get_urls()]

    def get_buttons(self, request: HttpRequest, row: Feature) -> list[Button]:
        if not row.active or why_not(row) or not self.may(request, ARCHIVE):
            return []
        return [self.button("archive", row, _("Archive…"))]

    def archive(self, request: HttpRequest, feature: Feature) -> HttpResponse:
        if problem := why_not(feature):
            return self.say(request, feature, problem, messages.ERROR)
        if not feature.active:
            text = _("“%(key)s” is archived already.") % {"key": feature.lookup_key}
            return self.say(request, feature, text, messages.INFO)
        key = get_key(request.POST)
        if not is_confirmed(request):
            return self._ask_to_archive(request, feature, key)
        made = _archive(feature, key)
        if isinstance(made, Trouble):
            return self._ask_to_archive(request, feature, key, made)
        self.log_change(request, feature, _("Archived."))
        text = _("“%(key)s” is archived, and its lookup key is free again.") % {"key": feature.lookup_key}
        return self.say(request, feature, f"{text} {_what_stays(made)}", messages.SUCCESS)

    def _ask_to_archive(
        self, request: HttpRequest, feature: Feature, key: str, trouble: Trouble | None = None
    ) -> HttpResponse:
        links = Links(self.admin_site, request)
        return self.ask(
            request,
            feature,
            template="archive",
            title=_("Archive “%(key)s” for good?") % {"key": feature.lookup_key},
            button=_("Archive it for good"),
            hidden={KEY: key},
            trouble=trouble,
            entitled=entitled(feature, links, looks=True),
            **self.get_table(request, feature, can_detach=True),
        )

    # Several

    def has_archive_permission(self, request: HttpRequest) -> bool:
        return self.may(request, ARCHIVE) and not why_not()

    @admin.action(description=gettext_lazy("Archive features…"), permissions=["archive"])
    def archive_chosen(self, request: HttpRequest, rows: QuerySet[Feature]) -> HttpResponse | None:
        chosen = list(rows.order_by("lookup_key", "pk").values_list("pk", flat=True)[: AT_ONCE + 1])
        read = primary(Feature).filter(pk__in=chosen[:AT_ONCE]).order_by("lookup_key", "pk")
        features = list(read.prefetch_related("counts", "product_features__product"))
        left_out = {feature.pk: _why_left_out(feature) for feature in features}
        ready = [feature for feature in features if not left_out[feature.pk]]
        if not ready:
            text = _("Nothing is left to archive: what was chosen is archived already, or cannot be changed from here.")
            self.message_user(request, text, messages.WARNING)
            return None
        if not is_confirmed(request):
            return self._ask_to_archive_several(request, features, left_out, is_cut=len(chosen) > AT_ONCE)
        self._archive_several(request, ready)
        return None

    def _ask_to_archive_several(
        self, request: HttpRequest, features: Iterable[Feature], left_out: dict[Any, str], *, is_cut: bool
    ) -> HttpResponse:
        links = Links(self.admin_site, request)
        lines = [
            {
                "pk": feature.pk,
                "link": links.to(feature, feature.lookup_key),
                "name": feature.name,
                "entitled": entitled(feature, links),
                "products": listed((each.product for each in feature.product_features.all()), links),
                "left_out": left_out[feature.pk],
            }
            for feature in features
        ]
        count = sum(not reason for reason in left_out.values())
        return self.ask(
            request,
            None,
            template="archive_several",
            title=ngettext("Archive %d feature for good?", "Archive %d features for good?", count) % count,
            button=ngettext("Archive %d feature for good", "Archive %d features for good", count) % count,
            hidden={"action": "archive_chosen"},
            lines=lines,
            checkbox_name=ACTION_CHECKBOX_NAME,
            at_most=AT_ONCE if is_cut else 0,
        )

    def _archive_several(self, request: HttpRequest, features: Sequence[Feature]) -> None:
        """One by one. After an outage, or a few refusals, the others are not tried: they would fare no better."""
        until = time.monotonic() + ARCHIVE_SECONDS
        done, left, refused = [], list(features), 0
        while left and time.monotonic() < until:
            feature = left.pop(0)
            made = _archive(feature, get_key({}))
            if isinstance(made, Trouble):
                text = _("“%(key)s”: %(problem)s")
                self.message_user(request, text % {"key": feature.lookup_key, "problem": made.text}, messages.ERROR)
                refused += 1
                if made.is_outage or refused == REFUSED_AT_MOST:
                    break
                continue
            self.log_change(request, feature, _("Archived."))
            done.append(feature)
        if done:
            text = ngettext(
                "%(count)d feature is archived: %(keys)s.", "%(count)d features are archived: %(keys)s.", len(done)
            )
            self.message_user(request, text % {"count": len(done), "keys": _keys(done)}, messages.SUCCESS)
        if left:
            text = ngettext(
                "%(count)d was not tried: %(keys)s. Choose it again.",
                "%(count)d were not tried: %(keys)s. Choose them again.",
                len(left),
            )
            self.message_user(request, text % {"count": len(left), "keys": _keys(left)}, messages.WARNING)


def _archive(feature: Feature, key: str) -> Feature | Trouble:
    return attempt(key, lambda key: catalog.archive_feature(feature, idempotency_key=key))


def _why_left_out(feature: Feature) -> str:
    return _("Archived already: it is left out.") if not feature.active else why_not(feature)


def _keys(features: Sequence[Feature]) -> str:
    return _first([f"“{feature.lookup_key}”" for feature in features])


def _what_stays(feature: Feature) -> str:
    """What an archived feature goes on doing."""
    names = [name_of(each.product) for each in get_attached(feature)]
    if not names:
        return _("No product has it, so no new subscription grants it. Who is entitled to it stays so.")
    text = _("Products that have it keep granting it, until it is detached from them: %(products)s.")
    return text % {"products": _first(names)}


def _first(names: Sequence[str]) -> str:
    shown, left = ", ".join(names[:_NAMED]), len(names) - _NAMED
    return shown if left <= 0 else f"{shown} {ngettext('and %d more', 'and %d more', left) % left}"
