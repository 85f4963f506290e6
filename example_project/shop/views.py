from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import stripe
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from entitlements_app.decorators import entitlement_required
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.middleware import EntitlementsHttpRequest
from entitlements_app.models import Customer, EntitlementChange, WebhookEvent
from entitlements_app.sync import sync_customer

from . import billing, stripe_faults
from .demo_sign_in import USERS
from .plans import ADVANCED_REPORTING, FEATURES, PLANS, PREMIUM_SUPPORT, Feature, Plan

ROWS = 8
PATIENCE = 8  # seconds after which a webhook that did not come is worth a word

# Which feature a page needs, for the overview and for the page that says no. The gates are on the views themselves.
PAGES = {"support": PREMIUM_SUPPORT, "reports": ADVANCED_REPORTING}


class ShopRequest(EntitlementsHttpRequest):
    """A signed-in user's request."""

    user: User


@login_required
def home(request: ShopRequest) -> HttpResponse:
    billed = _billed_plan(request)
    waiting = _waiting(request, billed)  # asks request.entitlements first: what is listed below is not older
    context = {
        "billed": billed,
        "changes": EntitlementChange.objects.filter(effective=True).select_related("subscriber").order_by("-pk")[:ROWS],
        "customer": billing.get_customer(request.user),
        "events": _recent_events(),
        "features": FEATURES,
        "loss_is_armed": stripe_faults.is_loss_armed(),
        "pages": [{"name": name, "url": reverse(name), "feature": feature} for name, feature in PAGES.items()],
        "plans": PLANS.values(),
        "usage_url": request.build_absolute_uri(reverse("usage")),
        "waiting": waiting,
        "webhook_url": request.build_absolute_uri(reverse("entitlements:webhook")),
    }
    return render(request, "shop/home.html", _frame() | context)


@entitlement_required("premium_support")
def support(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/support.html", _frame())


@entitlement_required("advanced_reporting")
def reports(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/reports.html", _frame())


def denied(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  (Django's signature)
    """The site's 403: says what is missing, and which plans have it."""
    page = request.resolver_match.url_name if request.resolver_match else None
    feature = PAGES.get(page or "")
    context = {"feature": feature, "plans": _plans_with(feature)}
    return render(request, "shop/denied.html", _frame() | context, status=403)


@require_POST
@login_required
def choose_plan(request: ShopRequest) -> HttpResponse:
    plan = PLANS.get(request.POST.get("plan", ""))
    if plan is None:
        raise Http404("There is no such plan.")
    try:
        billing.switch_plan(request.user, plan)
    except stripe.StripeError as error:
        messages.error(request, f"Stripe did not take the order ({type(error).__name__}). Try again.")
    else:
        request.session["ordered_at"] = time.time()
    return redirect("home")


@require_POST
@login_required
def lose_webhook(request: ShopRequest) -> HttpResponse:
    stripe_faults.lose_next_summary()
    messages.info(request, "The next webhook about entitlements will be lost on its way. Now change the plan.")
    return redirect("home")


@require_POST
@login_required
def ask_stripe(request: ShopRequest) -> HttpResponse:
    customer = billing.get_customer(request.user)
    try:
        synced = sync_customer(customer) if customer else None
    except (StripeUnavailable, StripeRefused) as error:
        messages.error(request, str(error))
    else:
        messages.info(
            request, "Asked Stripe. " + ("Repaired." if synced and synced.changed else "Nothing had changed.")
        )
    return redirect("home")


@dataclass(frozen=True)
class Waiting:
    """The local copy does not say yet what the plan that Stripe bills should give."""

    plan: Plan
    long: bool

    @property
    def reload_after(self) -> int:
        return 5 if self.long else 1


def _waiting(request: ShopRequest, billed: Plan | None) -> Waiting | None:
    if billed is None or billed.lookup_keys == set(request.entitlements):
        return None
    return Waiting(billed, long=time.time() - request.session.get("ordered_at", 0) > PATIENCE)


def _billed_plan(request: ShopRequest) -> Plan | None:
    try:
        return billing.get_plan(request.user)
    except stripe.StripeError:
        messages.warning(request, "Stripe does not answer, so the plan is not known. The gates work all the same.")
        return None


def _recent_events() -> list[dict[str, Any]]:
    events = list(WebhookEvent.objects.order_by("-pk")[:ROWS])
    customers = Customer.objects.filter(stripe_id__in=[event.customer_stripe_id for event in events])
    names = dict(customers.values_list("stripe_id", "subscriber__username"))
    return [{"event": event, "user": names.get(event.customer_stripe_id)} for event in events]


def _plans_with(feature: Feature | None) -> list[Plan]:
    """The cheapest first."""
    return sorted((plan for plan in PLANS.values() if feature in plan.features), key=lambda plan: plan.dollars)


def _frame() -> dict[str, Any]:
    """What each page shows around its own content."""
    return {"demo_users": USERS}
