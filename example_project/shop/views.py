from __future__ import annotations

from collections.abc import Callable

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
from .billing import Bill
from .next_page import redirect_to_next
from .plans import FEATURES, PLANS, Plan


class ShopRequest(EntitlementsHttpRequest):
    """A signed-in user's request."""

    user: User


@login_required
def home(request: ShopRequest) -> HttpResponse:
    news = event_log.newest(request)
    bill = _get_bill(request)
    context = {
        "bill": bill,
        "customer": billing.get_customer(request.user),
        "features": FEATURES,
        "log": event_log.recent(),
        "news": news,
        "loss_is_armed": stripe_faults.is_loss_armed(),
        "plans": PLANS.values(),
        "trial_days": billing.TRIAL_DAYS,
        "usage_url": request.build_absolute_uri(reverse("usage")),
        "waiting": orders.waiting(request, bill.plan if bill else None),
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
    return _order(request, billing.switch_plan)


@require_POST
@login_required
def try_plan(request: ShopRequest) -> HttpResponse:
    return _order(request, billing.start_trial)


def _order(request: ShopRequest, place: Callable[[User, Plan], None]) -> HttpResponse:
    plan = PLANS.get(request.POST.get("plan", ""))
    if plan is None:
        raise Http404("There is no such plan.")
    try:
        place(request.user, plan)
    except stripe.StripeError as error:
        _tell_of_refusal(request, error)
    else:
        orders.remember(request, plan)
    return redirect_to_next(request)


@require_POST
@login_required
def cancel_at_period_end(request: ShopRequest) -> HttpResponse:
    try:
        billing.cancel_at_period_end(request.user)
    except stripe.StripeError as error:
        _tell_of_refusal(request, error)
    return redirect_to_next(request)


def _tell_of_refusal(request: ShopRequest, error: stripe.StripeError) -> None:
    messages.error(request, f"Stripe did not take the order ({type(error).__name__}). Try again.")


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


def _get_bill(request: ShopRequest) -> Bill | None:
    try:
        return billing.get_bill(request.user)
    except stripe.StripeError:
        messages.warning(request, "Stripe does not answer, so the plan is not known. The gates work all the same.")
        return None
