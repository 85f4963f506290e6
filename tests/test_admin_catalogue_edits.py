"""The catalogue is changed in the admin: features made, edited, archived; attached to products, and detached."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.utils import timezone

from entitlements_app import budget
from entitlements_app.models import ActiveEntitlement, Customer, Feature, FeatureCount, Product, ProductFeature
from entitlements_app.sync import sync_catalog
from entitlements_app.testing import StripeSimulator
from tests.staff import html_of, listed, said, staff, staff_for_all, text_of, url
from tests.threads import Crowd

pytestmark = pytest.mark.django_db

FEATURES = "/v1/entitlements/features"
ADD, CHANGE, ARCHIVE = "add_feature", "change_feature", "archive_feature"
ATTACH, DETACH = "add_productfeature", "delete_productfeature"
LATER = "Nobody gains or loses anything here and now."
SURE = {"confirmed": "1"}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe is left alone for some seconds after a call that it did not answer."""
    monkeypatch.setattr(budget, "FIRST_PAUSE", timedelta(seconds=0.05))


class Catalogue:
    """Support is attached to Pro; Audit is not; Basic has nothing; Fax is archived, and still attached to Pro."""

    def __init__(self, stripe: StripeSimulator) -> None:
        self.stripe = stripe
        support = stripe.create_feature("support", name="Support", metadata={"hours": "24", "note": "two\nlines"})
        stripe.create_feature("audit", name="Audit <b>log</b>")
        fax = stripe.create_feature("fax", name="Fax")
        stripe.create_product("Pro <i>plus</i>", features=[support, fax])
        stripe.create_product("Basic")
        stripe.archive_feature(fax)
        sync_catalog()
        self.support, self.audit, self.fax = (self.row(key) for key in ("support", "audit", "fax"))
        self.pro, self.basic = Product.objects.get(name__startswith="Pro"), Product.objects.get(name="Basic")
        at = timezone.now() - timedelta(minutes=5)
        for feature in (self.support, self.fax):
            FeatureCount.objects.create(feature=feature, customers=12345, of_customers=20000, counted_at=at)
        stripe.clear_requests()

    def row(self, key: str) -> Feature:
        return Feature.objects.get(lookup_key=key)

    def there(self, key: str) -> list[dict[str, Any]]:
        """The features that have the key in Stripe, archived ones last."""
        found = [self.stripe.call("GET", FEATURES, {"archived": which})["data"] for which in ("false", "true")]
        return [row for rows in found for row in rows if row["lookup_key"] == key]

    def features_of(self, product: Product) -> list[str]:
        rows = self.stripe.call("GET", f"/v1/products/{product.stripe_id}/features")["data"]
        return sorted(row["entitlement_feature"]["lookup_key"] for row in rows)

    def changes(self) -> int:
        """How often something was asked of Stripe over HTTP, other than to tell."""
        return sum(request.method != "GET" for request in self.stripe.requests)


@pytest.fixture
def shop(stripe: StripeSimulator) -> Catalogue:
    return Catalogue(stripe)


@pytest.fixture
def chief(shop: Catalogue) -> Client:
    """Staff who may everything."""
    return staff_for_all()


def silence(stripe: StripeSimulator) -> None:
    """The next change is done, and nobody learns of it."""
    stripe.lose_answers(status=500)
    stripe.fail_requests(503, times=99, method="GET")


def hidden(answer: Any) -> dict[str, str]:
    """What the page's forms bring by themselves, but for CSRF."""
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', answer.content.decode())
    return {name: html.unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


def filled_in(answer: Any, **typed: Any) -> dict[str, Any]:
    """A form for a feature as the browser sends it, with metadata as pairs."""
    pairs = typed.pop("metadata", ())
    return {
        **{name: value for name, value in hidden(answer).items() if name in ("idempotency_key", "opened_with")},
        "metadata_key": [key for key, _ in pairs] + [""],
        "metadata_value": [value for _, value in pairs] + [""],
        "_save": "Save",
        **typed,
    }


def errors_of(answer: Any) -> dict[str, list[str]]:
    """By field. The page was shown again."""
    assert answer.status_code == 200, answer
    errors: dict[str, list[str]] = answer.context["adminform"].form.errors
    return errors


def messages_of(answer: Any) -> str:
    assert answer.redirect_chain, text_of(answer)
    return " ".join(map(str, answer.context["messages"]))


def log_of(row: Any) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(row.pk), content_type__model=row._meta.model_name)
    return list(entries.order_by("pk").values_list("change_message", flat=True))


# --- a new feature


def new(client: Client, **typed: Any) -> dict[str, Any]:
    page = client.get(url(Feature, "add"))
    return filled_in(page, **{"name": "API access", "lookup_key": "api_access", **typed})


