"""Pages of dj-stripe's admin and of ours lead to each other, for who may see both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from djstripe import models as theirs

from entitlements_app import models as ours
from entitlements_app.contrib.djstripe.admin import CustomerEntitlementsMixin, links_to_djstripe
from entitlements_app.linking import link
from entitlements_app.overrides import deny
from entitlements_app.testing.factories import CustomerFactory, FeatureFactory, WebhookEventFactory
from tests.rows import BY_ORGANISATION, customer, make_subscriber
from tests.staff import html_of, text_of, url

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[3]
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def chief() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("chief"))
    return client


def looks_at(*models: Any, name: str = "looker") -> Client:
    """Staff that may view the rows of these models, and do nothing else."""
    user = User.objects.create(username=name, is_staff=True)
    for model in models:
        codename, label = f"view_{model._meta.model_name}", model._meta.app_label
        user.user_permissions.add(Permission.objects.get(codename=codename, content_type__app_label=label))
    client = Client()
    client.force_login(user)
    return client


def known(model: Any, stripe_id: str, **fields: Any) -> Any:
    """dj-stripe's row."""
    return model.objects.create(id=stripe_id, livemode=fields.pop("livemode", False), **fields)


def given_unnoticed(row: Any, subscriber: Any) -> None:
    """A subscriber that dj-stripe's row got without a signal."""
    type(row).objects.filter(pk=row.pk).update(subscriber=subscriber)


def trigger(event: Any) -> Any:
    return theirs.WebhookEventTrigger.objects.create(remote_ip="127.0.0.1", headers={}, body="{}", event=event)


def their_page(row: Any) -> str:
    return reverse(f"admin:djstripe_{row._meta.model_name}_change", args=[row.pk])


def our_page(row: Any) -> str:
    return url(type(row), row.pk, "change")


def make_event(stripe_id: str) -> Any:
    return known(theirs.Event, stripe_id, data={"object": {"object": "plan"}}, type="customer.subscription.updated")


def make_product(stripe_id: str = "prod_pro", name: str = "Pro", *keys: str, **fields: Any) -> ours.Product:
    product = ours.Product.objects.create(stripe_id=stripe_id, name=name, livemode=False, **fields)
    for key in keys:
        feature = FeatureFactory(lookup_key=key)
        ours.ProductFeature.objects.create(stripe_id=f"pf_{key}", livemode=False, product=product, feature=feature)
    return product


# From ours to dj-stripe's


def test_a_customers_page_leads_to_djstripes_of_the_same_customer(acme: Any, chief: Client) -> None:
    row = known(theirs.Customer, "cus_acme")
    known(theirs.Customer, "cus_globex")
    page = html_of(chief.get(our_page(customer())))
    assert f'<a href="{their_page(row)}">Open in dj-stripe</a>' in page
    assert page.count("Open in dj-stripe") == 1
    assert "cus_acme" in text_of(chief.get(their_page(row)))


def test_a_products_page_leads_to_djstripes(chief: Client) -> None:
    product, row = make_product(), known(theirs.Product, "prod_pro", name="Pro")
    assert f'<a href="{their_page(row)}">Open in dj-stripe</a>' in html_of(chief.get(our_page(product)))


def test_an_events_page_leads_to_djstripes_event_and_to_its_last_delivery(chief: Client) -> None:
    event, row = WebhookEventFactory(stripe_id="evt_1"), make_event("evt_1")
    trigger(row)
    last = trigger(row)
    trigger(make_event("evt_2"))
    page = html_of(chief.get(our_page(event)))
    assert f'<a href="{their_page(row)}">Open in dj-stripe</a>' in page
    assert f'<a href="{their_page(last)}">Its delivery in dj-stripe</a>' in page


def test_an_event_of_which_djstripe_has_no_delivery_has_one_link(chief: Client) -> None:
    event, row = WebhookEventFactory(stripe_id="evt_1"), make_event("evt_1")
    page = html_of(chief.get(our_page(event)))
    assert their_page(row) in page
    assert "Its delivery" not in page


