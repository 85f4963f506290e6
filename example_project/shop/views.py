from __future__ import annotations

import stripe
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.middleware import EntitlementsHttpRequest
from entitlements_app.sync import sync_customer
from example_project.settings import STRIPE

from . import billing, event_log, orders, stripe_faults
from .next_page import redirect_to_next
from .plans import FEATURES, PLANS, Plan


class ShopRequest(EntitlementsHttpRequest):
    """A signed-in user's request."""

    user: User


@login_required
def home(request: ShopRequest) -> HttpResponse:
    news = event_log.newest(request)
    billed = _billed_plan(request)
    context = {
        "billed": billed,
        "customer": billing.get_customer(request.user),
        "features": FEATURES,
        "log": event_log.recent(),
        "news": news,
        "loss_is_armed": stripe_faults.is_loss_armed(),
        "plans": PLANS.values(),
        "usage_url": request.build_absolute_uri(reverse("usage")),
        "waiting": orders.waiting(request, billed),
        "webhook_url": request.build_absolute_uri(reverse("entitlements:webhook")),
    }
    return render(request, "shop/home.html", context)


def denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The site's 403: says what is missing, and which plans have it."""
    missing = getattr(exception, "missing", ())
    features = [feature for feature in FEATURES if feature.lookup_key in missing]
    return render(request, "shop/denied.html", {"missing": features}, status=403)


@never_cache
def tell_news(request: EntitlementsHttpRequest) -> HttpResponse:
    """What `live.js` asks each second: whether the page it stands on is out of date."""
    return JsonResponse({"news": event_log.newest(request)})


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
        orders.remember(request, plan)
    return redirect_to_next(request)


@require_POST
@login_required
def lose_webhook(request: ShopRequest) -> HttpResponse:
    if not STRIPE.simulated:
        raise Http404("Only the simulated Stripe loses webhooks on demand.")
    stripe_faults.lose_next_summary()
    messages.info(request, "The next webhook about entitlements will be lost on its way. Now change the plan.")
    return redirect_to_next(request)


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
    return redirect_to_next(request)


def _billed_plan(request: ShopRequest) -> Plan | None:
    try:
        return billing.get_plan(request.user)
    except stripe.StripeError:
        messages.warning(request, "Stripe does not answer, so the plan is not known. The gates work all the same.")
        return None