def test_a_feature_is_made(shop: Catalogue, chief: Client) -> None:
    assert "It can never be changed".lower() in text_of(chief.get(url(Feature, "add"))).lower()
    form = new(chief, metadata=[(" calls ", "1000"), ("note", "a\r\nb")])
    answer = chief.post(url(Feature, "add"), form, follow=True)
    made = shop.row("api_access")
    assert answer.redirect_chain == [(url(Feature, made.pk, "change"), 302)]
    assert "“api_access” is created. Nobody is entitled to it until" in messages_of(answer)
    assert shop.there("api_access")[0]["metadata"] == made.metadata == {"calls": "1000", "note": "a\nb"}
    assert log_of(made) == ["Created “api_access”."]


@pytest.mark.parametrize(
    ("typed", "field", "words"),
    [
        ({"name": ""}, "name", "This field is required."),
        ({"name": "a" * 81}, "name", "at most 80 characters (it has 81)"),
        ({"lookup_key": "a" * 81}, "lookup_key", "at most 80 characters (it has 81)"),
        ({"lookup_key": " \0 "}, "lookup_key", "Null characters are not allowed."),
        ({"lookup_key": "support"}, "lookup_key", "has this lookup key already"),
        ({"metadata": [("a", "1"), ("a", "2")]}, "metadata", "The key “a” is there twice."),
        ({"metadata": [("a", " ")]}, "metadata", "The key “a” has no value."),
        ({"metadata": [("", "1")]}, "metadata", "Name a key for the value “1”."),
        ({"metadata": [("a\0", "1")]}, "metadata", "NUL cannot be sent"),
        ({"metadata": [("a[b]", "1")]}, "metadata", "no square brackets"),
        ({"metadata": [("a" * 41, "1")]}, "metadata", "at most 40 characters"),
        ({"metadata": [("a", "1" * 501)]}, "metadata", "at most 500 characters"),
        ({"metadata": [(f"a{number}", "1") for number in range(51)]}, "metadata", "at most 50 keys"),
    ],
)
def test_what_is_wrong_stands_at_its_field(
    shop: Catalogue, chief: Client, typed: dict[str, Any], field: str, words: str
) -> None:
    answer = chief.post(url(Feature, "add"), new(chief, **typed))
    assert [words in error for error in errors_of(answer)[field]] == [True]
    assert list(errors_of(answer)) == [field]
    assert Feature.objects.count() == 3
    if "lookup_key" not in typed:
        assert 'value="api_access"' in html_of(answer)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("premium-support", 'They would have to ask by {% entitled "premium-support" %}.'),
        ("premium.support", "as in request.entitlements.premium_support"),
        ("_beta", "Templates cannot write it after a dot"),
        ("metadata", 'request.entitlements["metadata"]'),
        ("has_all", "means something else"),
    ],
)
def test_of_a_key_that_is_hard_to_ask_for_there_is_a_warning(
    shop: Catalogue, chief: Client, key: str, words: str
) -> None:
    form = new(chief, lookup_key=key)
    warned = chief.post(url(Feature, "add"), form)
    assert words in errors_of(warned)["lookup_key"][0]
    assert shop.changes() == 0
    assert hidden(warned)["idempotency_key"] == form["idempotency_key"]
    chief.post(url(Feature, "add"), {**filled_in(warned, name="A", lookup_key=key), "force": "on"})
    assert len(shop.there(key)) == 1


@pytest.mark.parametrize("key", ["premium_support", "Ärger", "2fa"])
def test_other_keys_are_taken_at_once(shop: Catalogue, chief: Client, key: str) -> None:
    chief.post(url(Feature, "add"), new(chief, lookup_key=key))
    assert len(shop.there(key)) == 1


def test_a_form_that_is_sent_twice_makes_one_feature(shop: Catalogue, chief: Client) -> None:
    form = new(chief)
    for _ in range(2):
        assert "“api_access” is created." in said(chief, url(Feature, "add"), form)
    assert len(shop.there("api_access")) == 1
    assert len(log_of(shop.row("api_access"))) == 1


@pytest.mark.django_db(transaction=True)
def test_a_double_click_makes_one_feature(stripe: StripeSimulator) -> None:
    shop, chief = Catalogue(stripe), staff_for_all()
    form = new(chief)
    answers: list[Any] = []

    def click() -> None:
        client = Client()
        client.cookies = chief.cookies
        answers.append(client.post(url(Feature, "add"), form))

    with stripe.hold("POST", FEATURES) as held:
        crowd = Crowd().start(click)
        held.wait_for_request()
        crowd.start(click)
        held.release()
        crowd.join()
    made = shop.row("api_access")
    assert [answer.headers["Location"] for answer in answers] == [url(Feature, made.pk, "change")] * 2
    assert len(shop.there("api_access")) == 1


def test_of_a_feature_that_was_there_just_so_nobody_is_told_that_it_was_made(shop: Catalogue, chief: Client) -> None:
    form = new(chief, name="Audit <b>log</b>", lookup_key="audit")
    assert "“audit” was there already, just so." in said(chief, url(Feature, "add"), form)
    assert log_of(shop.audit) == []


