"""Lists of big tables, and pages of one row with buttons for what staff may do.

How far a list looks for the rows that filters and the search box ask for is its `Reach`. Each admin says which of them
an index finds, and which have to make do with the newest rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, NamedTuple, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.utils import label_for_field
from django.contrib.admin.views.main import ORDER_VAR, SEARCH_VAR, ChangeList
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from .bounded import NEWEST, among_newest, at_most
from .links import Links, elsewhere
from .read_only import ReadOnlyAdmin
from .words import MODES, get_mode

AT_ONCE = 500  # rows that one action is done to


class Reach(Enum):
    ALL = "all"  # an index has the order of the list, and most rows are asked for
    FOUND = "found"  # an index finds them, however many, and these are sorted
    NEWEST = "newest"  # no index finds them


class BoundedChangeList(ChangeList):
    """Named for what it shows, in its own order only, and as far as it reaches. Actions and exports are of all rows."""

    model_admin: ListAdmin
    newest = NEWEST
    is_of_newest = False

    @property
    def title(self) -> str:
        return str(capfirst(self.opts.verbose_name_plural))

    @title.setter
    def title(self, title: str) -> None:
        """Django's says what to do with a list."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """By another column a big table would be sorted whole."""
        self.params.pop(ORDER_VAR, None)
        return list(super().get_ordering(request, queryset))

    def get_results(self, request: HttpRequest) -> None:
        reach = self.model_admin.get_reach(request, self.query.strip())
        self.is_of_newest = reach is Reach.NEWEST
        if self.is_of_newest:
            self.queryset = among_newest(self.queryset)
        elif reach is Reach.FOUND:
            rows = self.apply_select_related(at_most(self.queryset))
            self.queryset = rows.order_by(*self.queryset.query.order_by)
        super().get_results(request)


class Button(NamedTuple):
    """A POST about the row of its page. `title` says in a few words what will happen."""

    address: str
    label: str
    title: str


class ListAdmin(ReadOnlyAdmin):
    change_form_template = "admin/entitlements_app/record.html"
    linked: ClassVar[tuple[str, ...]] = ()  # of `fields`: other rows, whose pages are linked for who may see them

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        """How far the list looks that is asked for, when `term` is searched for."""
        return Reach.FOUND if term or is_filtered(request) else Reach.ALL

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        links = Links(self.admin_site, request)
        names = super().get_fields(request, obj)
        return [
            links.column(name, str(label_for_field(name, self.model))) if name in self.linked else name
            for name in names
        ]

    @admin.display(description=_("mode"))
    def mode(self, row: Any) -> str:
        return get_mode(row.livemode, row.account)

    def get_buttons(self, request: HttpRequest, row: Any) -> list[Button]:
        """What who asks may do to this row."""
        return []

    def button(self, name: str, row: Model, label: str, title: str = "") -> Button:
        """For the `action_path` of that name."""
        return Button(self.page(name, row), label, title)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if row := context.get("original"):
            context["buttons"] = self.get_buttons(request, row)
            context["elsewhere"] = elsewhere(self.admin_site, request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **options: Any
    ) -> HttpResponse | None:
        """The rows of an action are chosen by keys that are some, which Django does not ask."""
        try:
            for text in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.clean(text, None)
        except ValidationError as error:
            raise BadRequest("A row was chosen by what is no primary key.") from error
        response: HttpResponse | None = super().response_action(request, queryset, *args, **options)
        return response

    def say_if_cut(self, request: HttpRequest, chosen: Sequence[Model]) -> None:
        """After an action that took the first AT_ONCE of these rows."""
        if len(chosen) > AT_ONCE:
            text = _("Only the first %(number)d were taken. Choose the action again for the others.")
            self.message_user(request, text % {"number": AT_ONCE}, messages.WARNING)

    def log_list_action(self, request: HttpRequest, what: str, message: str) -> None:
        """An entry in the admin's log that is about no row."""
        LogEntry.objects.create(
            user_id=cast(Any, request.user.pk),  # who may do it is signed in
            content_type_id=get_content_type_for_model(self.model).pk,
            object_repr=what[:200],
            action_flag=CHANGE,
            change_message=message,
        )

    def back(self, request: HttpRequest, row: Model | None) -> HttpResponseRedirect:
        """To the row's page, or, if it has none any more, to the list."""
        if row is None or not self.has_view_permission(request):
            return HttpResponseRedirect(self.page("changelist"))
        return HttpResponseRedirect(self.page("change", row))


def is_filtered(request: HttpRequest) -> bool:
    """Whether a list is asked for some of its rows."""
    return any(name not in ("p", "o", "e", "all", SEARCH_VAR) for name in request.GET)


class Choice(admin.SimpleListFilter):
    """Filters by one column, whose values are few. Anything else in the query string is passed over."""

    column = ""
    words: Any = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return self.words

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(**{self.column: value}) if value in dict(self.words) else queryset


class ModeFilter(Choice):
    title = _("mode")
    parameter_name = "livemode__exact"
    column = "livemode"
    words = MODES
