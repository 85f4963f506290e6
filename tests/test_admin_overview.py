"""The overview in Django admin: its numbers are those of the rows, and each leads to them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from django.contrib.admin import AdminSite
from django.db.models import F
from django.test import Client
from django.utils import timezone

from entitlements_app import budget, runs, status
from entitlements_app.admin import plot
from entitlements_app.admin.numbers import Numbers
from entitlements_app.counts import count_if_due
from entitlements_app.linking import link
from entitlements_app.models import (
    AccountState,
    ChangeCount,
    Customer,
    EntitlementChange,
    Feature,
    FeatureCount,
    SyncRun,
    WebhookEvent,
)
from entitlements_app.runs import Drift, Kind
from entitlements_app.testing.factories import CustomerFactory, FeatureFactory, WebhookEventFactory
from tests.rows import make_subscriber
from tests.staff import html_of, staff, staff_for_all, text_of

pytestmark = pytest.mark.django_db

URL = "/admin/entitlements_app/overview/"
LINK = re.compile(r'href="(/admin/entitlements_app/[^"]*)"')


@pytest.fixture
def site() -> None:
    """Three customers with sso, one with audit too, one that has lost it; a count, and something of all that waits."""
    subscriber = make_subscriber()
    CustomerFactory(keys=["sso", "audit"])
    CustomerFactory(keys=["sso"])
    link(subscriber, CustomerFactory(keys=["sso"]).stripe_id)
    CustomerFactory(lapsed=True)
    FeatureFactory(lookup_key="old", archived=True)
    WebhookEventFactory(pending=True)
    WebhookEventFactory(failed=True)
    EntitlementChange.objects.filter(lookup_key="sso").update(effective=True)
    for kind in ("granted", "revoked"):
        EntitlementChange.objects.create(
            subscriber=subscriber, lookup_key="sso", kind=kind, cause="fetch", drift="event_lost", effective=True,
            livemode=False, parked_at=timezone.now() if kind == "granted" else None,
        )  # fmt: skip
    runs.count_fetches(done=9, changed=1, failed=0, calls=9, drift={Drift.EVENT_LOST: 2})
    AccountState.objects.create(livemode=False, polled_to=int(time.time()), calls=1234, month=budget._month())
    run = runs.start(Kind.ALL, total=8000)
    assert run
    runs.count(run, done=2000)
    count()


def count() -> None:
    SyncRun.objects.filter(kind="count").delete()
    assert count_if_due(deadline=time.monotonic() + 30)


@pytest.fixture
def viewer() -> Client:
    """Who may view everything."""
    return staff_for_all(only="view")


def page(client: Client) -> str:
    return html_of(client.get(URL))


def text(client: Client) -> str:
    return text_of(client.get(URL))


def our_part(client: Client) -> str:
    return page(client).split('<div id="content-main">')[1].split("</main>")[0]


def svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, flags=re.S)]


# --- what it shows


def test_the_index_leads_to_it(viewer: Client) -> None:
    assert f'href="{URL}"' in viewer.get("/admin/").content.decode()


def test_a_feature_has_its_customers_and_their_share(site: None, viewer: Client) -> None:
    said = text(viewer)
    assert re.search(r"sso Sso 3 75.0%", said)
    assert re.search(r"audit Audit 1 25.0%", said)
    assert re.search(r"old archived Old 0 0.0%", said)
    assert re.search(r"Counted \d+ seconds? ago", said)
    assert "of the 4 customers in this mode" in said


def test_a_feature_leads_to_the_entitlements_of_it(site: None, viewer: Client) -> None:
    sso = Feature.objects.get(lookup_key="sso")
    address = f"/admin/entitlements_app/activeentitlement/?feature__id__exact={sso.pk}"
    assert f'<a href="{address}">3</a>' in page(viewer)
    listed = viewer.get(address).context["cl"]
    assert {row.feature for row in listed.result_list} == {sso}
    assert listed.result_count == 3


@pytest.mark.parametrize(("language", "grouping"), [("en", False), ("de", True), ("ar", True)])
def test_the_plot_is_xml_with_numbers_that_any_browser_reads(
    site: None, viewer: Client, settings: Any, language: str, grouping: bool
) -> None:
    settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = language, grouping
    FeatureCount.objects.update(customers=1234, of_customers=10_000)
    ChangeCount.objects.update(granted=12_345, revoked=678)
    found = svgs(our_part(viewer))
    assert len(found) == 1 + 1 + Feature.objects.count()  # and a run at work
    for element in [each for svg in found for each in svg.iter()]:
        for name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height"):
            assert re.fullmatch(r"-?\d+(\.\d+)?", element.get(name, "0")), ElementTree.tostring(element)
    [plotted] = [svg for svg in found if svg.get("role") == "img"]
    assert plotted.find("title") is not None
    assert plotted.find("desc") is not None


def test_each_day_of_the_plot_leads_to_its_changes(site: None, viewer: Client) -> None:
    today = ChangeCount.objects.filter(livemode=False).order_by("-day")[0]
    [plotted] = [svg for svg in svgs(our_part(viewer)) if svg.get("role") == "img"]
    [granted, revoked] = plotted.findall("a")
    query = f"?kind__exact=%s&day={today.day}&effective__exact=1&livemode__exact=0"
    assert granted.get("href") == "/admin/entitlements_app/entitlementchange/" + query % "granted"
    assert revoked.get("href") == "/admin/entitlements_app/entitlementchange/" + query % "revoked"
    title = granted.find("rect/title")
    assert title is not None
    assert (title.text or "").endswith(f": {today.granted} granted")
    assert today.granted == EntitlementChange.objects.filter(effective=True, kind="granted").count() == 5


def test_the_table_has_the_numbers_of_the_plot(site: None, viewer: Client) -> None:
    table = our_part(viewer).split("<details")[1].split("</details>")[0]
    assert len(re.findall(r'<th scope="row">', table)) == 30
    assert len(LINK.findall(table)) == 2
    assert "(today)" in table


def test_what_waits_is_told_with_its_age(site: None, viewer: Client) -> None:
    WebhookEvent.objects.update(received_at=F("received_at") - timedelta(minutes=12))
    said = text(viewer)
    assert "Pending 1 (the oldest for 12 minutes)" in said
    assert "Failed 1 " in said
    assert f"Changes waiting {EntitlementChange.objects.waiting().count()} (the oldest" in said
    assert "Changes parked 1 " in said
    assert "In 24 hours 2 : 2 event lost" in said
    assert "Calls this month 1,234" in said
    assert "2,000 of 8,000 customers asked about (25%)" in said


def test_the_numbers_are_those_of_the_status(site: None, viewer: Client) -> None:
    told, shown = status.get_status(), viewer.get(URL).context["numbers"]
    assert (shown["marked"].value, shown["due"].value) == (told.customers.marked, told.customers.due)
    assert shown["customers"].value == Customer.objects.count()


def test_each_number_is_that_of_the_list_it_leads_to(site: None, viewer: Client) -> None:
    context = viewer.get(URL).context
    shown = {name: number for name, number in context["numbers"].items() if name not in ("calls", "untold")}
    shown |= {f"{day['day']} {n.url}": n for day in context["days"]["rows"] for n in day["kinds"]}
    shown |= {period: number for period, number, _ in context["drift"]}
    shown |= {f"{period}, {cause}": number for period, _, causes in context["drift"] for cause, number in causes}
    shown |= {row["lookup_key"]: row["customers"] for row in context["features"]["rows"]}
    leading = {name: number for name, number in shown.items() if number.url}
    assert leading.keys() > {"pending", "overdue", "failed", "marked", "due", "urgent", "undelivered", "parked", "sso"}
    found = {name: viewer.get(number.url).context["cl"].result_count for name, number in leading.items()}
    assert found == {name: number.value for name, number in leading.items()}


def test_problems_come_first_with_what_to_do(site: None, viewer: Client) -> None:
    said = our_part(viewer)
    assert "3 problems need a person" in said.split("ent-features")[0]
    assert "1 webhook event(s) failed for good" in said
    assert "?status__exact=failed&amp;livemode__exact=0" in said.split("ent-features")[0]


def test_code_in_a_message_is_shown_as_code(viewer: Client, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    assert "<code>manage.py entitlements_run</code>" in page(viewer)


def test_all_is_well(viewer: Client) -> None:
    run = runs.start(Kind.PURGE)
    assert run
    runs.finish(run)
    assert "All is well." in page(viewer)


def test_stopped_calls_are_told(viewer: Client, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    budget.Allowance(seconds=1).prepay()
    budget.stop(budget.Stopped("Stripe refused it.", reason="HTTP 401"))
    said = text(viewer)
    assert "calls to Stripe are stopped: HTTP 401" in said
    assert "entitlements_run --resume" in said


# --- modes, sizes, settings


def test_the_other_mode_does_not_count(site: None, viewer: Client, settings: Any) -> None:
    assert "test mode" in text(viewer)
    settings.ENTITLEMENTS_LIVEMODE = True
    said = text(viewer)
    assert "live mode" in said
    assert "There are no features in this mode yet" in said
    assert "Pending 0 Overdue 0 Failed 0" in said
    assert "granted (up): 0 in 30 days" in said


def test_an_empty_site_says_what_is_to_come(viewer: Client) -> None:
    said = text(viewer)
    assert "There are no features in this mode yet" in said
    assert said.count("The next periodic run counts them") == 1
    assert said.count("none yet") == len(Kind)
    FeatureFactory()
    assert text(viewer).count("not counted yet") == 1


def test_of_hundreds_of_features_the_most_common_are_shown(viewer: Client) -> None:
    Feature.objects.bulk_create(
        Feature(stripe_id=f"feat_{number}", lookup_key=f"key_{number}", livemode=False) for number in range(60)
    )
    count()
    said = our_part(viewer)
    assert said.count("activeentitlement") == 0, "a zero leads nowhere"
    assert len(re.findall(r"<code>key_\d+</code>", said)) == 50
    assert '<a href="/admin/entitlements_app/feature/?livemode__exact=0">All features</a>' in said


def test_a_count_that_was_not_made_to_its_end_says_so(rf: Any) -> None:
    numbers = Numbers(AdminSite(), rf.get("/"))  # which has no pages
    assert str(numbers.counted(99_999, Customer)) == "99,999"
    assert str(numbers.counted(100_000, Customer)) == "100,000+"
    assert str(numbers.exactly(1_234_567, Customer)) == "1,234,567"


def test_a_malformed_setting_is_a_sentence(viewer: Client, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "hello"
    said = text(viewer)
    assert "A setting is malformed" in said
    assert "ENTITLEMENTS_STRIPE_API_KEY" in said
    assert "hello" not in said


def test_text_from_outside_is_escaped(viewer: Client) -> None:
    FeatureFactory(lookup_key="<b>key", name="<script>alert(1)</script>")
    SyncRun.objects.create(kind=Kind.CATALOG, livemode=False, finished_at=timezone.now(), error="<i>no</i>")
    said = our_part(viewer)
    assert "<script" not in said
    assert "<b>" not in said
    assert "<i>" not in said


# --- who sees it


def test_it_takes_a_permission(site: None) -> None:
    assert staff("view_syncrun").get(URL).status_code == 403


def test_visitors_are_sent_to_sign_in() -> None:
    assert Client().get(URL).status_code == 302


def test_links_are_shown_to_who_may_see_the_rows(site: None) -> None:
    client = staff("view_overview", "view_webhookevent")
    links = set(LINK.findall(our_part(client)))
    assert {link.split("/")[3] for link in links} == {"webhookevent"}
    assert re.search(r"sso Sso 3 75.0%", text(client))


def test_every_link_leads_somewhere(site: None, viewer: Client) -> None:
    links = {link.replace("&amp;", "&") for link in LINK.findall(our_part(viewer))}
    assert {link.split("/")[3] for link in links} >= {
        "activeentitlement", "customer", "entitlementchange", "feature", "syncrun", "webhookevent"
    }  # fmt: skip
    for address in links:
        assert viewer.get(address).status_code == 200, address


@pytest.mark.parametrize("rest", ["add/", "1/", "1/change/", "1/delete/", "1/history/", "add"])
def test_there_are_no_other_pages(site: None, admin_client: Client, rest: str) -> None:
    assert admin_client.get(URL + rest).status_code == 404
    assert admin_client.post(URL + rest, {"post": "yes"}).status_code == 404


def test_it_only_shows(site: None, admin_client: Client) -> None:
    before = SyncRun.objects.count()
    assert admin_client.post(URL, {"action": "delete_selected", "post": "yes"}).status_code == 405
    assert SyncRun.objects.count() == before


def test_it_costs_few_queries(site: None, viewer: Client, django_assert_max_num_queries: Any) -> None:
    page(viewer)  # content types
    with django_assert_max_num_queries(11):
        page(viewer)


def test_nothing_of_it_needs_an_unsafe_policy(site: None, viewer: Client) -> None:
    said = our_part(viewer)
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=|javascript:", said)


# --- the plot


def coordinates(drawn: plot.Plot) -> Iterator[float]:
    for column in drawn.columns:
        for bar in (column.up, column.down):
            if bar:
                yield from (float(bar.y), float(bar.y) + float(bar.height))


@pytest.mark.parametrize("most", [(0, 0), (1, 0), (0, 1), (7, 3), (1_000_000, 1), (99, 101), (3, 10**9)])
def test_bars_stay_within_the_plot(most: tuple[int, int]) -> None:
    drawn = plot.draw([(0, 0), most, (most[0] // 2, most[1] // 2)])
    low, high = (float(line.y) for line in (drawn.lines[0], drawn.lines[-1]))
    assert all(low - 0.1 <= place <= high + plot.LEAST for place in coordinates(drawn))
    assert 2 <= len(drawn.lines) <= 10
    assert drawn.lines[0].number >= most[0]
    assert sum(line.is_zero for line in drawn.lines) == 1


def test_bars_are_as_high_as_their_numbers() -> None:
    low, high = plot.draw([(10, 0), (20, 0)]).columns
    assert low.up
    assert high.up
    assert float(high.up.height) == pytest.approx(2 * float(low.up.height), abs=0.02)
    assert (low.down, high.down) == (None, None)


def test_a_share_is_between_nothing_and_all() -> None:
    assert [plot.share(*pair) for pair in ((0, 0), (1, 4), (5, 4))] == [0, 25, 100]
    assert [plot.width(percent) for percent in (0, 0.01, 33.333, 100)] == ["0", "1", "33.33", "100"]
