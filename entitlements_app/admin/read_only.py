"""Pages that show what is Stripe's word, or our record of it: looked at by who may view, edited by nobody.

What staff may do has its own view: a POST, with a permission of its own, outside of ATOMIC_REQUESTS, in the admin log.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import MAXYEAR, MINYEAR
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from entitlements_app.subscriber_search import can_be_found
from entitlements_app.transactions import primary, without_atomic_requests

from .bounded import BoundedPaginator
from .links import address_of

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin  # generic for the type checker only

Action = Callable[[HttpRequest, Any], HttpResponseBase]
ListAction = Callable[[HttpRequest], HttpResponseBase]


class ReadOnlyAdmin(_ModelAdmin):
    paginator = BoundedPaginator
    list_per_page = 50
    empty_value_display = "–"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each is a count of its own
    sortable_by = ()  # by a column that has no index, a big table would be sorted whole
    ordering: ClassVar[tuple[str, ...]] = ("-pk",)
    moments: ClassVar[tuple[str, ...]] = ()  # lookups of a time that links to the list ask for

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """The list's filters and what links ask for, and not whatever a query string can say of a column.

        That would tell what no page shows, have a big table read whole, or be no condition for the database.
        """
        filters = self.get_list_filter(request)
        if lookup in {getattr(each, "parameter_name", None) for each in filters}:
            return True
        if lookup in self.moments:
            return _is_moment(value)
        choices = [each() if callable(each) else each for each in self.opts.related_fkey_lookups]
        if any((lookup, value) in url_params_from_lookup_dict(each).items() for each in choices):
            return True  # of a field of the site's own that refers to these rows
        columns = {each[0] if isinstance(each, tuple) else each for each in filters}
        is_named = any(isinstance(each, str) and f"{lookup}__".startswith(f"{each}__") for each in columns)
        return is_named and super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """As Django does it; the search box refuses a NUL, but what offers rows to choose from takes any text."""
        if not can_be_found(search_term):
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)

    def get_urls(self) -> list[URLPattern]:
        """No page of ours needs one transaction around it, and an action for many rows opens one for each."""
        urls: list[URLPattern] = super().get_urls()
        for url in urls:
            url.callback = without_atomic_requests(url.callback)
        return urls

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Whether who asks has this permission of this app, and may see these rows."""
        return self.has_view_permission(request) and request.user.has_perm(f"{self.opts.app_label}.{permission}")

    def action_path(self, name: str, action: Action, *, permission: str) -> URLPattern:
        """`<pk>/<name>/`, named like Django's own: a POST of who has the permission, about one row.

        `action` runs outside of a transaction, whatever ATOMIC_REQUESTS says, and gets the row as the primary
        database has it.
        """

        def view(request: HttpRequest, object_id: str) -> HttpResponseBase:
            if not self.may(request, permission):
                raise PermissionDenied
            return action(request, self.row(object_id))

        return self._post(f"<path:object_id>/{name}/", name, update_wrapper(view, action))

    def list_action_path(self, name: str, action: ListAction, *, permission: str) -> URLPattern:
        """`<name>/`: the same about the list as it is filtered by the query string."""

        def view(request: HttpRequest) -> HttpResponseBase:
            if not self.may(request, permission):
                raise PermissionDenied
            return action(request)

        return self._post(f"{name}/", name, update_wrapper(view, action))

    def _post(self, route: str, name: str, view: Callable[..., HttpResponseBase]) -> URLPattern:
        guarded = self._signed_in(require_POST(self.admin_site.admin_view(view)))
        return path(
            route, without_atomic_requests(guarded), name=f"{self.opts.app_label}_{self.opts.model_name}_{name}"
        )

    def _signed_in(self, view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        """Whose session ended comes back to the page with the button after signing in: here a GET is no answer."""

        def signed_in(request: HttpRequest, **row: str) -> HttpResponseBase:
            if request.method != "POST" or self.admin_site.has_permission(request):
                return view(request, **row)
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{'change' if row else 'changelist'}"
            page = reverse(name, args=list(row.values()), current_app=self.admin_site.name)
            return redirect_to_login(page, reverse("admin:login", current_app=self.admin_site.name))

        return update_wrapper(signed_in, view)

    def page(self, name: str, row: Model | None = None) -> str:
        """The address of the page of that name, about a row or all."""
        return address_of(self.admin_site, self.model, name, row)

    def row(self, object_id: str) -> Any:
        """The row of that primary key on the primary database. Raises `Http404`."""
        try:
            return primary(self.model).get(pk=self.opts.pk.to_python(object_id))
        except (self.model.DoesNotExist, ValidationError) as error:
            raise Http404(_("There is no such row.")) from error


def _is_moment(text: Any) -> bool:
    """Whether this is a time, in all time zones."""
    try:
        moment = parse_datetime(str(text))
    except ValueError:
        return False
    return moment is not None and MINYEAR < moment.year < MAXYEAR
