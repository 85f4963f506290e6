from __future__ import annotations

from collections.abc import Callable, Iterable

import stripe
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from entitlements_app import conf
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.middleware import EntitlementsHttpRequest
from entitlements_app.sync import sync_customer
from entitlements_app.views import CheckoutReturnView
from example_project.settings import BESIDE_DJSTRIPE, STRIPE, WEBHOOK_PATH

from . import billing, event_log, orders, plan_table, stripe_faults
from .billing import Bill
from .next_page import get_next_url, redirect_to_next
from .plans import FEATURES, PAID_PLANS, PLANS, Plan


class ShopRequest(EntitlementsHttpRequest):
    """A signed-in user's request."""

    user: User


class Welcome(CheckoutReturnView):
    """Where the checkout of a paid plan returns to: waits for what the plan includes, then goes on."""

    next_page = "home"

    def get_entitlement_required(self) -> tuple[str, ...]:
        return tuple(sorted(_plan_or_404(self.request.GET.get("plan", ""), PAID_PLANS).lookup_keys))


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
        "entitlements_url": request.build_absolute_uri(reverse("entitlements_api:entitlements")),
        "usage_url": request.build_absolute_uri(reverse("usage")),
        "waiting": orders.waiting(request, bill.plan if bill else None),
        "webhook_url": request.build_absolute_uri(WEBHOOK_PATH),
        "beside_djstripe": BESIDE_DJSTRIPE,
    }
    return render(request, "shop/home.html", context)


def catalogue(request: EntitlementsHttpRequest) -> HttpResponse:
    products, rows = plan_table.compare(request.entitlements, livemode=conf.livemode())
    return render(request, "shop/catalogue.html", {"products": products, "rows": rows})


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
    plan = _plan_or_404(request.POST.get("plan", ""), PLANS.values())
    try:
        place(request.user, plan)
    except stripe.StripeError as error:
        _tell_of_refusal(request, error)
        return redirect_to_next(request)
    orders.remember(request, plan)
    if plan not in PAID_PLANS:
        return redirect_to_next(request)
    return redirect(reverse("welcome", query={"plan": plan.slug, "next": get_next_url(request)}))


def _plan_or_404(slug: str, plans: Iterable[Plan]) -> Plan:
    for plan in plans:
        if plan.slug == slug:
            return plan
    raise Http404("There is no such plan.")


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
