"""What the shop sells. In Stripe each plan is a product, with a price and the features attached to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    lookup_key: str
    name: str


@dataclass(frozen=True)
class Plan:
    """The free plan is no subscription at all."""

    slug: str
    name: str
    dollars: int
    pitch: str
    features: tuple[Feature, ...] = ()

    @property
    def lookup_keys(self) -> set[str]:
        return {feature.lookup_key for feature in self.features}

    @property
    def price_lookup_key(self) -> str:
        """Of its price in Stripe, where a test account may have prices of its own."""
        return f"entitlements_demo_{self.slug}"


PREMIUM_SUPPORT = Feature("premium_support", "Premium support")
API_ACCESS = Feature("api_access", "API access")
ADVANCED_REPORTING = Feature("advanced_reporting", "Advanced reporting")
SSO = Feature("sso", "Single sign-on")
FEATURES = (PREMIUM_SUPPORT, API_ACCESS, ADVANCED_REPORTING, SSO)

FREE = Plan("free", "Free", 0, "To look around.")
PRO = Plan("pro", "Pro", 20, "For people at work.", (PREMIUM_SUPPORT, API_ACCESS))
ENTERPRISE = Plan("enterprise", "Enterprise", 90, "For companies.", FEATURES)
PLANS = {plan.slug: plan for plan in (FREE, PRO, ENTERPRISE)}
PAID_PLANS = (PRO, ENTERPRISE)


def plans_with(*features: Feature, any_of: bool = False) -> list[Plan]:
    """The plans that give all of these features, or with `any_of` one of them; the cheapest first."""
    enough = any if any_of else all
    return [plan for plan in PLANS.values() if features and enough(feature in plan.features for feature in features)]