def test_a_form_of_long_ago_makes_nothing_again(shop: Catalogue, chief: Client) -> None:
    form = new(chief)
    chief.post(url(Feature, "add"), form)
    shop.stripe.archive_feature(shop.there("api_access")[0]["id"])
    assert "which was archived since. Nothing was made now." in said(chief, url(Feature, "add"), form)
    assert len(shop.there("api_access")) == 1


@pytest.mark.parametrize("fault", ["down", "silent", "in trouble"])
def test_while_stripe_is_away_nothing_typed_is_lost_and_nothing_made_twice(
    shop: Catalogue, chief: Client, fault: str
) -> None:
    form = new(chief, metadata=[("calls", "1000")])
    if fault == "down":
        shop.stripe.drop_connections(times=9)
    elif fault == "silent":
        silence(shop.stripe)
    else:
        shop.stripe.fail_requests(500, times=99)
    again = chief.post(url(Feature, "add"), form)
    shop.stripe.clear_faults()
    assert "Stripe gave no usable answer." in text_of(again)
    assert "Please correct" not in text_of(again)
    assert 'value="api_access"' in html_of(again)
    assert "1000</textarea>" in html_of(again)
    assert not Feature.objects.filter(lookup_key="api_access").exists()
    form = filled_in(again, name="API access", lookup_key="api_access", metadata=[("calls", "1000")])
    assert "“api_access” is created." in said(chief, url(Feature, "add"), form)
    assert len(shop.there("api_access")) == 1


def test_a_form_that_was_changed_does_not_pass_for_the_one_sent_before(shop: Catalogue, chief: Client) -> None:
    form = new(chief)
    chief.post(url(Feature, "add"), form)
    again = chief.post(url(Feature, "add"), {**form, "lookup_key": "other"})
    assert "This form was sent before, and said something else then" in text_of(again)
    assert shop.there("other") == []
    assert hidden(again)["idempotency_key"] != form["idempotency_key"]
    chief.post(url(Feature, "add"), filled_in(again, name="Other", lookup_key="other"))
    assert len(shop.there("other")) == 1


def test_after_a_refusal_the_corrected_form_is_a_new_one(shop: Catalogue, chief: Client) -> None:
    form = new(chief, lookup_key="support")
    refused = chief.post(url(Feature, "add"), form)
    assert "Support" in errors_of(refused)["lookup_key"][0]
    chief.post(url(Feature, "add"), filled_in(refused, name="Support", lookup_key="support_2"))
    assert len(shop.there("support_2")) == 1


@pytest.mark.parametrize("key", ["", "x" * 999, "a b", "é" * 32, "A" * 32])
def test_only_keys_of_ours_are_taken_from_the_browser(shop: Catalogue, chief: Client, key: str) -> None:
    for number in range(2):  # one that was taken would stand for the first
        form = new(chief, idempotency_key=key, lookup_key=f"made_{number}")
        assert "is created" in said(chief, url(Feature, "add"), form)


def test_a_link_fills_in_the_form(shop: Catalogue, chief: Client) -> None:
    assert 'value="&lt;b&gt;"' in html_of(chief.get(url(Feature, "add"), {"lookup_key": "<b>"}))


def test_another_form_gets_what_was_made_in_its_window(shop: Catalogue, chief: Client) -> None:
    window = chief.get(url(Feature, "add"), {"_popup": "1", "_to_field": "id"})
    assert 'name="_popup" value="1"' in html_of(window)
    form = filled_in(window, name="API", lookup_key="api", _popup="1")
    assert chief.post(url(Feature, "add"), {**form, "_to_field": "name"}).status_code == 400
    assert "popup_response" in html_of(chief.post(url(Feature, "add"), form))
    made = shop.row("api")
    form = edit(chief, made, name="The API", _popup="1", _to_field="id")
    assert "popup_response" in html_of(chief.post(url(Feature, made.pk, "change"), form))
    shown = html_of(chief.get(url(Feature, shop.support.pk, "change"), {"_popup": "1"}))
    assert "Archive…" not in shown
    assert "Attach…" not in shown


# --- an edit


def edit(client: Client, feature: Feature, **typed: Any) -> dict[str, Any]:
    """The form as it is opened, with what is changed in it."""
    page = client.get(url(Feature, feature.pk, "change"))
    return filled_in(page, **{"name": feature.name, "metadata": sorted(feature.metadata.items()), **typed})