def test_what_djstripe_does_not_know_leads_nowhere(acme: Any, chief: Client) -> None:
    for row in (customer(), make_product(), WebhookEventFactory()):
        assert "dj-stripe" not in text_of(chief.get(our_page(row)))


def test_another_mode_is_another_customer(acme: Any, chief: Client) -> None:
    known(theirs.Customer, "cus_acme", livemode=True)
    assert "dj-stripe" not in text_of(chief.get(our_page(customer())))


def test_another_account_is_another_customer(acme: Any, chief: Client, two_accounts: None) -> None:
    row, own = (
        known(theirs.Customer, "cus_acme", djstripe_owner_account=theirs.Account.objects.get(id="acct_theirs")),
        customer(),
    )
    assert "dj-stripe" not in text_of(chief.get(our_page(own)))
    theirs_here = CustomerFactory(stripe_id="cus_acme", account="acct_theirs")
    assert their_page(row) in html_of(chief.get(our_page(theirs_here)))
    theirs.Customer.objects.update(djstripe_owner_account="acct_ours")
    assert their_page(row) in html_of(chief.get(our_page(own)))
    assert "dj-stripe" not in text_of(chief.get(our_page(theirs_here)))


def test_who_may_not_see_djstripes_pages_gets_no_links(acme: Any) -> None:
    known(theirs.Customer, "cus_acme")
    trigger(make_event("evt_1"))
    event = WebhookEventFactory(stripe_id="evt_1")
    looker = looks_at(ours.Customer, ours.WebhookEvent)
    for row in (customer(), event):
        assert "dj-stripe" not in text_of(looker.get(our_page(row)))
    half = looks_at(ours.WebhookEvent, theirs.Event, name="half")
    page = text_of(half.get(our_page(event)))
    assert "Open in dj-stripe" in page
    assert "Its delivery" not in page


def test_links_cost_a_query_and_one_for_the_account(acme: Any, two_accounts: None, rf: Any) -> None:
    known(theirs.Customer, "cus_acme", djstripe_owner_account=theirs.Account.objects.get(id="acct_ours"))
    trigger(make_event("evt_1"))
    request = rf.get("/")
    request.user = User.objects.create_superuser("chief")

    def cost(row: Any) -> tuple[int, int]:
        with CaptureQueriesContext(connection) as queries:
            found = links_to_djstripe(admin.site, request, row)
        return len(found), len(queries)

    assert cost(customer()) == (1, 2)
    assert cost(WebhookEventFactory(stripe_id="evt_1")) == (2, 1)
    assert cost(make_product()) == (0, 1)
    assert cost(FeatureFactory()) == (0, 0)
    request.user = User.objects.create(username="nobody")
    request.user.get_all_permissions()
    assert cost(customer()) == (0, 0)


@pytest.mark.parametrize("model", [ours.Customer, ours.Product, ours.WebhookEvent])
def test_lists_do_not_ask_djstripe(model: Any, chief: Client) -> None:
    for number in range(3):
        CustomerFactory(stripe_id=f"cus_{number}")
        known(theirs.Customer, f"cus_{number}")
        make_product(f"prod_{number}")
        known(theirs.Product, f"prod_{number}", name="Pro")
        WebhookEventFactory(stripe_id=f"evt_{number}")
        make_event(f"evt_{number}")
    with CaptureQueriesContext(connection) as queries:
        assert chief.get(url(model)).status_code == 200
    assert not [query["sql"] for query in queries if "djstripe" in query["sql"]]


# From dj-stripe's to ours


def test_djstripes_customer_says_what_counts_and_leads_here(chief: Client) -> None:
    ada = make_subscriber()
    held = CustomerFactory(stripe_id="cus_ada", subscriber=ada, keys=("sso", "audit"))
    row = known(theirs.Customer, "cus_ada", subscriber=ada)
    answer = chief.get(their_page(row))
    assert f'<a href="{our_page(held)}">2 active entitlements</a>: audit, sso' in html_of(answer)
    assert f"That is what {ada} is entitled to." in text_of(answer)


