"""The page to which Stripe's checkout returns: it waits for what was bought, and goes on.

It holds no worker: each look is a request of its own, and the page asks for the next one by itself. How long a visitor
has been waiting is told by the address, and whoever changes that misleads only himself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.mixins import AccessMixin
from django.contrib.auth.views import RedirectURLMixin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.cache import add_never_cache_headers
from django.views.generic import TemplateView

from . import reconcile
from .access import get_entitlements
from .denials import is_signed_in, send_to_login
from .request_entitlements import get_request_subscriber
from .requirements import declared
from .subscribers import subscriber_key
from .transactions import without_atomic_requests

PARAMETER = "waiting_since"  # Unix seconds of our clock
COMPUTED = 2  # seconds that Stripe was measured to need until its list shows a purchase
BRISK = 20  # seconds in which the page looks often
PATIENCE = 120  # seconds after which it stops


@dataclass(frozen=True)
class Wait:
    """How long a visitor has been waiting, by the address of the page."""

    since: int
    seconds: float

    @classmethod
    def of(cls, request: HttpRequest) -> Wait:
        text, now = request.GET.get(PARAMETER, ""), time.time()
        told = int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else now
        since = int(min(told, now))
        return cls(since, now - since)

    @property
    def is_long(self) -> bool:
        return self.seconds >= PATIENCE

    @property
    def next_look(self) -> int | None:
        """In how many seconds the page looks again, `None`: not by itself."""
        if self.is_long:
            return None
        return 2 if self.seconds < BRISK else 5


class CheckoutReturnView(AccessMixin, RedirectURLMixin, TemplateView):
    """Wait until the visitor's subscriber is entitled to all of `entitlement_required`, then go on.

    That is a lookup key or a tuple of them; with `entitlement_any = True` one of them is enough. Where to go on is
    `next_page`, or `?next=` if that is of this site. Until then a page says so and loads itself again, for two minutes.
    Stripe is asked once, after some seconds, in case its event was lost. Anonymous visitors are sent to log in and come
    back. A view that declares nothing, or has nowhere to go on to, raises `ImproperlyConfigured`.

    The template is given `refresh_after` (`None` when the page has stopped), `refresh_url`, `again_url` and `next_url`.
    """

    http_method_names = ["get", "head", "options"]
    template_name = "entitlements_app/checkout_return.html"
    entitlement_required: str | tuple[str, ...] | None = None
    entitlement_any: bool = False

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponse]:
        return without_atomic_requests(super().as_view(**initkwargs))  # Stripe is asked outside of any transaction

    def get_entitlement_required(self) -> str | tuple[str, ...] | None:
        """What is waited for. Override it to decide at the time of the request."""
        return self.entitlement_required

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        next_url = self.get_success_url()
        subscriber, wait = get_request_subscriber(request), Wait.of(request)
        if self._is_entitled(subscriber):
            return HttpResponseRedirect(next_url)
        if subscriber_key(subscriber) is None and not is_signed_in(request):
            return self.handle_no_permission()
        if _ask_stripe(subscriber, wait) and self._is_entitled(subscriber):
            return HttpResponseRedirect(next_url)
        context = self.get_context_data(
            next_url=next_url,
            again_url=_url_of(request, since=None),
            refresh_url=_url_of(request, since=wait.since),
            refresh_after=wait.next_look,
            **kwargs,
        )
        return self.render_to_response(context)

    def handle_no_permission(self) -> HttpResponseBase:  # type: ignore[override]
        """The answer to a visitor of whom nobody knows who it is."""
        if getattr(self.request, "user", None) is None:  # where `AccessMixin` itself would fail
            return send_to_login(self.request, self.get_login_url(), self.get_redirect_field_name())
        return super().handle_no_permission()

    def _is_entitled(self, subscriber: object) -> bool:
        """Asked anew each time: the memo of the request is from before the fetch."""
        requirement = declared(self, self.get_entitlement_required(), any=self.entitlement_any)
        return not requirement.missing_from(get_entitlements(subscriber))


def _ask_stripe(subscriber: object, wait: Wait) -> bool:
    """Once in a wait, and not before Stripe can be expected to know. Returns whether there may be news."""
    if wait.seconds < COMPUTED:
        return False
    return reconcile.fetch_awaited(subscriber, unless_within=timedelta(seconds=wait.seconds - COMPUTED))


def _url_of(request: HttpRequest, *, since: int | None) -> str:
    """This page, seen from itself, with all that its address says besides."""
    query = request.GET.copy()
    query.pop(PARAMETER, None)
    if since is not None:
        query[PARAMETER] = str(since)
    return f"?{query.urlencode()}"
