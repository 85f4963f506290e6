"""What the demo has from dj-stripe where it runs beside it. Nowhere else is this imported: it may not be installed.

Customers are made by dj-stripe and carry its key in their metadata. Nobody calls `link()`: a customer that dj-stripe
ties to a user is that user's here, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import User
from djstripe.apps import __version__
from djstripe.enums import WebhookEndpointStatus
from djstripe.models import Account, Customer, WebhookEndpoint
from djstripe.settings import djstripe_settings

VERSION = f"dj-stripe {__version__}"


def make_endpoint(url: str, *, enabled_events: Sequence[str], secret: str) -> None:
    """dj-stripe then knows the secret by which Stripe signs what it posts there. As `manage.py stripe_listen` does."""
    WebhookEndpoint.objects.create(
        id="djstripe_whfwd_demo",
        api_version=djstripe_settings.STRIPE_API_VERSION,
        djstripe_owner_account=Account.get_or_retrieve_for_api_key(djstripe_settings.STRIPE_SECRET_KEY),
        djstripe_uuid=url.rstrip("/").rpartition("/")[2],
        enabled_events=list(enabled_events),
        livemode=False,
        secret=secret,
        status=WebhookEndpointStatus.enabled,
        url=url,
    )


def create_customer(user: User, *, metadata: dict[str, str]) -> str:
    """The id of the customer that dj-stripe makes for its subscriber, the user, or has made."""
    customer, _ = Customer.get_or_create(subscriber=user, metadata=metadata)
    return str(customer.id)


def adopt(user: User, customer_id: str) -> None:
    """Let dj-stripe know whose a customer is that Stripe has, and its own database not."""
    customer = Customer._get_or_retrieve(customer_id)
    customer.subscriber = user
    customer.save()