def test_it_says_what_overrides_and_other_customers_make_of_it(chief: Client) -> None:
    ada = make_subscriber()
    CustomerFactory(stripe_id="cus_ada", subscriber=ada, keys=("sso", "audit"))
    CustomerFactory(stripe_id="cus_other", subscriber=ada, keys=("reports",))
    row = known(theirs.Customer, "cus_ada", subscriber=ada)
    deny(ada, "sso")
    page = text_of(chief.get(their_page(row)))
    assert f"With overrides and other customers, {ada} is entitled to: audit, reports" in page
    deny(ada, "audit")
    deny(ada, "reports")
    assert f"{ada} is entitled to: nothing" in text_of(chief.get(their_page(row)))


def test_an_unknown_customer_is_told_with_the_remedy(chief: Client) -> None:
    row = known(theirs.Customer, "cus_ada")
    given_unnoticed(row, make_subscriber())
    page = text_of(chief.get(their_page(row)))
    assert "It is not known here yet. To link it to its subscriber: manage.py entitlements_link_djstripe" in page
    given_unnoticed(row, None)
    page = text_of(chief.get(their_page(row)))
    assert "It is not known here yet: it has no subscriber, and Stripe has told nothing of it." in page
    assert "entitlements_link_djstripe" not in page


def test_a_customer_that_is_linked_to_nobody_or_to_another_is_told_with_the_remedy(chief: Client) -> None:
    ada, bob = make_subscriber(), make_subscriber()
    held = CustomerFactory(stripe_id="cus_ada", keys=("sso",))
    row = known(theirs.Customer, "cus_ada")
    given_unnoticed(row, ada)
    page = text_of(chief.get(their_page(row)))
    assert "linked to nobody here: what it holds counts for nobody. To link it to its subscriber: manage.py" in page
    link(bob, "cus_ada")
    answer = chief.get(their_page(row))
    said = f"linked here to another subscriber: what it holds counts for {bob}, not for {ada}."
    assert said in text_of(answer)
    assert "manage.py entitlements_link_djstripe --move" in text_of(answer)
    assert our_page(held) in html_of(answer)


def test_what_does_not_count_here_is_not_said_to_count(chief: Client, two_accounts: None) -> None:
    ada = make_subscriber()
    CustomerFactory(stripe_id="cus_live", subscriber=ada, livemode=True, keys=("sso",))
    live = known(theirs.Customer, "cus_live", livemode=True, subscriber=ada)
    page = text_of(chief.get(their_page(live)))
    assert "1 active entitlement : sso" in page
    assert "It is of live mode and this site of test mode: what it holds counts for nobody here." in page
    other = known(
        theirs.Customer,
        "cus_other",
        djstripe_owner_account=theirs.Account.objects.get(id="acct_theirs"),
        subscriber=ada,
    )
    CustomerFactory(stripe_id="cus_other", subscriber=ada, keys=("sso",))
    page = text_of(chief.get(their_page(other)))
    assert "It is of another Stripe account than this site's, so nothing of it is kept here." in page
    assert "sso" not in page


def test_a_deleted_customer_is_told(chief: Client) -> None:
    gone = CustomerFactory(stripe_id="cus_gone", subscriber=make_subscriber())
    ours.Customer.objects.filter(pk=gone.pk).update(deleted_at=gone.created_at, next_fetch_at=None)
    page = text_of(chief.get(their_page(known(theirs.Customer, "cus_gone"))))
    assert "0 active entitlements It is deleted in Stripe, which is final." in page


def test_djstripes_product_names_its_features(chief: Client) -> None:
    product, row = make_product("prod_pro", "Pro", "sso", "audit"), known(theirs.Product, "prod_pro", name="Pro")
    assert f'<a href="{our_page(product)}">2 features</a>: audit, sso' in html_of(chief.get(their_page(row)))
    ours.ProductFeature.objects.all().delete()
    page = text_of(chief.get(their_page(row)))
    assert "0 features Stripe has not been asked about them yet. To ask now: manage.py entitlements_sync --c" in page
    unknown = known(theirs.Product, "prod_new", name="New")
    page = text_of(chief.get(their_page(unknown)))
    assert "It is not known here yet. Active products are read once a day. To read them now: manage.py" in page


