from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client

from entitlements_app.testing import StripeSimulator
from example_project.shop import billing, catalogue
from example_project.shop.plans import Plan

Buy = Callable[[User, Plan], None]


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", "ada@example.com")


@pytest.fixture
def buy(client: Client, stripe_simulator: StripeSimulator) -> Buy:
    """Order a plan as the site does, and let Stripe's webhooks arrive."""
    catalogue.find_or_create(billing.client())

    def buy(user: User, plan: Plan) -> None:
        billing.switch_plan(user, plan)
        assert {answer.status_code for answer in stripe_simulator.deliver(client)} == {200}

    return buy
