import random
import string

_ALPHABET = string.ascii_letters + string.digits


class Identifiers:
    """New ids in the shape Stripe gives them; the same seed gives the same ids in the same order.

    Features and active entitlements name test mode in the id, everything else does not.
    """

    def __init__(self, *, livemode: bool, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._requests = random.Random(seed)
        self._mode = "" if livemode else "test_"
        self._account = "Acct" + self._text(6)

    def feature(self) -> str:
        return f"feat_{self._mode}{self._entitlement_part()}"

    def active_entitlement(self) -> str:
        return f"ent_{self._mode}{self._entitlement_part()}"

    def short(self, prefix: str) -> str:
        return f"{prefix}_{self._text(14)}"

    def long(self, prefix: str) -> str:
        return f"{prefix}_1{self._text(5)}{self._account}{self._text(8)}"

    def request(self) -> str:
        """From its own sequence, so that reads do not change the ids of what is created later."""
        return "req_" + "".join(self._requests.choices(_ALPHABET, k=14))

    def secret(self) -> str:
        return f"whsec_{self._text(32)}"

    def _entitlement_part(self) -> str:
        return f"61{self._text(15)}41{self._account}{self._text(3)}"

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(_ALPHABET, k=length))