def test_a_feature_is_edited(shop: Catalogue, chief: Client) -> None:
    page = html_of(chief.get(url(Feature, shop.support.pk, "change")))
    assert 'name="lookup_key"' not in page
    assert 'name="_continue"' not in page
    assert 'name="_addanother"' not in page
    form = edit(chief, shop.support, name="Help", metadata=[("note", "two\r\nlines"), ("days", "7")])
    answer = chief.post(url(Feature, shop.support.pk, "change"), form, follow=True)
    assert "“support” is changed, in Stripe and here." in messages_of(answer)
    there = shop.there("support")[0]
    assert (there["name"], there["metadata"]) == ("Help", {"note": "two\nlines", "days": "7"})
    assert shop.row("support").metadata == there["metadata"]
    log = "Name: “Support” → “Help”. Metadata “days” added: “7”. Metadata “hours” removed, was “24”."
    assert log_of(shop.support) == [log]


def test_what_somebody_else_has_changed_meanwhile_is_not_undone(shop: Catalogue, chief: Client) -> None:
    form = edit(chief, shop.support, name="Help")
    chief.post(
        url(Feature, shop.support.pk, "change"), edit(chief, shop.support, metadata=[("hours", "48"), ("new", "1")])
    )
    chief.post(url(Feature, shop.support.pk, "change"), form)
    there = shop.there("support")[0]
    assert (there["name"], there["metadata"]) == ("Help", {"hours": "48", "new": "1"})


def test_what_somebody_else_has_changed_as_well_is_shown_before_it_is_replaced(shop: Catalogue, chief: Client) -> None:
    form = edit(chief, shop.support, name="Help", metadata=[("hours", "12")])
    first = edit(chief, shop.support, name="<b>Aid</b>", metadata=[("hours", "48"), ("note", "two\nlines")])
    chief.post(url(Feature, shop.support.pk, "change"), first)
    again = chief.post(url(Feature, shop.support.pk, "change"), form)
    assert errors_of(again)["name"] == ["It was changed to “<b>Aid</b>” meanwhile. Save again to replace that."]
    assert errors_of(again)["metadata"] == ["“hours” was changed to “48” meanwhile. Save again to replace that."]
    assert "<b>Aid" not in html_of(again)
    chief.post(url(Feature, shop.support.pk, "change"), {**form, **hidden(again)})
    there = shop.there("support")[0]
    assert (there["name"], there["metadata"]) == ("Help", {"hours": "12"})


def test_a_form_as_it_was_opened_asks_nothing_of_stripe(shop: Catalogue, chief: Client) -> None:
    assert "nothing was changed" in said(chief, url(Feature, shop.support.pk, "change"), edit(chief, shop.support))
    assert shop.changes() == 0
    assert log_of(shop.support) == []


def test_an_edit_that_is_sent_twice_is_made_once(shop: Catalogue, chief: Client) -> None:
    form = edit(chief, shop.support, name="Help")
    said(chief, url(Feature, shop.support.pk, "change"), form)
    assert "is as you want it" in said(chief, url(Feature, shop.support.pk, "change"), form)
    assert shop.changes() == len(log_of(shop.support)) == 1


def test_an_edit_survives_an_outage(shop: Catalogue, chief: Client) -> None:
    silence(shop.stripe)
    typed: dict[str, Any] = {"name": "Help", "metadata": [("hours", "48")]}
    again = chief.post(url(Feature, shop.support.pk, "change"), edit(chief, shop.support, **typed))
    shop.stripe.clear_faults()
    assert "Try again: it is done once." in text_of(again)
    assert shop.row("support").name == "Support"
    assert "is changed" in said(chief, url(Feature, shop.support.pk, "change"), filled_in(again, **typed))
    assert shop.row("support").metadata == {"hours": "48"}


@pytest.mark.parametrize(
    "opened", ["", "{", "[]", "{}", '{"name": 1, "metadata": {}}', '{"name": "a", "metadata": {"b": 1}}']
)
def test_a_form_that_did_not_arrive_whole_changes_nothing(shop: Catalogue, chief: Client, opened: str) -> None:
    form = {**edit(chief, shop.support, name="Help"), "opened_with": opened}
    again = chief.post(url(Feature, shop.support.pk, "change"), form)
    assert "did not arrive whole" in text_of(again)
    assert shop.changes() == 0
    assert json.loads(hidden(again)["opened_with"])["name"] == "Support"


def test_a_feature_that_was_archived_meanwhile_is_not_edited(shop: Catalogue, chief: Client) -> None:
    form = edit(chief, shop.support, name="Help")
    shop.stripe.archive_feature(shop.support.stripe_id)
    refused = chief.post(url(Feature, shop.support.pk, "change"), form)
    assert "It is archived, which is final" in text_of(refused)
    assert not shop.row("support").active
    assert "Nothing was changed. It is archived" in said(chief, url(Feature, shop.support.pk, "change"), form)
    page = html_of(chief.get(url(Feature, shop.support.pk, "change")))
    assert 'name="_save"' not in page
    assert "It is archived, which is final" in page


# --- archive


