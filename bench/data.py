"""A thousand subscribers who hold five of twenty features each, told to every contender in its own tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.utils import timezone
from djstripe import models as djstripe
from flags.models import FlagState
from guardian.models import UserObjectPermission
from waffle.models import Flag

from entitlements_app.models import ActiveEntitlement, Customer, EntitlementOverride, Feature

SUBSCRIBERS: Final = 1000
PLANS: Final = [[f"feature_{plan}_{number}" for number in range(5)] for plan in range(4)]
KEY: Final = PLANS[0][2]  # what everybody is asked about
OTHER_KEY: Final = PLANS[1][2]  # what no holder of that holds
PRODUCT: Final = "prod_0"
PERMISSION: Final = "entitlements_app.view_feature"


def make() -> tuple[list[User], User]:
    """The subscribers who hold `KEY`, and one who does not."""
    User.objects.bulk_create(User(username=f"user-{number}", password="!") for number in range(SUBSCRIBERS))
    users = list(User.objects.exclude(username="AnonymousUser").order_by("pk"))  # guardian has made that one
    by_plan = [users[plan :: len(PLANS)] for plan in range(len(PLANS))]
    _tell_entitlements(by_plan)
    _tell_djstripe(by_plan)
    _tell_permissions(by_plan[0])
    _tell_flags(by_plan)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return by_plan[0], by_plan[1][0]


def _tell_entitlements(by_plan: list[list[User]]) -> None:
    features = {
        key: Feature.objects.create(stripe_id=f"feat_{key}", livemode=False, lookup_key=key, name=key)
        for keys in PLANS
        for key in keys
    }
    for keys, users in zip(PLANS, by_plan, strict=True):
        customers = Customer.objects.bulk_create(
            Customer(stripe_id=f"cus_{user.pk}", livemode=False, subscriber=user) for user in users
        )
        ActiveEntitlement.objects.bulk_create(
            ActiveEntitlement(
                customer=customer, feature=features[key], lookup_key=key, stripe_id=f"ent_{customer.pk}_{key}"
            )
            for customer in customers
            for key in keys
        )
        # One in ten has an override, which leaves alone what is asked about.
        EntitlementOverride.objects.bulk_create(
            EntitlementOverride(
                subscriber=user,
                lookup_key=PLANS[3][4],
                effect="grant",
                expires_at=timezone.now() + timedelta(days=30),
            )
            for user in users[::10]
        )


def _tell_djstripe(by_plan: list[list[User]]) -> None:
    for plan, (keys, users) in enumerate(zip(PLANS, by_plan, strict=True)):
        product = djstripe.Product.objects.create(id=f"prod_{plan}", name=f"Plan {plan}", livemode=False)
        price = djstripe.Price.objects.create(
            id=f"price_{plan}", active=True, currency="usd", product=product, livemode=False
        )
        for key in keys:
            feature = djstripe.Feature.objects.create(
                id=f"feat_{key}", livemode=False, stripe_data={"lookup_key": key, "name": key}
            )
            djstripe.ProductFeature.objects.create(
                id=f"prodft_{key}", product=product, entitlement_feature=feature, livemode=False
            )
        customers = djstripe.Customer.objects.bulk_create(
            djstripe.Customer(id=f"cus_{user.pk}", subscriber=user, livemode=False, stripe_data={"name": user.username})
            for user in users
        )
        subscriptions = djstripe.Subscription.objects.bulk_create(
            djstripe.Subscription(
                id=f"sub_{customer.id}", customer=customer, livemode=False, stripe_data=_subscription_data()
            )
            for customer in customers
        )
        djstripe.SubscriptionItem.objects.bulk_create(
            djstripe.SubscriptionItem(
                id=f"si_{subscription.id}", subscription=subscription, price=price, livemode=False
            )
            for subscription in subscriptions
        )


def _subscription_data() -> dict[str, Any]:
    ends = timezone.now() + timedelta(days=30)
    return {"status": "active", "current_period_end": int(ends.timestamp()), "cancel_at_period_end": False}


def _tell_permissions(holders: list[User]) -> None:
    """Django's own permissions, and guardian's of the one object that stands for the feature."""
    permission = Permission.objects.get(codename="view_feature", content_type__app_label="entitlements_app")
    User.user_permissions.through.objects.bulk_create(
        User.user_permissions.through(user_id=user.pk, permission_id=permission.pk) for user in holders
    )
    feature = Feature.objects.get(lookup_key=KEY)
    UserObjectPermission.objects.bulk_create(
        UserObjectPermission(
            user=user,
            permission=permission,
            content_type=ContentType.objects.get_for_model(Feature),
            object_pk=str(feature.pk),
        )
        for user in holders
    )


def _tell_flags(by_plan: list[list[User]]) -> None:
    for keys, users in zip(PLANS, by_plan, strict=True):
        for key in keys:
            Flag.objects.create(name=key).users.set(users)
            # Every check of django-flags reads all conditions of all flags. With one for each user it would read
            # 5,000 rows, so it gets one for each flag and is asked about that user.
            FlagState.objects.create(name=key, condition="user", value=users[0].username)