def test_djstripes_event_says_how_it_ended(chief: Client) -> None:
    event = WebhookEventFactory(stripe_id="evt_1", status="failed", error=EVIL)
    page = html_of(chief.get(their_page(make_event("evt_1"))))
    assert f'<a href="{our_page(event)}">failed</a>' in page
    assert EVIL not in page
    assert "It is not in the inbox, or not any more." in text_of(chief.get(their_page(make_event("evt_2"))))


def test_who_may_not_see_our_pages_sees_djstripes_as_it_is(acme: Any) -> None:
    row, product = known(theirs.Customer, "cus_acme"), known(theirs.Product, "prod_pro", name="Pro")
    looker = looks_at(theirs.Customer, theirs.Product, ours.Feature)
    for each in (row, product):
        page = html_of(looker.get(their_page(each)))
        assert "entitlements_here" not in page
        assert " here:" not in page
    both = looks_at(theirs.Customer, ours.Customer, name="both")
    assert "What counts here:" in text_of(both.get(their_page(row)))


def test_djstripes_customer_can_still_be_saved_and_added(chief: Client, acme: Any) -> None:
    row = known(theirs.Customer, "cus_acme", metadata={}, stripe_data={"id": "cus_acme"})
    form = chief.get(their_page(row)).context["adminform"].form
    assert "entitlements_here" not in form.fields
    data = {name: form[name].value() or "" for name in form.fields}
    data |= {name: json.dumps(form.initial.get(name) or {}) for name in ("metadata", "stripe_data")}
    data |= {"email": "new@example.com", "livemode": "false"}
    for formset in chief.get(their_page(row)).context["inline_admin_formsets"]:
        data |= {f"{formset.formset.prefix}-{name}_FORMS": 0 for name in ("TOTAL", "INITIAL")}
    data = {name: "" if value is None else value for name, value in data.items()}
    answer = chief.post(their_page(row), data)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    row.refresh_from_db()
    assert row.email == "new@example.com"
    added = chief.get(reverse("admin:djstripe_customer_add"))
    assert "What counts here:" not in text_of(added)


def test_names_are_escaped_on_both_sides(chief: Client) -> None:
    evil = make_subscriber()
    type(evil).objects.filter(pk=evil.pk).update(**{"name" if BY_ORGANISATION else "username": EVIL})
    evil.refresh_from_db()
    FeatureFactory(lookup_key="<b>key</b>")
    held = CustomerFactory(stripe_id="cus_evil", subscriber=evil, keys=("<b>key</b>",))
    row = known(theirs.Customer, "cus_evil", subscriber=make_subscriber())
    product = make_product("prod_evil", EVIL)
    named = known(theirs.Product, "prod_evil", name=EVIL)
    for page in (our_page(held), their_page(row), our_page(product), their_page(named)):
        shown = html_of(chief.get(page))
        assert EVIL not in shown
        assert "<b>key" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html_of(chief.get(their_page(row)))


def test_it_costs_few_queries(acme: Any, two_accounts: None, chief: Client) -> None:
    """Our rows: the customer with its subscriber, what it holds, the subscriber's answer; and whose account it is."""
    row = known(
        theirs.Customer, "cus_acme", subscriber=acme, djstripe_owner_account=theirs.Account.objects.get(id="acct_ours")
    )

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert chief.get(their_page(row)).status_code == 200
        return len([each for each in queries if "entitlements_app_" in each["sql"] or '"secret" IN' in each["sql"]])

    assert cost() == 4
    for key in ("a", "b", "c"):
        CustomerFactory(stripe_id=f"cus_{key}", subscriber=acme, keys=(key, "sso"))
    assert cost() == 4


# How it gets there


def test_lists_and_other_pages_of_djstripe_are_as_they_were() -> None:
    registered = type(admin.site.get_model_admin(theirs.Customer))
    assert issubclass(registered, CustomerEntitlementsMixin)
    original = registered.__mro__[registered.__mro__.index(CustomerEntitlementsMixin) + 2]
    assert (original.__module__, original.__name__) == ("djstripe.admin.admin", "CustomerAdmin")
    assert registered.list_display == original.list_display
    assert type(admin.site.get_model_admin(theirs.Feature)).__module__ == "djstripe.admin.admin"


