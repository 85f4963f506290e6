"""Where nobody could say what Stripe does: every answer, to be chosen. The app must be right under each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .account import Account

STATUSES = frozenset(
    {"incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"}
)


class Switch:
    """One question. The first answer is the one taken unless another is chosen."""

    def __init__(self, question: str, *answers: Any) -> None:
        self.__doc__ = question
        self.answers = answers

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, board: SwitchBoard | None, owner: type) -> Any:
        return self if board is None else self.read(board._account)

    def __set__(self, board: SwitchBoard, answer: Any) -> None:
        """Raises ValueError for what is no answer to this question."""
        with board._account.lock:
            setattr(board._account.switches, self.name, self.checked(answer))

    def read(self, account: Account) -> Any:
        return getattr(account.switches, self.name)

    def checked(self, answer: Any) -> Any:
        if not any(answer is known or (isinstance(answer, str) and answer == known) for known in self.answers):
            raise ValueError(f"{self.name} is one of {self.answers}, not {answer!r}")
        return answer


class StatusSwitch(Switch):
    """A set of subscription statuses; a list as well, and read as one over HTTP."""

    def checked(self, answer: Any) -> frozenset[str]:
        if not isinstance(answer, Iterable) or isinstance(answer, str) or not set(answer) <= STATUSES:
            raise ValueError(f"{self.name} is a set of {', '.join(sorted(STATUSES))}, not {answer!r}")
        return frozenset(answer)


class SwitchBoard:
    """Every switch of the simulator. They stay as they are set; `clear_faults` leaves them alone."""

    _account: Account

    missing_customer = Switch(
        "How are the active entitlements of an unknown customer answered: with 400, 404 or an empty list?",
        "400",
        "404",
        "empty",
    )
    deleted_customer = Switch(
        "How are the active entitlements of a deleted customer answered: empty or with an error?", "empty", "error"
    )
    granting = StatusSwitch("Under which statuses does a subscription grant? Unsure: past_due, unpaid, incomplete.")
    pause_collection_grants = Switch("Does a subscription whose collection is paused still grant?", True, False)
    entitlement_per_product = Switch("Is a feature of two products of a customer granted twice?", False, True)
    renewal_follows_catalogue = Switch("Do features attached since count from the next period on?", True, False)
    archived_in_list = Switch("Are archived features in a list that does not ask for them?", False, True)
    nested_url_answers = Switch("Does the URL answer that summaries name, /v1/customer/…/entitlements?", False, True)
    deletion_sends_summary = Switch("Does a summary follow when a customer is deleted?", True, False)
    product_updated_on_attach = Switch("Is product.updated sent when a feature is attached?", False, True)
    previous_is_cut = Switch("Are previous_attributes cut as the inline list is?", False, True)
    list_order = Switch("In which order are active entitlements listed: newest or oldest first?", "newest", "oldest")


SWITCHES: dict[str, Switch] = {name: part for name, part in vars(SwitchBoard).items() if isinstance(part, Switch)}
