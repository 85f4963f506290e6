"""The endpoints, and what stands below them."""

from __future__ import annotations

import json
import os

import stripe
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from bench.people import SECRET

_INSERT = """
INSERT INTO bench_floor (
    stripe_id, account, livemode, type, created, sent_at, customer_stripe_id, payload, status, error, attempts,
    next_attempt_at, received_at
) VALUES (%s, '', %s, %s, %s, %s, %s, %s, 'pending', '', 0, now() + interval '60 s', now())
"""


@csrf_exempt
def floor(request: HttpRequest) -> HttpResponse:
    """Verify, `json.loads`, one insert: no endpoint that stores what it verified can do less."""
    body, header = request.body, request.headers["Stripe-Signature"]
    stripe.WebhookSignature.verify_header(body.decode(), header, SECRET, 300)
    event = json.loads(body)
    sent_at = int(header.partition(",")[0].removeprefix("t="))
    values = (event["id"], event["livemode"], event["type"], event["created"], sent_at)
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, (*values, event["data"]["object"]["customer"], body.decode()))
    return HttpResponse(event["id"])


@csrf_exempt
def empty(request: HttpRequest) -> HttpResponse:
    """What gunicorn and Django take by themselves. The first answer tells who serves, with a database open."""
    connection.ensure_connection()
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("ours/", include("entitlements_app.urls")),
    path("djstripe/", include("djstripe.urls", namespace="djstripe")),
    path("floor/", floor),
    path("empty/", empty),
]