def test_a_class_with_fieldsets_of_its_own_gets_the_field_after_the_first(acme: Any, rf: Any) -> None:
    class OwnAdmin(CustomerEntitlementsMixin, admin.ModelAdmin):
        fieldsets = ((None, {"fields": ["email"]}), ("More", {"fields": [("id", "livemode")]}))

    row, request = known(theirs.Customer, "cus_acme"), rf.get("/")
    request.user = User.objects.create_superuser("chief")
    page = text_of(OwnAdmin(theirs.Customer, admin.site).change_view(request, str(row.pk)).render())
    assert page.index("Email:") < page.index("What counts here: 0 active entitlements") < page.index("More")
    without_ours = AdminSite("other")
    assert OwnAdmin(theirs.Customer, without_ours).get_fieldsets(request, row) == OwnAdmin.fieldsets


SITE = """
import sys, django
from django.conf import settings
BASE = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"]
settings.configure(
    INSTALLED_APPS=BASE + sys.argv[1].split(","), SECRET_KEY="x", STATIC_URL="/static/", USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    STRIPE_LIVE_MODE=False, DJSTRIPE_FOREIGN_KEY_TO_FIELD="id", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
"""

SAY = """
from django.contrib import admin
from djstripe.models import Customer, Event, Product
for model in (Customer, Event, Product):
    registered = type(admin.site.get_model_admin(model))
    print(registered.__name__, *[each.__name__ for each in registered.__mro__ if "Entitlements" in each.__name__])
"""


def in_a_site(apps: str, code: str, tmp_path: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "TEST_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-c", SITE + code, apps]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "apps", ["djstripe,entitlements_app.contrib.djstripe", "entitlements_app.contrib.djstripe,djstripe"]
)
def test_the_order_of_the_apps_does_not_matter(apps: str, tmp_path: Path) -> None:
    said = in_a_site(f"django.contrib.admin,entitlements_app,{apps}", SAY, tmp_path)
    assert said.split("\n")[:3] == [
        "CustomerAdmin CustomerEntitlementsMixin EntitlementsMixin",
        "EventAdmin EventEntitlementsMixin EntitlementsMixin",
        "ProductAdmin ProductEntitlementsMixin EntitlementsMixin",
    ]


@pytest.mark.parametrize("first", [True, False])
def test_a_site_with_an_admin_of_its_own_keeps_it(first: bool, tmp_path: Path) -> None:
    package = tmp_path / "own"
    package.mkdir()
    (package / "__init__.py").touch()
    base = "CustomerAdmin" if first else "CustomerEntitlementsMixin, CustomerAdmin"
    (package / "admin.py").write_text(
        "from django.contrib import admin\n"
        "from djstripe.admin.admin import CustomerAdmin\n"
        "from djstripe.models import Customer, Event\n"
        + ("" if first else "from entitlements_app.contrib.djstripe.admin import CustomerEntitlementsMixin\n")
        + "admin.site.unregister(Event)\n"
        "admin.site.unregister(Customer)\n"
        "@admin.register(Customer)\n"
        f"class OwnAdmin({base}):\n"
        "    pass\n"
    )
    apps = ["djstripe", "entitlements_app", "entitlements_app.contrib.djstripe"]
    apps.insert(0 if first else 3, "own")
    say = SAY.replace("Event, Product)", "Product)") + "print(admin.site.is_registered(Event))"
    said = in_a_site("django.contrib.admin," + ",".join(apps), say, tmp_path)
    assert said.split("\n")[0] == "OwnAdmin CustomerEntitlementsMixin EntitlementsMixin"
    assert said.split("\n")[2] == "False"


def test_a_site_without_the_admin_starts(tmp_path: Path) -> None:
    code = (
        "from django.core.management import call_command\n"
        "call_command('check')\n"
        "print([name for name in sys.modules if name.startswith('entitlements_app.') and '.admin' in name])"
    )
    assert in_a_site("djstripe,entitlements_app,entitlements_app.contrib.djstripe", code, tmp_path).strip() == "[]"