def ask(client: Client, row: Any, what: str, **data: Any) -> Any:
    """The page that asks whether to do it."""
    answer = client.post(url(type(row), row.pk, what), data)
    assert answer.status_code == 200, answer
    return answer


def sure(client: Client, asked: Any, row: Any, what: str, **data: Any) -> str:
    """Confirm it, and return what is said then."""
    own = ("confirmed", "idempotency_key", "feature", "product")
    sent = {name: value for name, value in hidden(asked).items() if name in own}
    return said(client, url(type(row), row.pk, what), {**sent, **data})


def test_a_feature_is_archived_when_it_is_confirmed(shop: Catalogue, chief: Client) -> None:
    asked = ask(chief, shop.support, "archive")
    assert shop.changes() == 0
    for words in (
        "Archiving is final",
        "keep granting it",
        "lookup key of an archived feature is free again",
        "12,345 (5\xa0minutes ago)",
    ):
        assert words in asked.content.decode()
    assert f'action="{url(Feature, shop.support.pk, "detach")}"' in html_of(asked)
    words = sure(chief, asked, shop.support, "archive")
    assert "“support” is archived, and its lookup key is free again." in words
    assert "keep granting it, until it is detached from them: Pro <i>plus</i>." in words
    assert not shop.row("support").active
    assert shop.there("support")[0]["active"] is False
    assert log_of(shop.support) == ["Archived."]
    assert "is archived already" in said(chief, url(Feature, shop.support.pk, "archive"), SURE)


def test_what_was_not_counted_yet_is_counted_when_it_is_asked_about(shop: Catalogue, chief: Client) -> None:
    FeatureCount.objects.all().delete()
    for stripe_id, deleted_at in (("cus_acme", None), ("cus_gone", timezone.now())):
        customer = Customer.objects.create(stripe_id=stripe_id, livemode=False, deleted_at=deleted_at)
        ActiveEntitlement.objects.create(customer=customer, feature=shop.audit, lookup_key="audit", stripe_id="ent_1")
    page = html_of(ask(chief, shop.audit, "archive"))
    assert "not counted yet" not in page
    assert f'?feature__id__exact={shop.audit.pk}">1</a>' in page


def test_a_feature_that_was_archived_elsewhere_is_archived(shop: Catalogue, chief: Client) -> None:
    shop.stripe.archive_feature(shop.audit.stripe_id)
    asked = ask(chief, shop.audit, "archive")
    assert "“audit” is archived" in sure(chief, asked, shop.audit, "archive")


def test_during_an_outage_the_question_is_asked_again(shop: Catalogue, chief: Client) -> None:
    asked = ask(chief, shop.audit, "archive")
    shop.stripe.drop_connections(times=9)
    again = chief.post(url(Feature, shop.audit.pk, "archive"), {**SURE, **hidden(asked)})
    shop.stripe.clear_faults()
    assert "Stripe gave no usable answer." in text_of(again)
    assert shop.row("audit").active
    assert "“audit” is archived" in sure(chief, again, shop.audit, "archive")


# --- several


def choose(client: Client, *features: Feature, **data: Any) -> Any:
    chosen = {"action": "archive_chosen", "_selected_action": [feature.pk for feature in features]}
    return client.post(url(Feature), {**chosen, **data}, follow=True)


def test_of_several_those_that_can_be_are_archived(shop: Catalogue, chief: Client) -> None:
    live = Feature.objects.create(stripe_id="feat_live", lookup_key="live", livemode=True)
    chosen = (shop.support, shop.audit, shop.fax, live)
    asked = choose(chief, *chosen)
    assert "Archive 2 features for good?" in text_of(asked)
    for words in ("Archived already: it is left out.", "It is of live mode", "Audit <b>log</b>", "12,345"):
        assert words in text_of(asked)
    assert shop.changes() == 0
    assert "2 features are archived: “audit”, “support”." in messages_of(choose(chief, *chosen, **SURE))
    assert not Feature.objects.filter(livemode=False, active=True).exists()
    assert log_of(shop.support) == log_of(shop.audit) == ["Archived."]
    assert log_of(shop.fax) == []
    assert "Nothing is left to archive" in messages_of(choose(chief, *chosen, **SURE))


def test_one_that_is_refused_does_not_keep_the_others(shop: Catalogue, chief: Client) -> None:
    shop.stripe.fail_requests(400, times=9, path=f"{FEATURES}/{shop.audit.stripe_id}", method="POST")
    words = messages_of(choose(chief, shop.support, shop.audit, **SURE))
    assert "“audit”: Nothing was changed." in words
    assert "1 feature is archived: “support”." in words
    shop.stripe.clear_faults()
    assert "1 feature is archived: “audit”." in messages_of(choose(chief, shop.support, shop.audit, **SURE))


