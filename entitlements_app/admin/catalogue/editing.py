"""Features are made and edited: through `catalog`, and not by saving a row."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminErrorList, AdminForm
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app import catalog
from entitlements_app.admin.links import Links
from entitlements_app.admin.words import NOTHING, block
from entitlements_app.models import Feature
from entitlements_app.transactions import own

from .archiving import ArchivingAdmin
from .attempts import KEY, Trouble, attempt, get_key
from .edits import OPENED, get_conflicts, get_state, in_the_log, parse_state
from .feature_forms import AddForm, EditForm, FeatureForm
from .pages import entitled, is_popup, why_not


class EditingAdmin(ArchivingAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.is_permitted(request, "add_feature") and not why_not()

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Of a row: also whether it can be edited."""
        if not self.is_permitted(request, "change_feature"):
            return False
        return not (_why_not_edited(obj) if isinstance(obj, Feature) else why_not())

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[Any, ...]:
        return ("lookup_key", *_facts(Links(self.admin_site, request)))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return ["lookup_key", "name", metadata, *_facts(Links(self.admin_site, request))]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        self.get_to_field(request)
        key = get_key(request.POST)
        if request.method != "POST":
            return self._show_form(request, AddForm(initial=_prefilled(request)), key, extra_context)
        form = AddForm(request.POST)
        if not form.is_valid():
            return self._show_form(request, form, key, extra_context)
        wanted = form.cleaned_data
        there = own(Feature).filter(lookup_key=wanted["lookup_key"], active=True).first()
        made = attempt(
            key,
            lambda key: catalog.create_feature(
                wanted["name"], wanted["lookup_key"], wanted["metadata"], idempotency_key=key
            ),
        )
        if isinstance(made, Trouble):
            return self._show_trouble(request, form, made, extra_context)
        self._tell_of(request, made, was_there=made == there)
        return self._after_adding(request, made)

    def _tell_of(self, request: HttpRequest, made: Feature, *, was_there: bool) -> None:
        """Also in the log, once, however often the form was sent."""
        is_logged = _is_logged(made)
        text = _("“%(key)s” is created. Nobody is entitled to it until it is attached to a product.")
        level = messages.SUCCESS
        if not made.active:
            text = _("This form was sent before: it made “%(key)s”, which was archived since. Nothing was made now.")
            level = messages.WARNING
        elif was_there and not is_logged:
            text, level = _("“%(key)s” was there already, just so. Nothing was made."), messages.INFO
        elif not is_logged:
            self.log_addition(request, made, _("Created “%(key)s”.") % {"key": made.lookup_key})
        self.message_user(request, text % {"key": made.lookup_key}, level)

    def _after_adding(self, request: HttpRequest, made: Feature) -> HttpResponse:
        if is_popup(request):
            return self.response_add(request, made)
        if self.has_view_permission(request):
            return self.back(request, made)
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        self.get_to_field(request)
        if not self.is_permitted(request, "change_feature") or why_not():
            return super().change_view(request, object_id, form_url, extra_context)
        try:
            feature: Feature = self.row(unquote(object_id))
        except Http404:
            return super().change_view(request, object_id, form_url, extra_context)  # which says that it is not there
        if problem := _why_not_edited(feature):
            if request.method == "POST":
                return self.say(request, feature, _("Nothing was changed. %(why)s") % {"why": problem}, messages.ERROR)
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method == "POST":
            return self._edit(request, feature, extra_context)
        return self._show_form(request, EditForm(feature, get_state(feature)), get_key({}), extra_context)

    def _edit(self, request: HttpRequest, feature: Feature, extra: dict[str, Any] | None) -> HttpResponse:
        opened, key, now = parse_state(request.POST.get(OPENED, "")), get_key(request.POST), get_state(feature)
        form = EditForm(feature, opened or now, request.POST)
        if opened is None:
            form.add_error(None, _("The form did not arrive whole. Look through it, and send it again."))
        if not form.is_valid() or opened is None:
            return self._show_form(request, form, key, extra)
        edit = form.get_edit()
        if not edit or edit.is_done(now):
            return self._after_editing(request, feature, _("“%(key)s” is as you want it: nothing was changed."))
        conflicts = get_conflicts(edit, opened, now)
        if conflicts.words:
            form.opened = conflicts.opened
            for field, words in conflicts.words.items():
                form.add_error(field, cast(Any, words))
            return self._show_form(request, form, key, extra)
        made = attempt(
            key,
            lambda key: catalog.update_feature(
                feature, name=edit.name, metadata=edit.metadata or None, idempotency_key=key
            ),
        )
        if isinstance(made, Trouble):
            return self._show_trouble(request, form, made, extra)
        if not edit.is_done(get_state(made)):
            text = _("This form was sent before, and “%(key)s” was changed since. Nothing was changed now.")
            return self._after_editing(request, made, text, messages.WARNING)
        self.log_change(request, made, in_the_log(edit, now))
        text = _("“%(key)s” is changed, in Stripe and here. The site reads the new metadata from now on.")
        if not edit.metadata:
            text = _("“%(key)s” is changed, in Stripe and here.")
        return self._after_editing(request, made, text, messages.SUCCESS)

    def _after_editing(
        self, request: HttpRequest, feature: Feature, text: str, level: int = messages.INFO
    ) -> HttpResponse:
        self.message_user(request, text % {"key": feature.lookup_key}, level)
        if is_popup(request):
            return self.response_change(request, feature)
        return self.back(request, feature)

    def _show_trouble(
        self, request: HttpRequest, form: FeatureForm, trouble: Trouble, extra: dict[str, Any] | None
    ) -> HttpResponse:
        """The form with what was typed, for another try."""
        if not form.takes(trouble):
            self.message_user(request, trouble.text, messages.ERROR)
        return self._show_form(request, form, trouble.key, extra)

    def _show_form(
        self, request: HttpRequest, form: FeatureForm, key: str, extra: dict[str, Any] | None
    ) -> HttpResponse:
        """As the admin renders forms, without the buttons for what this one cannot do."""
        feature = form.instance if isinstance(form, EditForm) else None
        readonly = () if feature is None else self.get_readonly_fields(request, feature)
        fields = form.get_fields() if isinstance(form, AddForm) else ["lookup_key", "name", "metadata", *readonly[1:]]
        admin_form = AdminForm(form, [(None, {"fields": fields})], {}, readonly, model_admin=self)
        hidden = [(KEY, key), *([(OPENED, str(form.opened))] if isinstance(form, EditForm) else [])]
        context = {
            **self.admin_site.each_context(request),
            "title": _("Add feature") if feature is None else _("Change feature"),
            "subtitle": None if feature is None else str(feature),
            "adminform": admin_form,
            "errors": AdminErrorList(form, []),
            "inline_admin_formsets": [],
            "media": self.media + admin_form.media,
            "object_id": None if feature is None else str(feature.pk),
            "original": feature,
            "hidden": hidden,
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            **(extra or {}),
        }
        return self.render_change_form(request, context, add=feature is None, change=feature is not None, obj=feature)

    def get_panels(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        shown = super().get_panels(request, row)
        return {**shown, "is_final": _ARCHIVED if not row.active else ""}


_ARCHIVED = gettext_lazy(
    "It is archived, which is final: it cannot be edited or attached to another product. Products that have it keep "
    "granting it, and who is entitled to it stays so. Its lookup key may be used again, by a new feature."
)


def _why_not_edited(feature: Feature) -> str:
    return why_not(feature) or ("" if feature.active else str(_ARCHIVED))


def _is_logged(made: Feature) -> bool:
    """Whether the admin's log has it as made already, by an earlier try of the same form."""
    entries = LogEntry.objects.filter(content_type=get_content_type_for_model(made), object_id=str(made.pk))
    return entries.filter(action_flag=ADDITION).exists()


def _prefilled(request: HttpRequest) -> dict[str, str]:
    """What a link to the form has filled in."""
    return {name: request.GET[name] for name in ("name", "lookup_key") if name in request.GET}


@admin.display(description=gettext_lazy("metadata"))
def metadata(feature: Feature) -> str:
    return block("\n".join(f"{key} = {value}" for key, value in sorted(feature.metadata.items()))) or NOTHING


def _facts(links: Links) -> list[Any]:
    """What is only shown."""
    return ["state", entitled_column(links), "mode", "stripe_id", "account", "attached_at", "detached_at"]


def entitled_column(links: Links) -> Any:
    @admin.display(description=gettext_lazy("customers entitled"))
    def customers_entitled(feature: Feature) -> str:
        return entitled(feature, links)

    return customers_entitled
