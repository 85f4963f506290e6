from functools import wraps

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from djstripe.models import Product


def customers_of(user):
    return user.djstripe_customers.filter(livemode=settings.STRIPE_LIVE_MODE)


def is_subscribed(user, *names):
    products = Product.objects.filter(name__in=names)
    return any(customer.is_subscribed_to(product) for customer in customers_of(user) for product in products)


def has_active_subscription(user):
    return any(customer.active_subscriptions for customer in customers_of(user))


def is_on_plan(user, name):
    product = Product.objects.get(name=name)
    subscriptions = [each for customer in customers_of(user) for each in customer.valid_subscriptions]
    return any(subscription.plan["product"] == product.id for subscription in subscriptions)


def subscription_required(*names):
    def decorate(view):
        @login_required
        @wraps(view)
        def wrapper(request, *args, **kwargs):
            if not (request.user.is_staff or is_subscribed(request.user, *names)):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return wrapper

    return decorate