def test_after_some_refusals_no_more_are_asked_for(shop: Catalogue, chief: Client) -> None:
    for number in range(7):
        Feature.objects.create(stripe_id=f"feat_{number}", lookup_key=f"key{number}", livemode=False)
    words = messages_of(choose(chief, *Feature.objects.filter(lookup_key__startswith="key"), **SURE))
    assert words.count("Nothing was changed.") == 5
    assert "2 were not tried: “key5”, “key6”. Choose them again." in words


def test_an_outage_in_the_middle_leaves_the_others_for_later(shop: Catalogue, chief: Client) -> None:
    shop.stripe.create_feature("zebra")
    sync_catalog()
    shop.stripe.fail_requests(500, times=99, path=f"{FEATURES}/{shop.support.stripe_id}")
    chosen = (shop.support, shop.audit, shop.row("zebra"))
    words = messages_of(choose(chief, *chosen, **SURE))
    shop.stripe.clear_faults()
    assert "“support”: " in words
    assert "1 feature is archived: “audit”." in words
    assert "1 was not tried: “zebra”. Choose it again." in words
    assert "2 features are archived: “support”, “zebra”." in messages_of(choose(chief, *chosen, **SURE))


# --- attach, detach


@pytest.mark.parametrize("side", ["feature", "product"])
def test_a_feature_is_attached_and_detached_on_the_page_of_either(shop: Catalogue, chief: Client, side: str) -> None:
    row, other = (shop.audit, shop.pro) if side == "feature" else (shop.pro, shop.audit)
    chosen = {other._meta.model_name: other.pk}
    assert f'<option value="{other.pk}">' in html_of(chief.get(url(type(row), row.pk, "change")))
    asked = ask(chief, row, "attach", **chosen)
    assert LATER in text_of(asked)
    assert shop.changes() == 0
    assert f"“audit” is attached to Pro <i>plus</i>. {LATER}" in sure(chief, asked, row, "attach")
    assert shop.features_of(shop.pro) == ["audit", "fax", "support"]
    assert (log_of(shop.audit), log_of(shop.pro)) == (["Attached to Pro <i>plus</i>."], ["Attached “audit”."])
    assert "has “audit” already" in sure(chief, asked, row, "attach")
    asked = ask(chief, row, "detach", **chosen)
    assert LATER in text_of(asked)
    assert f"“audit” is detached from Pro <i>plus</i>. {LATER}" in sure(chief, asked, row, "detach")
    assert shop.features_of(shop.pro) == ["fax", "support"]
    assert log_of(shop.audit)[1:] == ["Detached from Pro <i>plus</i>."]
    assert "does not have “audit”" in sure(chief, asked, row, "detach")


def test_an_archived_feature_is_detached_and_not_attached_again(shop: Catalogue, chief: Client) -> None:
    assert "is archived, which is final" in said(chief, url(Feature, shop.fax.pk, "attach"), {"product": shop.basic.pk})
    page = html_of(chief.get(url(Feature, shop.fax.pk, "change")))
    assert f'action="{url(Feature, shop.fax.pk, "attach")}"' not in page
    asked = ask(chief, shop.pro, "detach", feature=shop.fax.pk)
    assert "so that it can never be attached again" in text_of(asked)
    sure(chief, asked, shop.pro, "detach")
    assert shop.features_of(shop.pro) == ["support"]


def test_what_was_done_elsewhere_meanwhile_is_done(shop: Catalogue, chief: Client) -> None:
    asked = ask(chief, shop.audit, "attach", product=shop.basic.pk)
    shop.stripe.attach_feature(shop.basic.stripe_id, shop.audit.stripe_id)
    assert "is attached to Basic" in sure(chief, asked, shop.audit, "attach")
    asked = ask(chief, shop.audit, "detach", product=shop.basic.pk)
    shop.stripe.detach_feature(shop.basic.stripe_id, shop.audit.stripe_id)
    assert "is detached from Basic" in sure(chief, asked, shop.audit, "detach")
    asked = ask(chief, shop.audit, "attach", product=shop.basic.pk)
    shop.stripe.archive_feature(shop.audit.stripe_id)
    refused = chief.post(url(Feature, shop.audit.pk, "attach"), {**hidden(asked), **SURE})
    assert "It is archived, which is final" in text_of(refused)
    assert ProductFeature.objects.filter(product=shop.basic).count() == 0


@pytest.mark.parametrize("what", ["attach", "detach"])
def test_nothing_is_lost_in_an_outage(shop: Catalogue, chief: Client, what: str) -> None:
    row = shop.audit if what == "attach" else shop.support
    asked = ask(chief, row, what, product=shop.pro.pk)
    silence(shop.stripe)
    again = chief.post(url(Feature, row.pk, what), {**hidden(asked), **SURE, "product": shop.pro.pk})
    shop.stripe.clear_faults()
    assert "Whether it was done is not known. Try again" in text_of(again)
    assert f"is {what}ed" in sure(chief, again, row, what, product=shop.pro.pk)
    assert (row.lookup_key in shop.features_of(shop.pro)) is (what == "attach")
    assert ProductFeature.objects.filter(product=shop.pro, feature=row).exists() is (what == "attach")


