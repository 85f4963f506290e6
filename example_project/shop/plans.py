"""What the shop sells. In Stripe each plan is a product, with a price and the features attached to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    lookup_key: str
    name: str


@dataclass(frozen=True)
class Plan:
    """`slug` is also the lookup key of its price. The free plan is no subscription at all."""

    slug: str
    name: str
    dollars: int
    features: tuple[Feature, ...] = ()

    @property
    def lookup_keys(self) -> set[str]:
        return {feature.lookup_key for feature in self.features}


PREMIUM_SUPPORT = Feature("premium_support", "Premium support")
API_ACCESS = Feature("api_access", "API access")
ADVANCED_REPORTING = Feature("advanced_reporting", "Advanced reporting")
SSO = Feature("sso", "Single sign-on")
FEATURES = (PREMIUM_SUPPORT, API_ACCESS, ADVANCED_REPORTING, SSO)

FREE = Plan("free", "Free", 0)
PRO = Plan("pro", "Pro", 20, (PREMIUM_SUPPORT, API_ACCESS))
ENTERPRISE = Plan("enterprise", "Enterprise", 90, FEATURES)
PLANS = {plan.slug: plan for plan in (FREE, PRO, ENTERPRISE)}
