"""Why an answer is what it is: the same answer as every gate's, and the words for it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.serializers.json import DjangoJSONEncoder
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entitlements_app.access import get_entitlements, has_entitlement, subscribers_with
from entitlements_app.exceptions import CustomerDeleted, StripeRefused
from entitlements_app.explain import explain, explain_customer
from entitlements_app.explanation import Case, Explanation
from entitlements_app.explanation_text import get_paragraphs
from entitlements_app.in_force import Term
from entitlements_app.linking import link, unlink
from entitlements_app.models import Customer, EntitlementOverride, Feature, WebhookEvent
from entitlements_app.overrides import clear, deny, grant
from entitlements_app.request_entitlements import get_request_entitlements
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.sync import sync_customer
from entitlements_app.testing import StripeSimulator, override_entitlements
from entitlements_app.wording import format_moment
from tests.delivery import customer_deleted, deliver, summary
from tests.rows import BY_ORGANISATION, broken_processing, customer, make_subscriber
from tests.shop import Shop
from tests.testapp.models import Organisation

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def ago(seconds: int) -> int:
    return int(time.time()) - seconds


def paying(*keys: str, stripe_id: str = "cus_acme") -> Any:
    subscriber = make_subscriber()
    link(subscriber, stripe_id)
    deliver(summary(stripe_id, *keys, created=ago(50)))
    return subscriber


def staff() -> User:
    return User.objects.create_user("support")


def end_overrides() -> None:
    """As if they had been made two days ago, for a day: time passes, and no task is needed."""
    now = timezone.now()
    EntitlementOverride.objects.update(starts_at=now - 2 * DAY, expires_at=now - DAY)


# Each takes the key `sso` and ends in this answer, case and sentence.


def nobody() -> Any:
    return None


def anonymous() -> Any:
    return AnonymousUser()


def unsaved() -> Any:
    return get_subscriber_model()()


def held() -> Any:
    return paying("sso")


def held_by_two() -> Any:
    subscriber = paying("sso")
    link(subscriber, "cus_second")
    deliver(summary("cus_second", "sso"))
    return subscriber


def held_and_granted() -> Any:
    subscriber = paying("sso")
    grant(subscriber, "sso")
    return subscriber


def granted() -> Any:
    subscriber = make_subscriber()
    grant(subscriber, "sso", reason="pilot\n  of 2026", by=staff(), force=True)
    return subscriber


def denied() -> Any:
    subscriber = paying("sso")
    deny(subscriber, "sso", reason="abuse, ticket 4711", by=staff())
    return subscriber


def denied_and_granted() -> Any:
    subscriber = paying("sso")
    grant(subscriber, "sso")
    deny(subscriber, "sso")
    return subscriber


def to_be_denied() -> Any:
    subscriber = paying("sso")
    deny(subscriber, "sso", starts=timezone.now() + DAY)
    return subscriber


def to_be_granted() -> Any:
    subscriber = make_subscriber()
    grant(subscriber, "sso", starts=timezone.now() + DAY, force=True)
    return subscriber


def grant_ended() -> Any:
    subscriber = make_subscriber()
    grant(subscriber, "sso", reason="pilot", force=True)
    end_overrides()
    return subscriber


def grant_cleared() -> Any:
    subscriber = paying("audit")
    grant(subscriber, "sso", force=True)
    clear(subscriber, "sso")
    return subscriber


def denial_ended() -> Any:
    subscriber = paying("sso")
    deny(subscriber, "sso")
    end_overrides()
    return subscriber


def lost_after_a_grant_had_ended() -> Any:
    subscriber = paying("sso")
    grant(subscriber, "sso")
    end_overrides()
    deliver(summary("cus_acme"))
    return subscriber


def held_in_another_spelling() -> Any:
    return paying("SSO")


def mistyped() -> Any:
    paying("SSO", stripe_id="cus_other")
    return paying("audit")


def without_a_customer() -> Any:
    paying("sso", stripe_id="cus_other")
    return make_subscriber()


def no_more_linked() -> Any:
    subscriber = paying("sso")
    unlink("cus_acme")
    return subscriber


def linked_in_the_other_mode() -> Any:
    subscriber = make_subscriber()
    link(subscriber, "cus_live", livemode=True)
    return subscriber


def linked_in_another_account() -> Any:
    subscriber = make_subscriber()
    link(subscriber, "cus_theirs", account="acct_1")
    return subscriber


def deleted() -> Any:
    subscriber = paying("sso")
    deliver(customer_deleted("cus_acme"))
    return subscriber


def all_deleted() -> Any:
    subscriber = held_by_two()
    deliver(customer_deleted("cus_acme"))
    deliver(customer_deleted("cus_second"))
    return subscriber


def deleted_and_replaced() -> Any:
    subscriber = deleted()
    link(subscriber, "cus_second")
    deliver(summary("cus_second", "sso"))
    return subscriber


def not_heard_of() -> Any:
    subscriber = make_subscriber()
    link(subscriber, "cus_acme")
    return subscriber


def lost() -> Any:
    subscriber = paying("sso", "audit")
    deliver(summary("cus_acme", "audit"))
    return subscriber


def unlinked_beside_another() -> Any:
    subscriber = paying("audit")
    link(subscriber, "cus_second")
    deliver(summary("cus_second", "sso"))
    unlink("cus_second")
    return subscriber


def unknown_key() -> Any:
    return paying("audit")


def holding_other_keys() -> Any:
    paying("sso", stripe_id="cus_other")
    return paying("audit")


def holding_nothing() -> Any:
    paying("sso", stripe_id="cus_other")
    return paying()


SITUATIONS: list[tuple[Callable[[], Any], bool, str, str]] = [
    (nobody, False, "nobody", "nobody is signed in, and strangers hold nothing."),
    (anonymous, False, "nobody", "nobody is signed in, and strangers hold nothing."),
    (unsaved, False, "unsaved", "this subscriber is not saved yet, so nothing can be linked or granted to it."),
    (held, True, "held", "cus_acme holds it, as a webhook said; not confirmed yet."),
    (held_by_two, True, "held", "cus_acme holds it, as a webhook said; not confirmed yet."),
    (held_and_granted, True, "held", "cus_acme holds it, as a webhook said; not confirmed yet."),
    (granted, True, "granted", "an override grants it for good, “pilot of 2026” (by support)."),
    (denied, False, "denied", "an override denies it for good, “abuse, ticket 4711” (by support)."),
    (denied_and_granted, False, "denied", "an override denies it for good."),
    (to_be_denied, True, "held", "cus_acme holds it, as a webhook said; not confirmed yet."),
    (to_be_granted, False, "to_come", "an override grants it only from {tomorrow} on."),
    (grant_ended, False, "ended", "the override that granted it ended on {yesterday}, “pilot”."),
    (grant_cleared, False, "ended", "the override that granted it ended on {now}."),
    (denial_ended, True, "held", "cus_acme holds it, as a webhook said; not confirmed yet."),
    (lost_after_a_grant_had_ended, False, "lost", "cus_acme held it until {now}: a webhook from Stripe said so."),
    (
        held_in_another_spelling,
        False,
        "other_spelling",
        "“SSO” is held, but “sso” is another key: keys are compared exactly.",
    ),
    (mistyped, False, "other_spelling", "no feature has the key “sso”. Is “SSO” meant?"),
    (without_a_customer, False, "no_customer", "no Stripe customer is linked."),
    (
        no_more_linked,
        False,
        "no_customer",
        "no Stripe customer is linked any more: cus_acme was unlinked on {now}.",
    ),
    (
        linked_in_the_other_mode,
        False,
        "other_mode",
        "all customers linked are in live mode (cus_live), and this site is in test mode.",
    ),
    (
        linked_in_another_account,
        False,
        "other_account",
        "all customers linked are of another Stripe account than the site's own: cus_theirs.",
    ),
    (deleted, False, "deleted", "cus_acme was deleted in Stripe on {now}."),
    (
        all_deleted,
        False,
        "deleted",
        "all customers linked were deleted in Stripe, the last one on {now}: cus_acme, cus_second.",
    ),
    (deleted_and_replaced, True, "held", "cus_second holds it, as a webhook said; not confirmed yet."),
    (not_heard_of, False, "not_heard_of", "nothing has come from Stripe about cus_acme yet."),
    (lost, False, "lost", "cus_acme held it until {now}: a webhook from Stripe said so."),
    (unlinked_beside_another, False, "lost", "cus_second held it until {now}: the customer was unlinked."),
    (unknown_key, False, "unknown_key", "no feature and no override has the key “sso”. Is it spelled right?"),
    (holding_other_keys, False, "not_held", "only other keys are held: audit."),
    (holding_nothing, False, "not_held", "nothing is held by cus_acme at present."),
]


@pytest.mark.parametrize(
    ("situation", "entitled", "case", "because"), SITUATIONS, ids=[situation.__name__ for situation, *_ in SITUATIONS]
)
def test_a_situation_is_explained_and_the_gates_say_the_same(
    situation: Callable[[], Any], entitled: bool, case: str, because: str
) -> None:
    with override_settings(ENTITLEMENTS_UNKNOWN_FEATURE="ignore"):
        before = timezone.now()
        subscriber = situation()
        told = explain(subscriber, "sso")
        assert (told.entitled, told.case) == (entitled, case)
        possible = [
            because.format(now=format_moment(at), tomorrow=format_moment(at + DAY), yesterday=format_moment(at - DAY))
            for at in (before, told.as_of)
        ]
        assert told.reason in [f"{'Yes' if entitled else 'No'}: {text}" for text in possible]
        assert has_entitlement(subscriber, "sso") is entitled
        assert told.held_keys == tuple(get_entitlements(subscriber))
        if told.subscriber_id is not None:
            assert subscribers_with("sso").filter(pk=subscriber.pk).exists() is entitled


@pytest.mark.parametrize("situation", [situation for situation, *_ in SITUATIONS])
def test_an_explanation_is_plain_data_and_every_part_of_it_can_be_said(situation: Callable[[], Any]) -> None:
    told = explain(situation(), "sso")
    data = json.loads(json.dumps(asdict(told), cls=DjangoJSONEncoder))
    assert (data["entitled"], data["key"], data["case"]) == (told.entitled, "sso", told.case)
    paragraphs = get_paragraphs(told)
    assert all(lines and all(lines) for _, lines in paragraphs)
    assert not [line for _, lines in paragraphs for line in lines if "%" in line or "None" in line]


def test_every_case_is_among_the_situations() -> None:
    elsewhere = {"forced", "unlinked", "unknown_to_stripe"}
    assert {case for _, _, case, _ in SITUATIONS} | elsewhere == set(Case)


@pytest.mark.parametrize("situation", [held_by_two, denied_and_granted, without_a_customer, unknown_key])
def test_an_explanation_costs_the_same_few_queries_for_everybody(
    situation: Callable[[], Any], django_assert_max_num_queries: Any
) -> None:
    subscriber = situation()
    with django_assert_max_num_queries(7):
        get_paragraphs(explain(subscriber, "sso"))


# The chain


def lines_of(told: Explanation, label: str) -> list[str]:
    return dict(get_paragraphs(told))[label]


@pytest.fixture
def shopper(shop: Shop) -> tuple[Any, str]:
    """A subscriber and its customer, known to the simulated Stripe."""
    subscriber, stripe_id = make_subscriber(), shop.customer()
    link(subscriber, stripe_id)
    return subscriber, stripe_id


@pytest.mark.django_db(transaction=True)
def test_what_a_fetch_has_confirmed_is_told_with_its_moment(shop: Shop, shopper: tuple[Any, str]) -> None:
    subscriber, stripe_id = shopper
    shop.subscribe(stripe_id, "pro")
    sync_customer(customer(stripe_id))
    told = explain(subscriber, "sso")
    row, fetched_at = customer(stripe_id), customer(stripe_id).fetched_at
    assert fetched_at
    assert told.reason == f"Yes: {stripe_id} holds it, confirmed by Stripe on {format_moment(fetched_at)}."
    (entitlement,) = told.entitlements
    assert (entitlement.customer, entitlement.feature.stripe_id) == (stripe_id, shop.features["sso"]["id"])
    assert entitlement.stripe_id.startswith("ent_")
    assert entitlement.confirmed_at == fetched_at
    assert (told.customers[0].fetched_at, told.customers[0].next_fetch_at) == (fetched_at, row.next_fetch_at)
    assert lines_of(told, "Customers") == [f"{stripe_id}: last confirmed by Stripe on {format_moment(fetched_at)}"]
    assert lines_of(told, "Last changes") == [
        f"{format_moment(told.changes[0].at)}: gained, Stripe was asked and said so ({stripe_id})"
    ]


@pytest.mark.django_db(transaction=True)
def test_a_customer_that_stripe_ceased_to_know_keeps_what_was_confirmed(
    shop: Shop, shopper: tuple[Any, str], settings: Any
) -> None:
    subscriber, stripe_id = shopper
    link(other := make_subscriber(), "cus_lost")
    sync_customer(customer("cus_lost"))
    told = explain(other, "sso")
    assert (told.case, told.reason) == (
        "unknown_to_stripe",
        "No: Stripe says that it does not know cus_lost in test mode.",
    )
    assert "unknown to Stripe since" in lines_of(told, "Customers")[0]

    shop.subscribe(stripe_id, "pro")
    sync_customer(customer(stripe_id))
    with StripeSimulator() as another_account:
        settings.ENTITLEMENTS_STRIPE_API_KEY = another_account.api_key
        settings.ENTITLEMENTS_STRIPE_API_BASE = another_account.url
        sync_customer(customer(stripe_id))
    told = explain(subscriber, "sso")
    assert told.reason.startswith(f"Yes: {stripe_id} holds it, as was confirmed before; since ")
    assert told.entitled is has_entitlement(subscriber, "sso") is True


def test_the_feature_is_named_and_an_archived_one_keeps_granting() -> None:
    subscriber = paying("sso")
    assert lines_of(explain(subscriber, "sso"), "Key") == ["sso", "feat_test_sso, whose name is not known yet"]
    Feature.objects.filter(lookup_key="sso").update(name="Single sign-on", active=False)
    told = explain(subscriber, "sso")
    assert lines_of(told, "Key")[1].startswith("Single sign-on (feat_test_sso); archived in Stripe")
    assert (told.entitled, told.entitlements[0].feature.is_archived) == (True, True)


def test_overrides_stand_in_the_order_in_which_they_matter() -> None:
    subscriber, author = paying("sso"), staff()
    tomorrow = timezone.now() + DAY
    grant(subscriber, "sso", reason="over")
    EntitlementOverride.objects.update(starts_at=timezone.now() - 2 * DAY, expires_at=timezone.now() - DAY)
    grant(subscriber, "sso", reason="to come", starts=tomorrow, until=tomorrow + DAY)
    grant(subscriber, "sso", reason="beaten", by=author)
    deny(subscriber, "sso", reason="wins", until=tomorrow)
    grant(subscriber, "audit", reason="of another key", force=True)
    told = explain(subscriber, "sso")
    assert [(row.reason, row.term, row.counts) for row in told.overrides] == [
        ("wins", Term.IN_FORCE, True),
        ("beaten", Term.IN_FORCE, False),
        ("to come", Term.TO_COME, False),
        ("over", Term.OVER, False),
    ]
    assert told.held_keys == ("audit",)
    now, until, end = (format_moment(at) for at in (told.overrides[1].starts_at, tomorrow, tomorrow + DAY))
    over = told.overrides[3]
    assert over.expires_at
    assert lines_of(told, "Overrides") == [
        f"denies it since {now}, until {until}, “wins”",
        f"grants it since {now}, for good, “beaten” (by support); but a denial wins",
        f"will grant it from {until}, until {end}, “to come”",
        f"granted it from {format_moment(over.starts_at)} until {format_moment(over.expires_at)}, “over”",
    ]


def test_a_deleted_author_is_nobody() -> None:
    subscriber = granted()
    User.objects.filter(username="support").delete()
    assert explain(subscriber, "sso").reason == "Yes: an override grants it for good, “pilot of 2026”."


def test_of_an_answer_that_stayed_the_same_the_changes_say_so() -> None:
    subscriber = held_by_two()
    deliver(summary("cus_second", created=ago(-2)))
    assert [line.partition(": ")[2] for line in lines_of(explain(subscriber, "sso"), "Last changes")] == [
        "lost, a webhook from Stripe said so (cus_second); the answer stayed the same",
        "gained, a webhook from Stripe said so (cus_second); the answer stayed the same",
        "gained, a webhook from Stripe said so (cus_acme)",
    ]


def test_what_a_customer_did_for_another_subscriber_is_not_told() -> None:
    deliver(summary("cus_acme", "sso", created=ago(50)))  # while nobody's
    first, second = make_subscriber(), make_subscriber()
    link(first, "cus_acme")
    link(second, "cus_acme", move=True)
    told = explain(second, "sso")
    assert [(change.kind, change.cause) for change in told.changes] == [("granted", "link"), ("granted", "event")]
    assert [change.cause for change in explain(first, "sso").changes] == ["unlink", "link"]


def test_only_the_last_changes_are_told() -> None:
    subscriber = make_subscriber()
    for _ in range(8):
        grant(subscriber, "sso", force=True)
        clear(subscriber, "sso")
    assert len(explain(subscriber, "sso").changes) == 10


# What is still to come


def test_news_that_is_still_to_be_confirmed_is_told() -> None:
    subscriber = paying("sso")
    told = explain(subscriber, "sso")
    assert (told.customers[0].hinted_at, told.customers[0].urgent) != (None, False)
    assert lines_of(told, "Still to come") == [
        "Stripe cannot be asked: ENTITLEMENTS_STRIPE_API_KEY is not set",
        f"cus_acme: Stripe is to be asked as soon as possible, because of what happened on {format_moment(told.as_of)}",
    ]


@pytest.mark.django_db(transaction=True)
def test_the_next_confirmation_is_told(shop: Shop, shopper: tuple[Any, str]) -> None:
    subscriber, stripe_id = shopper
    planned_at = timezone.now() + 3 * DAY
    Customer.objects.update(hinted_at=None, urgent=False, next_fetch_at=planned_at)
    assert lines_of(explain(subscriber, "sso"), "Still to come") == [
        f"{stripe_id}: to be confirmed again on {format_moment(planned_at)}"
    ]
    shop.stripe.fail_requests(401)
    with pytest.raises(StripeRefused):
        sync_customer(customer(stripe_id))
    told = explain(subscriber, "sso")
    assert (told.has_api_key, told.calls_stopped) == (True, "HTTP 401")
    assert lines_of(told, "Still to come")[0] == "Stripe is not asked since it refused the API key: HTTP 401"


@pytest.mark.django_db(transaction=True)
def test_a_webhook_that_could_not_be_processed_is_told_until_stripe_was_asked(
    shop: Shop, shopper: tuple[Any, str]
) -> None:
    subscriber, stripe_id = shopper
    event = summary(stripe_id, "sso")
    with broken_processing():
        deliver(event)
    told = explain(subscriber, "sso")
    (pending,) = told.customers[0].events
    assert (pending.stripe_id, pending.status, told.entitled) == (event["id"], "pending", False)
    assert lines_of(told, "Still to come")[0] == (
        f"{stripe_id}: the webhook {event['id']} of {format_moment(pending.received_at)} waits to be processed"
    )
    WebhookEvent.objects.update(status="failed", next_attempt_at=None)
    assert (
        "could not be processed, so Stripe is to be asked" in lines_of(explain(subscriber, "sso"), "Still to come")[0]
    )
    sync_customer(customer(stripe_id))
    assert explain(subscriber, "sso").customers[0].events == ()


def test_events_of_others_and_of_the_other_mode_are_not_told() -> None:
    subscriber = paying("sso")
    fields = {"type": "x", "status": "failed", "error": "broken"}
    WebhookEvent.objects.create(stripe_id="evt_1", customer_stripe_id="cus_other", livemode=False, **fields)
    WebhookEvent.objects.create(stripe_id="evt_2", customer_stripe_id="cus_acme", livemode=True, **fields)
    WebhookEvent.objects.create(
        stripe_id="evt_3", customer_stripe_id="cus_acme", livemode=False, account="acct_1", **fields
    )
    assert explain(subscriber, "sso").customers[0].events == ()


# Who may be asked about, and in which mode


@pytest.mark.parametrize("bad", ["", None, 1, b"sso", ["sso"]])
def test_what_is_no_key_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError):
        explain(make_subscriber(), bad)
    with pytest.raises(TypeError):
        explain(None, bad)


def test_an_instance_of_another_model_is_a_type_error() -> None:
    other = User(pk=1) if BY_ORGANISATION else Organisation(name="not a subscriber here")
    for stranger in (other, 1, "ada"):
        with pytest.raises(TypeError, match="ENTITLEMENTS_SUBSCRIBER_MODEL"):
            explain(stranger, "sso")


def test_a_customer_of_nobody_is_explained_by_itself() -> None:
    deliver(summary("cus_acme", "sso"))
    told = explain_customer(customer(), "sso")
    assert (told.entitled, told.case, told.held_keys) == (False, "unlinked", ())
    assert told.reason == "No: cus_acme is linked to nobody here, so what it holds counts for no one."
    assert lines_of(told, "Held by")[0].startswith("cus_acme since ")
    assert [label for label, _ in get_paragraphs(told)] == [
        *("Key", "Customers", "Held by", "Last changes", "Still to come", "As of")
    ]


def test_customers_of_both_modes_stand_side_by_side(settings: Any) -> None:
    subscriber = paying("sso")
    link(subscriber, "cus_live", livemode=True)
    told = explain(subscriber, "sso")
    assert (told.entitled, [row.is_own for row in told.customers]) == (True, [True, False])
    assert lines_of(told, "Customers")[1] == "cus_live: in live mode, so it does not count"
    settings.ENTITLEMENTS_LIVEMODE = True
    told = explain(subscriber, "sso")
    assert (told.entitled, told.case, told.entitlements) == (False, "not_heard_of", ())


def test_an_answer_that_a_test_has_set_is_told_as_such() -> None:
    subscriber = paying("audit")
    with override_entitlements("sso", subscriber=subscriber):
        told = explain(subscriber, "sso")
        assert (told.reason, told.held_keys) == ("Yes: a test has set the answer.", ("sso",))
        assert explain(subscriber, "audit").reason == "No: a test has set the answer."
        assert has_entitlement(subscriber, "sso")


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_a_cache_still_holds_is_told_if_it_differs(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "explain"}}
    settings.ENTITLEMENTS_CACHE = "default"
    subscriber = paying("sso")
    assert explain(subscriber, "sso").cache is None
    assert has_entitlement(subscriber, "sso")
    told = explain(subscriber, "sso")
    assert told.cache
    assert told.cache.entitled
    assert "Cache" not in dict(get_paragraphs(told))
    Customer.objects.update(deleted_at=timezone.now())  # by hand, so that nobody tells the cache
    told = explain(subscriber, "sso")
    assert (told.entitled, has_entitlement(subscriber, "sso")) == (False, True)
    assert told.cache
    assert lines_of(told, "Cache") == [f"gates may answer yes for a while, as of {format_moment(told.cache.as_of)}"]
    settings.ENTITLEMENTS_CACHE, settings.ENTITLEMENTS_LOCAL_SECONDS = None, 60
    Customer.objects.update(deleted_at=None)
    assert has_entitlement(subscriber, "sso")
    told = explain(subscriber, "sso")
    assert told.cache
    assert told.cache.entitled


@pytest.mark.skipif(BY_ORGANISATION, reason="about users")
def test_a_user_who_is_not_active_is_told_of(settings: Any, rf: Any) -> None:
    subscriber = paying("sso")
    assert "Not active" not in dict(get_paragraphs(explain(subscriber, "sso")))
    subscriber.is_active = False
    told = explain(subscriber, "sso")
    assert (told.entitled, told.is_inactive) == (True, True)
    assert lines_of(told, "Not active") == ["the user may not sign in, and gates on requests say no"]
    request = rf.get("/")
    request.user = subscriber
    assert not get_request_entitlements(request).sso
    assert not explain(AnonymousUser(), "sso").is_inactive
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = "tests.testapp.views.organisation_of"
    assert not explain(subscriber, "sso").is_inactive


# Whatever happened

SOAK = os.environ.get("TEST_EXAMPLES")
CUSTOMERS = st.sampled_from(["one", "two"])
KEYS = st.sampled_from(["sso", "SSO", "audit"])
HOURS = st.integers(-2, 2)
WHAT_HAPPENS = st.one_of(
    st.tuples(st.just("holds"), CUSTOMERS, st.frozensets(KEYS)),
    st.tuples(st.sampled_from(["link", "take", "unlink", "delete"]), CUSTOMERS),
    st.tuples(st.sampled_from(["grant", "deny"]), KEYS, HOURS, st.none() | HOURS),
    st.tuples(st.just("clear"), KEYS),
)


@pytest.mark.once
@hypothesis_settings(
    max_examples=int(SOAK or 20),
    derandomize=SOAK is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(WHAT_HAPPENS, max_size=8))
def test_an_explanation_and_the_gates_say_the_same_whatever_happened(history: list[tuple[Any, ...]]) -> None:
    subscriber, other = make_subscriber(), make_subscriber()
    created = itertools.count(ago(100))
    for what, *about in history:
        _happen(subscriber, other, what, *about, created=next(created))
    with override_settings(ENTITLEMENTS_UNKNOWN_FEATURE="ignore"):
        for someone, key in itertools.product([subscriber, other], ["sso", "SSO", "audit", "export"]):
            told = explain(someone, key)
            assert told.entitled is has_entitlement(someone, key)
            assert told.reason.startswith("Yes: " if told.entitled else "No: ")
            assert told.entitled is (told.case in ("held", "granted"))
            assert told.held_keys == tuple(get_entitlements(someone))
            assert get_paragraphs(told)


def _happen(subscriber: Any, other: Any, what: str, *about: Any, created: int) -> None:
    now, hour = timezone.now(), timedelta(hours=1)
    match what, *about:
        case "holds", name, keys:
            deliver(summary(f"cus_{name}_{subscriber.pk}", *keys, created=created))
        case (("link" | "take"), name):
            with suppress(CustomerDeleted):
                link(subscriber if what == "link" else other, f"cus_{name}_{subscriber.pk}", move=True)
        case "unlink", name:
            with suppress(Customer.DoesNotExist):
                unlink(f"cus_{name}_{subscriber.pk}")
        case "delete", name:
            deliver(customer_deleted(f"cus_{name}_{subscriber.pk}"))
        case (("grant" | "deny"), key, start, length):
            EntitlementOverride.objects.create(
                subscriber=subscriber,
                lookup_key=key,
                effect=what,
                starts_at=now + start * hour,
                expires_at=None if length is None else now + (start + abs(length)) * hour,
            )
        case "clear", key:
            clear(subscriber, key)