@pytest.mark.parametrize("product", ["", "x", "9" * 40, "0", "-1"])
def test_what_is_no_product_is_not_attached_to(shop: Catalogue, chief: Client, product: str) -> None:
    words = said(chief, url(Feature, shop.audit.pk, "attach"), {"product": product, **SURE})
    assert "Choose a product" in words


# --- who may, and where

DEEDS = {
    "attach": (ATTACH, lambda shop: (url(Feature, shop.audit.pk, "attach"), {"product": shop.pro.pk})),
    "attach to a product": (ATTACH, lambda shop: (url(Product, shop.pro.pk, "attach"), {"feature": shop.audit.pk})),
    "detach": (DETACH, lambda shop: (url(Feature, shop.support.pk, "detach"), {"product": shop.pro.pk})),
    "detach from a product": (DETACH, lambda shop: (url(Product, shop.pro.pk, "detach"), {"feature": shop.support.pk})),
    "archive": (ARCHIVE, lambda shop: (url(Feature, shop.support.pk, "archive"), {})),
}
ALL = {ADD, CHANGE, ARCHIVE, ATTACH, DETACH}
VIEW = ("view_feature", "view_product")


@pytest.mark.parametrize("deed", DEEDS)
def test_each_deed_has_its_own_permission(shop: Catalogue, deed: str) -> None:
    needed, how = DEEDS[deed]
    address, data = how(shop)
    for may in ((), (needed,), VIEW, (*VIEW, *(ALL - {needed}))):
        # To change features is to see them.
        if not (may == (needed,) and needed == CHANGE):
            assert staff(*may).post(address, {**data, **SURE}).status_code == 403, may
    assert shop.changes() == 0
    assert staff(*VIEW, needed).get(address).status_code == 405
    assert staff(*VIEW, needed).post(address, {**data, **SURE}).status_code == 302
    assert shop.changes() == 1
    assert staff(*VIEW, needed, csrf=True).post(address, data).status_code == 403


def test_making_and_editing_have_theirs(shop: Catalogue) -> None:
    others = staff(*VIEW, ARCHIVE, ATTACH, DETACH)
    assert others.get(url(Feature, "add")).status_code == 403
    assert others.post(url(Feature, "add"), {"name": "A", "lookup_key": "a"}).status_code == 403
    assert others.post(url(Feature, shop.audit.pk, "change"), {"name": "A"}).status_code == 403
    maker = staff(ADD)
    assert maker.post(url(Feature, "add"), new(maker)).headers["Location"] == "/admin/"
    editor = staff(CHANGE)
    editor.post(url(Feature, shop.audit.pk, "change"), edit(editor, shop.audit, name="A"))
    assert shop.row("audit").name == "A"
    assert staff(*ALL, csrf=True).post(url(Feature, "add"), {"name": "A", "lookup_key": "a"}).status_code == 403


def test_who_may_only_look_sees_no_way_to_change_anything(shop: Catalogue) -> None:
    support = staff(*VIEW, "view_productfeature")
    addresses = [url(Feature), url(Product), url(Product, shop.pro.pk, "change"), url(ProductFeature)]
    for address in [*addresses, *(url(Feature, row.pk, "change") for row in (shop.support, shop.fax))]:
        page = html_of(support.get(address))
        assert not re.search("Archive…|Attach…|Detach…|Add feature|archive_chosen|_save|cannot be changed from", page)
    assert "support" in html_of(support.get(url(Product, shop.pro.pk, "change")))
    choose(support, shop.support, **SURE)
    assert shop.row("support").active


