"""Which Stripe the demo talks to: the simulated one of its own, or with two environment variables a test account."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NO_KEY = "demoKeyThatOpensNothingAtAll"
TEST_KEYS = ("sk_test_", "rk_test_")
BOTH = "Set STRIPE_API_KEY and STRIPE_WEBHOOK_SECRET for a Stripe test account, or neither for the simulated Stripe."
# dj-stripe asks Stripe whose a key is, which no restricted key may.
KEY_FOR_DJSTRIPE = re.compile("sk_test_[a-zA-Z0-9]{24,}")


@dataclass(frozen=True)
class StripeAccount:
    """`api_base` is `None` for Stripe's own. `simulated`: by the demo itself, which may make it misbehave."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    api_base: str | None
    simulated: bool


def is_beside_djstripe(environment: Mapping[str, str]) -> bool:
    """Raises SystemExit for a value that says neither, and where dj-stripe is not installed."""
    asked = environment.get("DJSTRIPE", "").strip()
    if asked not in ("", "0", "1"):
        raise SystemExit("DJSTRIPE must be 1, for a demo beside dj-stripe, or be left out.")
    if asked == "1" and importlib.util.find_spec("djstripe") is None:
        raise SystemExit("dj-stripe is not installed here. `make demo DJSTRIPE=1` makes an environment that has it.")
    return asked == "1"


def from_environment(environment: Mapping[str, str], *, simulator: str, beside_djstripe: bool = False) -> StripeAccount:
    """Raises SystemExit, whose text repeats no value, for a live key and for half of what is needed."""
    api_key, secret, api_base = (
        environment.get(name, "").strip() for name in ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API_BASE")
    )
    if not api_key and not secret:
        if api_base:
            raise SystemExit(f"STRIPE_API_BASE is set without a key. {BOTH}")
        return StripeAccount(f"sk_test_{NO_KEY}", "whsec_demo_not_a_real_secret", simulator, simulated=True)
    if not secret:
        raise SystemExit(f"STRIPE_WEBHOOK_SECRET is not set. `stripe listen --print-secret` prints it. {BOTH}")
    if not api_key:
        raise SystemExit(f"STRIPE_API_KEY is not set. {BOTH}")
    if not api_key.startswith(TEST_KEYS):
        raise SystemExit(
            "The demo makes customers and subscriptions, so it takes no live key: STRIPE_API_KEY must be the key of a "
            "test account, which starts with sk_test_ or rk_test_."
        )
    if beside_djstripe and not KEY_FOR_DJSTRIPE.fullmatch(api_key):
        raise SystemExit(
            "Beside dj-stripe STRIPE_API_KEY must be a secret key of a test account, sk_test_ and at least 24 letters "
            "and digits: dj-stripe takes no other, and cannot find the account of a restricted one."
        )
    return StripeAccount(api_key, secret, api_base or None, simulated=False)
