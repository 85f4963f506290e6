import json

import stripe
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from shop.models import User

client = stripe.StripeClient(settings.STRIPE_API_KEY, base_addresses={"api": settings.STRIPE_API_BASE})


@login_required
@require_POST
def checkout(request):
    whose = {"user_id": str(request.user.pk)}
    customer = client.v1.customers.create({"email": request.user.email, "metadata": whose})
    return HttpResponse(customer.id)


@csrf_exempt
@require_POST
def webhook(request):
    signature = request.headers["Stripe-Signature"]
    stripe.WebhookSignature.verify_header(request.body.decode(), signature, settings.STRIPE_OLD_WEBHOOK_SECRET, 300)
    event = json.loads(request.body)
    if event["type"].startswith("customer.subscription."):
        subscription = event["data"]["object"]
        customer = client.v1.customers.retrieve(subscription["customer"])
        pays = subscription["status"] in ("active", "trialing", "past_due")
        plan = subscription["items"]["data"][0]["price"]["metadata"]["plan"]
        User.objects.filter(pk=customer.metadata["user_id"]).update(plan=plan if pays else "free", trial_until=None)
    return HttpResponse()