@pytest.mark.parametrize("column", [{"livemode": True}, {"account": "acct_other"}])
def test_rows_of_others_are_left_alone(shop: Catalogue, chief: Client, column: dict[str, Any]) -> None:
    whose = {"livemode": False, **column}
    feature = Feature.objects.create(stripe_id="feat_other", lookup_key="other", name="Other", **whose)
    product = Product.objects.create(stripe_id="prod_other", name="Other", **whose)
    ProductFeature.objects.create(stripe_id="prodft_other", product=product, feature=feature, **whose)
    for row in (feature, product):
        page = html_of(chief.get(url(type(row), row.pk, "change")))
        assert "cannot be changed from here" in page
        assert not re.search("Archive…|Attach…|Detach…|_save", page)
    assert 'value="{product.pk}">Other' not in html_of(chief.get(url(Feature, shop.audit.pk, "change")))
    deeds = [
        (url(Feature, feature.pk, "archive"), {}),
        (url(Feature, feature.pk, "attach"), {"product": shop.pro.pk}),
        (url(Feature, feature.pk, "detach"), {"product": product.pk}),
        (url(Product, product.pk, "attach"), {"feature": shop.audit.pk}),
        (url(Feature, feature.pk, "change"), {"name": "Mine"}),
    ]
    for address, data in deeds:
        assert "cannot be changed from here" in said(chief, address, {**data, **SURE}), address
    assert "Choose a product" in said(chief, url(Feature, shop.audit.pk, "attach"), {"product": product.pk, **SURE})
    assert "Choose a feature" in said(chief, url(Product, shop.pro.pk, "detach"), {"feature": feature.pk, **SURE})
    assert "Nothing is left to archive" in messages_of(choose(chief, feature, **SURE))
    assert not [request for request in shop.stripe.requests if request.method != "GET"]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "ENTITLEMENTS_STRIPE_API_KEY is not set."),
        ("pk_test_1", "ENTITLEMENTS_STRIPE_API_KEY must be a secret or restricted key"),
    ],
)
def test_without_an_api_key_the_pages_say_why_nothing_can_be_changed(
    shop: Catalogue, chief: Client, settings: Any, key: str | None, words: str
) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = key
    pages = [url(Feature), url(Product), url(Feature, shop.audit.pk, "change"), url(Product, shop.pro.pk, "change")]
    for address in pages:
        page = html_of(chief.get(address))
        assert words in page, address
        assert not re.search("Archive…|Attach…|Detach…|Add feature|archive_chosen|_save", page)
    assert chief.get(url(Feature, "add")).status_code == 403
    assert words in said(chief, url(Feature, shop.audit.pk, "archive"), SURE)
    assert words in said(chief, url(Feature, shop.audit.pk, "attach"), {"product": shop.pro.pk, **SURE})


def test_stripe_s_refusal_of_the_api_key_is_told(shop: Catalogue, chief: Client) -> None:
    shop.stripe.fail_requests(403, times=1)
    refused = chief.post(url(Feature, "add"), new(chief))
    assert "Stripe does not let this API key change the catalogue (HTTP 403)." in text_of(refused)


# --- how it is built


def test_pages_take_few_queries(shop: Catalogue, chief: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(20):
        feature = Feature.objects.create(stripe_id=f"feat_{number}", lookup_key=f"key{number}", livemode=False)
        product = Product.objects.create(stripe_id=f"prod_{number}", name=f"Plan {number}", livemode=False)
        for attached, to in ((feature, shop.pro), (shop.support, product)):
            ProductFeature.objects.create(
                stripe_id=f"{attached.pk}-{to.pk}", product=to, feature=attached, livemode=False
            )
    with django_assert_max_num_queries(12):
        choose(chief, *Feature.objects.all())
    for row, deed, data in [
        (shop.support, "change", None),
        (shop.pro, "change", None),
        (shop.support, "archive", {}),
        (shop.support, "detach", {"product": shop.pro.pk}),
        (shop.audit, "attach", {"product": shop.pro.pk}),
        (shop.pro, "attach", {"feature": shop.audit.pk}),
    ]:
        address = url(type(row), row.pk, deed)
        with django_assert_max_num_queries(12):
            answer = chief.get(address) if data is None else chief.post(address, data)
        assert answer.status_code == 200
    with django_assert_max_num_queries(12):
        chief.get(url(Feature, "add"))


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_held_while_stripe_is_asked(stripe: StripeSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, chief = Catalogue(stripe), staff_for_all()
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert "is created" in said(chief, url(Feature, "add"), new(chief))
    made = shop.row("api_access")
    assert "is changed" in said(chief, url(Feature, made.pk, "change"), edit(chief, made, name="API"))
    assert "is attached" in said(chief, url(Feature, made.pk, "attach"), {"product": shop.basic.pk, **SURE})
    assert "is detached" in said(chief, url(Product, shop.basic.pk, "detach"), {"feature": made.pk, **SURE})
    assert "is archived" in said(chief, url(Feature, made.pk, "archive"), SURE)
    assert "is archived" in messages_of(choose(chief, shop.support, **SURE))


def test_names_are_shown_as_they_are(shop: Catalogue, chief: Client) -> None:
    shop.audit.lookup_key = "<u>audit"
    shop.audit.save()
    pages = [chief.get(url(Feature)), chief.get(url(Product)), choose(chief, shop.audit)]
    pages += [chief.get(url(Feature, shop.audit.pk, "change")), chief.get(url(Product, shop.pro.pk, "change"))]
    pages += [ask(chief, shop.audit, "archive"), ask(chief, shop.audit, "attach", product=shop.pro.pk)]
    pages += [ask(chief, shop.pro, "detach", feature=shop.support.pk)]
    for page in pages:
        assert not re.search("<u>audit|<b>log|<i>plus", html_of(page))


def test_the_list_has_the_new_feature_at_once(shop: Catalogue, chief: Client) -> None:
    chief.post(url(Feature, "add"), new(chief))
    assert shop.row("api_access").pk in listed(chief, Feature, q="API access")
