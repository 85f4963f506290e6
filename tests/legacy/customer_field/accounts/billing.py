import json

import stripe
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from accounts.models import Profile

client = stripe.StripeClient(settings.STRIPE_API_KEY, base_addresses={"api": settings.STRIPE_API_BASE})


@login_required
@require_POST
def checkout(request):
    profile = request.user.profile
    if not profile.stripe_customer_id:
        customer = client.v1.customers.create({"email": request.user.email})
        profile.stripe_customer_id = customer.id
        profile.save()
    return HttpResponse(profile.stripe_customer_id)


@csrf_exempt
@require_POST
def webhook(request):
    signature = request.headers["Stripe-Signature"]
    stripe.WebhookSignature.verify_header(request.body.decode(), signature, settings.STRIPE_OLD_WEBHOOK_SECRET, 300)
    event = json.loads(request.body)
    if event["type"].startswith("customer.subscription."):
        subscription = event["data"]["object"]
        Profile.objects.filter(stripe_customer_id=subscription["customer"]).update(
            subscription_status=subscription["status"]
        )
    return HttpResponse()
