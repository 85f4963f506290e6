"""Which Stripe the demo talks to: the simulated one of its own, or with two environment variables a test account."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TEST_KEYS = ("sk_test_", "rk_test_")
BOTH = "Set STRIPE_API_KEY and STRIPE_WEBHOOK_SECRET for a Stripe test account, or neither for the simulated Stripe."


@dataclass(frozen=True)
class StripeAccount:
    """`api_base` is `None` for Stripe's own. `simulated`: by the demo itself, which may make it misbehave."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    api_base: str | None
    simulated: bool


def from_environment(environment: Mapping[str, str], *, simulator: str) -> StripeAccount:
    """Raises SystemExit, whose text repeats no value, for a live key and for half of what is needed."""
    api_key, secret, api_base = (
        environment.get(name, "").strip() for name in ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API_BASE")
    )
    if not api_key and not secret:
        if api_base:
            raise SystemExit(f"STRIPE_API_BASE is set without a key. {BOTH}")
        return StripeAccount("sk_test_demo_not_a_real_key", "whsec_demo_not_a_real_secret", simulator, simulated=True)
    if not secret:
        raise SystemExit(f"STRIPE_WEBHOOK_SECRET is not set. `stripe listen --print-secret` prints it. {BOTH}")
    if not api_key:
        raise SystemExit(f"STRIPE_API_KEY is not set. {BOTH}")
    if not api_key.startswith(TEST_KEYS):
        raise SystemExit(
            "The demo makes customers and subscriptions, so it takes no live key: STRIPE_API_KEY must be the key of a "
            "test account, which starts with sk_test_ or rk_test_."
        )
    return StripeAccount(api_key, secret, api_base or None, simulated=False)
