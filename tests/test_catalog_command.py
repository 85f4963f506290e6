"""entitlements_catalog plan, apply and export, as someone at a terminal or in CI sees them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from entitlements_app import budget, catalog, catalog_sync
from entitlements_app.linking import link
from entitlements_app.management.catalogue import terminal
from entitlements_app.models import ActiveEntitlement, Customer, Feature, Product, ProductFeature
from entitlements_app.sync import sync_catalog, sync_customer
from entitlements_app.testing import StripeSimulator
from tests.rows import customer, make_subscriber
from tests.server import ROOT, environment
from tests.shop import Shop
from tests.threads import Crowd

pytestmark = pytest.mark.django_db(transaction=True)

FEATURES = "/v1/entitlements/features"
SAME, ERROR, DIFFERS = 0, 1, 2


class Terminal(io.TextIOWrapper):
    """Standard input of someone who types these lines; before each, something may happen."""

    def __init__(self, *lines: str, meanwhile: Callable[[], object] | None = None) -> None:
        super().__init__(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
        self._meanwhile = meanwhile

    def isatty(self) -> bool:
        return True

    def readline(self, *args: Any) -> str:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()
        return super().readline(*args)


def run(*args: str, **options: Any) -> tuple[int, str]:
    """The exit code, and all that was said."""
    out = io.StringIO()
    try:
        call_command("entitlements_catalog", *args, stdout=out, stderr=out, no_color=True, **options)
    except SystemExit as stop:
        return int(str(stop.code)), out.getvalue()
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return SAME, out.getvalue()


def piped(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def marked(said: str) -> list[str]:
    """The lines that have a sign."""
    return [line for line in said.splitlines() if line[:2] in ("+ ", "~ ", "- ", "! ")]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe is left alone for some seconds after a call that it did not answer."""
    monkeypatch.setattr(budget, "FIRST_PAUSE", timedelta(seconds=0.05))


@pytest.fixture
def seller(stripe: StripeSimulator) -> StripeSimulator:
    """A shop that sells `sso` with Pro; `export` is a feature, too."""
    sso, _ = (stripe.create_feature(key, name=name) for key, name in (("sso", "SSO"), ("export", "Export")))
    stripe.create_product("Pro", features=[sso])
    return stripe


SHOP = """\
[features.sso]
name = "SSO"

[features.export]
name = "Export"

[products.Pro]
features = ["sso"]
"""

NEWS = """\
[features.sso]
name = "Single sign-on"
metadata = { "a.b" = "x" }

[features.audit]
name = "Audit log"

[products.Pro]
features = ["audit"]
"""


@pytest.fixture
def shop_file(tmp_path: Path) -> Path:
    """What the shop has."""
    path = tmp_path / "shop.toml"
    path.write_text(SHOP)
    return path


@pytest.fixture
def news(tmp_path: Path) -> str:
    """What it is to have: there is a step of each kind on the way."""
    path = tmp_path / "news.toml"
    path.write_text(NEWS)
    return str(path)


def product_id(seller: StripeSimulator, name: str = "Pro") -> str:
    products = seller.call("GET", "/v1/products", {"limit": 100})["data"]
    return next(row["id"] for row in products if row["name"] == name)


def features_of(seller: StripeSimulator, name: str = "Pro") -> list[str]:
    rows = seller.call("GET", f"/v1/products/{product_id(seller, name)}/features")["data"]
    return sorted(row["entitlement_feature"]["lookup_key"] for row in rows)


def feature(seller: StripeSimulator, lookup_key: str, *, archived: bool = False) -> dict[str, Any]:
    params = {"lookup_key": lookup_key, "archived": archived}
    return dict(seller.call("GET", FEATURES, params)["data"][0])


def writes(seller: StripeSimulator) -> list[str]:
    """What was changed over HTTP since the last time."""
    made = [f"{request.method} {request.path}" for request in seller.requests if request.method != "GET"]
    seller.clear_requests()
    return made


def test_what_is_the_same_is_told_in_a_line(seller: StripeSimulator, shop_file: Path) -> None:
    code, said = run("plan", str(shop_file))
    assert (code, said) == (
        SAME,
        f"Stripe's catalogue in test mode, at {seller.url}, against {shop_file}\nNothing differs.\n",
    )
    assert run("apply", str(shop_file)) == (code, said)
    assert writes(seller) == []


def test_a_plan_reads_like_a_diff(seller: StripeSimulator, news: str) -> None:
    pro = product_id(seller)
    code, said = run("plan", news, "--archive")
    assert code == DIFFERS
    assert said.splitlines()[1:] == [
        '+ feature audit "Audit log"  (no customer holds it)',
        '~ feature sso name: "SSO" → "Single sign-on"  (no customer holds it)',
        '~ feature sso metadata."a.b": nothing → "x"  (no customer holds it)',
        f"+ product Pro ({pro}): audit  (no customer holds it)",
        f"- product Pro ({pro}): sso  (no customer holds it)",
        '- feature export "Export": archive  (no customer holds it)',
        "",
        "To do: create 1, change 1, attach 1, detach 1, archive 1.",
        "Nobody gains or loses access at once: a new subscription grants what its product then has; existing ones "
        "follow at their next billing period, or later.",
        "An archived feature keeps granting where it is attached, and cannot be unarchived.",
    ]
    assert writes(seller) == []


def test_a_plan_is_applied_and_then_there_is_nothing_to_do(seller: StripeSimulator, news: str) -> None:
    code, said = run("apply", news, "--archive", stdin=Terminal("y"))
    assert code == SAME
    assert "\nMake these 5 changes in test mode? [y/N] \n" in said
    assert said.splitlines()[-7:] == [f"{line.split('  (')[0]}: done" for line in marked(said)[:6]] + ["Done: 5 of 5."]
    assert [line.split("/")[1:3] for line in writes(seller)] == [
        ["v1", "entitlements"],
        ["v1", "entitlements"],
        ["v1", "products"],
        ["v1", "products"],
        ["v1", "entitlements"],
    ]
    assert (feature(seller, "sso")["name"], feature(seller, "sso")["metadata"]) == ("Single sign-on", {"a.b": "x"})
    assert features_of(seller) == ["audit"]
    assert not feature(seller, "export", archived=True)["active"]
    for command in ("plan", "apply"):
        code, said = run(command, news, "--archive")
        assert (code, said.splitlines()[1:]) == (SAME, ["Nothing differs."])
    assert writes(seller) == []


def test_our_copy_follows(seller: StripeSimulator, news: str) -> None:
    run("apply", news, "--archive", "--yes")
    rows = {row.lookup_key: (row.name, row.active, row.metadata) for row in Feature.objects.all()}
    assert rows["audit"] == ("Audit log", True, {})
    assert rows["sso"] == ("Single sign-on", True, {"a.b": "x"})
    assert not rows["export"][1]
    assert ProductFeature.objects.get().feature.lookup_key == "audit"
    assert catalog_sync.run_now().changes == ()


def test_metadata_is_whole(seller: StripeSimulator, tmp_path: Path) -> None:
    seller.call("POST", f"{FEATURES}/{feature(seller, 'sso')['id']}", {"metadata": {"kept": "1", "old": "2", "x": "3"}})
    path = tmp_path / "f.toml"
    path.write_text(SHOP.replace('"SSO"', '"SSO"\nmetadata = { kept = "1", x = "4", new = "5" }'))
    assert marked(run("apply", str(path), "--yes")[1])[:3] == [
        '~ feature sso metadata.new: nothing → "5"  (no customer holds it)',
        '~ feature sso metadata.old: "2" → nothing  (no customer holds it)',
        '~ feature sso metadata.x: "3" → "4"  (no customer holds it)',
    ]
    assert feature(seller, "sso")["metadata"] == {"kept": "1", "x": "4", "new": "5"}
    assert run("plan", str(path))[0] == SAME


def test_nothing_is_done_without_a_yes(seller: StripeSimulator, news: str) -> None:
    for answer in ("", "n", "yess"):
        code, said = run("apply", news, stdin=Terminal(answer))
        assert code == DIFFERS
        assert said.endswith("[y/N] Nothing was changed.\n")
    code, said = run("apply", news, stdin=Terminal())
    assert code == DIFFERS, "the end of the input is a no"
    assert said.endswith("[y/N] \nNothing was changed.\n")
    assert writes(seller) == []


def test_without_a_terminal_it_takes_a_yes_as_an_option(seller: StripeSimulator, news: str) -> None:
    for path, stdin in ((news, piped("y\n")), ("-", piped(NEWS))):
        code, said = run("apply", path, stdin=stdin)
        assert code == ERROR
        assert said.endswith(
            "There is no terminal to ask at, so nothing was changed. With --yes it is done without asking."
        )
    assert writes(seller) == []
    assert run("apply", "-", "--yes", "--archive", stdin=piped(NEWS))[0] == SAME


def test_what_changes_while_it_asks_is_shown_and_asked_again(seller: StripeSimulator, news: str) -> None:
    def meanwhile() -> None:
        seller.create_feature("audit", name="Audit")

    code, said = run("apply", news, "--archive", stdin=Terminal("y", "y", meanwhile=meanwhile))
    assert code == SAME
    assert "Stripe's catalogue has changed meanwhile. Now it is:" in said
    assert said.count("[y/N]") == 2
    assert '~ feature audit name: "Audit" → "Audit log"  (no customer holds it)' in said
    assert feature(seller, "audit")["name"] == "Audit log"


def test_what_somebody_else_does_while_it_asks_is_not_done_again(seller: StripeSimulator, news: str) -> None:
    code, said = run(
        "apply", news, "--archive", stdin=Terminal("y", meanwhile=lambda: run("apply", news, "--archive", "--yes"))
    )
    assert (code, said.splitlines()[-1]) == (SAME, "Nothing differs.")
    assert len(writes(seller)) == 5


def test_a_feature_that_the_file_lacks_is_archived_only_if_asked(seller: StripeSimulator, shop_file: Path) -> None:
    seller.create_feature("old", name="Old\tone")
    code, said = run("apply", str(shop_file), "--yes")
    assert code == DIFFERS
    old = feature(seller, "old")["id"]
    assert said.splitlines()[1:] == [
        f'! feature old "Old\\tone" is in Stripe ({old}) and not in the file  (no customer holds it)',
        "    Write such features into the file, or archive them, which is final, with --archive. With complete = false "
        "in its first line the file leaves them alone.",
        "",
        "There is nothing to do. Remains different, marked with !: 1.",
    ]
    shop_file.write_text(f"complete = false\n{SHOP}")
    assert run("plan", str(shop_file))[0] == SAME
    shop_file.write_text(SHOP)
    assert run("apply", str(shop_file), "--archive", "--yes")[0] == SAME
    assert not feature(seller, "old", archived=True)["active"]


def test_a_key_that_is_the_id_of_another_feature_does_not_stand_for_it(
    seller: StripeSimulator, shop_file: Path
) -> None:
    old = seller.create_feature("old")["id"]
    seller.create_feature(old, name="Decoy")
    shop_file.write_text(f'{SHOP}\n[features.{old}]\nname = "Decoy"\n')
    assert run("apply", str(shop_file), "--archive", "--yes")[0] == SAME
    assert not feature(seller, "old", archived=True)["active"]
    assert feature(seller, old)["active"]


def test_a_key_of_an_archived_feature_only_is_explained_and_can_be_made_anew(
    seller: StripeSimulator, shop_file: Path
) -> None:
    old = feature(seller, "sso")
    seller.archive_feature(old)
    code, said = run("apply", str(shop_file), "--yes")
    assert code == DIFFERS
    assert marked(said) == [
        f"! feature sso: only an archived feature has this key ({old['id']}); it can be neither edited nor attached  "
        "(no customer holds it)"
    ]
    assert "Archiving is final. --recreate makes a new feature" in said
    assert writes(seller) == []
    code, said = run("apply", str(shop_file), "--recreate", "--yes")
    assert (code, said.splitlines()[-1]) == (SAME, "Done: 2 of 2.")
    assert features_of(seller) == ["sso", "sso"], "the archived one is still attached"
    code, said = run("plan", str(shop_file), "--recreate")
    assert code == SAME
    assert f"the archived feature sso ({old['id']}) is still attached" in said


def test_products_that_are_not_found_are_explained(seller: StripeSimulator, shop_file: Path) -> None:
    pro = product_id(seller)
    twins = sorted(seller.create_product("Twin")["id"] for _ in range(2))
    retired = seller.create_product("Retired")["id"]
    seller.call("POST", f"/v1/products/{retired}", {"active": False})
    tables = ("Twin", retired, "Nobody's", pro, "..", "a/../b", "pro")
    shop_file.write_text(SHOP + "".join(f'[products."{table}"]\nfeatures = []\n' for table in tables))
    code, said = run("apply", str(shop_file), "--yes")
    assert code == DIFFERS
    assert marked(said) == [
        "! product ..: no product has this ID in test mode, and no active one this name",
        "! product Nobody's: no product has this ID in test mode, and no active one this name",
        "! product a/../b: no product has this ID in test mode, and no active one this name",
        "! product pro: no product has this ID in test mode, and no active one this name: did you mean Pro?",
        f"! product Twin: 2 active products have this name: {twins[0]}, {twins[1]}",
        f"! product {retired} is archived, so that nobody can subscribe to it",
        f"! product Pro: the file names it twice, by this name and by its ID {pro}",
    ]
    assert writes(seller) == []


def test_conflicts_stop_nothing_else(seller: StripeSimulator, news: str) -> None:
    Path(news).write_text(f"{NEWS}[products.Max]\nfeatures = []\n")
    code, said = run("apply", news, "--archive", "--yes")
    assert code == DIFFERS
    assert said.splitlines()[-2:] == ["Done: 5 of 5.", "Remains different, marked with !: 1."]


def test_products_that_the_file_lacks_are_left_alone(seller: StripeSimulator, news: str) -> None:
    seller.create_product("Max", features=[feature(seller, "sso")])
    assert run("apply", news, "--archive", "--yes")[0] == SAME
    assert features_of(seller, "Max") == ["sso"]


def test_a_file_that_is_not_complete_tells_what_it_leaves_alone(seller: StripeSimulator) -> None:
    text = "complete = false\n[products.Pro]\nfeatures = []\n"
    code, said = run("plan", "-", stdin=piped(text))
    assert code == SAME
    assert "1 further attached feature(s) left alone" in said
    code, said = run("plan", "-", stdin=piped(text.replace("[]", '["nobody"]')))
    assert code == DIFFERS
    assert "! product Pro: no feature has the key nobody, neither in the file nor in Stripe" in said


def test_the_numbers_of_customers_are_exact(shop: Shop) -> None:
    pro, reports = (link_and_fetch(shop, plan) for plan in ("pro", "reports"))
    link_and_fetch(shop, "pro")
    gone = link_and_fetch(shop, "pro")
    Customer.objects.filter(stripe_id=gone).update(deleted_at=customer(pro).fetched_at)
    # One holds an archived feature of the same key as well, and is one customer.
    old = Feature.objects.create(stripe_id="feat_old", lookup_key="sso", livemode=False, active=False)
    for stripe_id in (pro, reports):
        ActiveEntitlement.objects.create(
            customer=customer(stripe_id), feature=old, lookup_key="sso", stripe_id="ent_old"
        )
    sso = Feature.objects.get(lookup_key="sso", active=True)
    for other in ({"livemode": True}, {"livemode": False, "account": "acct_other"}):
        foreign = Customer.objects.create(stripe_id=pro, **other)
        row = Feature.objects.create(stripe_id=sso.stripe_id, lookup_key="sso", **other)
        ActiveEntitlement.objects.create(customer=foreign, feature=row, lookup_key="sso", stripe_id="ent_other")
    text = '[features.sso]\nname = "SSO"\n[products.pro]\nfeatures = ["sso"]\n'
    with CaptureQueriesContext(connection) as queries:
        code, said = run("plan", "-", stdin=piped(text))
    assert code == DIFFERS
    lines = marked(said)
    assert lines[0] == '~ feature sso name: "sso" → "SSO"  (3 customers hold it)'
    assert lines[1].endswith("): export  (2 customers hold it)")
    assert lines[2].startswith("! feature audit ")
    assert lines[2].endswith("  (no customer holds it)")
    assert lines[4].startswith("! feature reports ")
    assert lines[4].endswith("  (1 customer holds it)")
    assert sum("activeentitlement" in query["sql"] for query in queries) == 1


def link_and_fetch(shop: Shop, plan: str) -> str:
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, plan)
    sync_customer(customer(stripe_id))
    return stripe_id


def test_a_plan_as_data(seller: StripeSimulator, news: str) -> None:
    pro, sso, export = product_id(seller), feature(seller, "sso")["id"], feature(seller, "export")["id"]
    code, said = run("plan", news, "--json")
    assert code == DIFFERS
    product = {"product": pro, "product_name": "Pro", "customers": 0}
    data = json.loads(said)
    conflict = data["conflicts"].pop()
    assert data == {
        "mode": "test",
        "api_base": seller.url,
        "same": False,
        "steps": [
            {
                "step": "create",
                "lookup_key": "audit",
                "feature": None,
                "new": {"name": "Audit log", "metadata": {}},
                "customers": 0,
            },
            {
                "step": "change",
                "lookup_key": "sso",
                "feature": sso,
                "old": {"name": "SSO", "metadata": {}},
                "new": {"name": "Single sign-on", "metadata": {"a.b": "x"}},
                "customers": 0,
            },
            {"step": "attach", "lookup_key": "audit", "feature": None, **product},
            {"step": "detach", "lookup_key": "sso", "feature": sso, **product},
        ],
        "conflicts": [],
        "archived_and_attached": [],
        "left_alone": 0,
    }
    assert {name: conflict[name] for name in ("conflict", "lookup_key", "product", "ids", "customers")} == {
        "conflict": "feature_not_in_file",
        "lookup_key": "export",
        "product": None,
        "ids": [export],
        "customers": 0,
    }


def test_a_plan_of_archiving_as_data(seller: StripeSimulator, shop_file: Path) -> None:
    seller.create_feature("old")
    _, said = run("plan", str(shop_file), "--json", "--archive")
    assert [step["step"] for step in json.loads(said)["steps"]] == ["archive"]
    assert run("plan", str(shop_file), "--json", "--archive", "--verbosity", "0")[1] == said


def test_a_failure_in_the_middle_tells_what_was_done_and_the_next_run_does_the_rest(
    seller: StripeSimulator, news: str
) -> None:
    pro = product_id(seller)

    def unplug() -> None:
        seller.fail_requests(400, path=FEATURES + "/*")

    code, said = run("apply", news, "--archive", stdin=Terminal("y", meanwhile=unplug))
    assert code == ERROR
    assert "1 of 5 changes were made. Left to do:\n" in said
    assert said.splitlines()[-6:] == [
        '  ~ feature sso name: "SSO" → "Single sign-on"',
        '  ~ feature sso metadata."a.b": nothing → "x"',
        f"  + product Pro ({pro}): audit",
        f"  - product Pro ({pro}): sso",
        '  - feature export "Export": archive',
        "Run it again: it compares anew, and does what is left.",
    ]
    assert feature(seller, "audit")["name"] == "Audit log"
    code, said = run("apply", news, "--archive", "--yes")
    assert (code, said.splitlines()[-1]) == (SAME, "Done: 4 of 4.")


def test_a_lost_answer_is_asked_for_again_and_nothing_is_made_twice(seller: StripeSimulator, news: str) -> None:
    seller.lose_answers(2)
    code, said = run("apply", news, "--archive", "--yes")
    assert (code, said.splitlines()[-1]) == (SAME, "Done: 5 of 5.")
    assert [row["lookup_key"] for row in seller.call("GET", FEATURES, {"archived": False})["data"]].count("audit") == 1


def test_while_stripe_is_down_nothing_is_said_to_differ(seller: StripeSimulator, news: str) -> None:
    for command in ("plan", "apply", "export"):
        seller.fail_requests(503)
        code, said = run(command, f"{news}.new" if command == "export" else news)
        assert (code, said.partition(" (")[0]) == (ERROR, "Stripe has trouble")
    assert not Path(f"{news}.new").exists()


def test_waiting_for_stripe_is_told(seller: StripeSimulator, news: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "SILENT", 0.2)
    for method, args in (("GET", ("plan", news)), ("POST", ("apply", news, "--yes"))):
        with seller.hold(method, FEATURES) as hold:
            threading.Timer(0.6, hold.release).start()
            said = run(*args)[1]
        assert "Waiting for Stripe…\n" in said
    monkeypatch.setattr(terminal, "SILENT", 60)
    assert "Waiting" not in run("plan", news)[1]


def test_an_interrupt_ends_between_two_steps(seller: StripeSimulator, news: str) -> None:
    def press() -> None:
        hold.wait_for_request()
        os.kill(os.getpid(), signal.SIGINT)
        hold.release()

    with seller.hold("POST", FEATURES) as hold:
        thread = threading.Thread(target=press)
        thread.start()
        code, said = run("apply", news, "--archive", "--yes")
        thread.join()
    assert code == 130
    assert "Interrupted.\n1 of 5 changes were made. Left to do:\n" in said
    assert Feature.objects.get(lookup_key="audit").name == "Audit log", "what Stripe did is written"
    assert run("apply", news, "--archive", "--yes")[0] == SAME


def test_an_interrupt_at_the_question_changes_nothing(seller: StripeSimulator, news: str) -> None:
    def press() -> None:
        raise KeyboardInterrupt

    code, said = run("apply", news, stdin=Terminal("y", meanwhile=press))
    assert code == 130
    assert said.endswith("[y/N] \nInterrupted. Nothing was changed.")
    assert writes(seller) == []


def test_a_restricted_key_may_read_and_not_write(seller: StripeSimulator, news: str, settings: Any) -> None:
    readers = ("entitlement_read", "product_read")
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_reader"
    seller.add_restricted_key("rk_test_reader", *readers)
    assert run("plan", news)[0] == DIFFERS
    code, said = run("apply", news, "--yes")
    assert code == ERROR
    assert "Stripe does not let this API key change the catalogue (HTTP 403)." in said
    assert "0 of 4 changes were made." in said
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_nobody"
    seller.add_restricted_key("rk_test_nobody", "customer_read")
    code, said = run("plan", news)
    assert (code, said) == (ERROR, catalog_sync.FORBIDDEN)


def test_many_products_cost_a_call_each_and_no_query_more(seller: StripeSimulator) -> None:
    sso, export = feature(seller, "sso"), feature(seller, "export")
    for number in range(200):
        seller.create_product(f"Plan {number}", features=[sso])
    tables = "".join(f'[products."Plan {number}"]\nfeatures = ["export"]\n' for number in range(200))
    text = f'[features.sso]\nname = "SSO"\n[features.export]\nname = "Export"\n{tables}'
    seller.clear_requests()
    with CaptureQueriesContext(connection) as queries:
        code, said = run("plan", "-", stdin=piped(text))
    assert code == DIFFERS
    assert len(marked(said)) == 400
    assert "To do: attach 200, detach 200." in said
    assert len(seller.requests) == 2 + 3 + 200, "features by two passes, products by pages, attachments"
    assert len([query for query in queries if "accountstate" not in query["sql"]]) == 1
    assert export["active"]


def test_what_is_exported_does_not_differ(seller: StripeSimulator, tmp_path: Path) -> None:
    odd = ['say "hi"', "emoji 💎", "a.b c", "back\\slash", "#hash", "new\nline", "it's", "[x]", "DEL\x7f", "‮right"]
    made = [seller.create_feature(f"{text}!", name=text, metadata={"a.b c": text}) for text in odd]
    for text in odd:
        seller.create_product(text, features=made)
    seller.create_product("Twin", features=made[:1])
    seller.create_product("Twin", features=made[1:2])
    seller.create_product(product_id(seller), features=made[:1])
    seller.create_product("Empty")
    seller.archive_feature(made[0])
    for options in ((), ("--names",)):
        path = tmp_path / f"catalogue{len(options)}.toml"
        code, said = run("export", str(path), *options)
        assert (code, said) == (
            SAME,
            f"11 features and 14 products with features: written to {path}.\n",
        )
        assert run("plan", str(path))[0] == SAME
        text = path.read_text()
        assert text.count("# An archived feature is still attached:") == 12
        assert run("export", str(path), *options, "--force")[0] == SAME
        assert path.read_text() == text, "it is stable"
    assert '[products."say \\"hi\\""]' in text
    assert "[products.Twin]" not in text
    assert "[products.Pro]" in text


def test_an_export_reads_well(seller: StripeSimulator) -> None:
    code, said = run("export", "-")
    assert code == SAME
    assert said == (
        "# Features, and the products that have them: for manage.py entitlements_catalog plan and apply.\n"
        "# The IDs of products are those of test mode.\n"
        '\n[features.export]\nname = "Export"\n'
        '\n[features.sso]\nname = "SSO"\n'
        f'\n[products.{product_id(seller)}]\nname = "Pro"\nfeatures = ["sso"]\n'
    )
    assert run("export", "-", "--names")[1].endswith('\n[products.Pro]\nfeatures = ["sso"]\n')


def test_an_empty_catalogue_is_exported_and_does_not_differ(settings: Any, tmp_path: Path) -> None:
    with StripeSimulator() as simulator:
        settings.ENTITLEMENTS_STRIPE_API_KEY = simulator.api_key
        settings.ENTITLEMENTS_STRIPE_API_BASE = simulator.url
        assert run("export", str(tmp_path / "empty.toml"))[0] == SAME
        assert run("plan", str(tmp_path / "empty.toml"))[0] == SAME


def test_a_file_is_not_overwritten_unless_asked(seller: StripeSimulator, shop_file: Path) -> None:
    before = shop_file.read_text()
    shop_file.chmod(0o640)
    code, said = run("export", str(shop_file))
    assert (code, said) == (ERROR, f"{shop_file} exists. --force overwrites it.")
    assert not seller.requests
    assert shop_file.read_text() == before
    assert run("export", str(shop_file), "--force")[0] == SAME
    assert shop_file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in shop_file.parent.iterdir()] == [shop_file.name]
    assert run("export", str(shop_file.parent))[0] == ERROR
    assert run("export", str(shop_file.parent / "no" / "folder.toml"))[0] == ERROR


def test_what_stripe_holds_and_no_file_may_say_is_told_by_the_export(seller: StripeSimulator) -> None:
    seller.call("POST", f"{FEATURES}/{feature(seller, 'sso')['id']}", {"metadata": {"a": " "}})
    code, said = run("export", "-")
    assert code == SAME
    assert said.startswith("Before this file is used, it needs to be corrected:\n  [features.sso] metadata:")


def test_the_mistakes_of_a_file_are_told_before_any_call(seller: StripeSimulator, tmp_path: Path) -> None:
    seller.clear_requests()
    path = tmp_path / "bad.toml"
    path.write_text('[features.sso]\nnames = "SSO"\n')
    for command in ("plan", "apply"):
        code, said = run(command, str(path))
        assert (code, said) == (
            ERROR,
            f"{path} cannot be used, and Stripe was not asked:\n"
            '  [features.sso] names is not known here. Did you mean "name"?\n'
            '  [features.sso] name is missing. Write name = "…".',
        )
    assert run("plan", "-", stdin=piped("x")) == (
        ERROR,
        "Standard input cannot be used, and Stripe was not asked:\n"
        "  this is no TOML: Expected '=' after a key in a key/value pair (at line 1, column 2)",
    )
    assert run("plan", str(tmp_path / "none.toml")) == (ERROR, f"{tmp_path}/none.toml: No such file or directory.")
    assert run("plan", str(tmp_path)) == (ERROR, f"{tmp_path}: Is a directory.")
    assert run("plan", "\0")[0] == ERROR
    assert not seller.requests


def test_what_is_the_id_of_one_product_and_the_name_of_another_is_left_alone(seller: StripeSimulator) -> None:
    pro = product_id(seller)
    other = seller.create_product(pro)["id"]
    text = SHOP.replace("products.Pro", f"products.{pro}").replace('["sso"]', "[]")
    code, said = run("apply", "-", "--yes", stdin=piped(text))
    assert code == DIFFERS
    assert marked(said)[0].startswith(f'! product {pro}: this is the ID of the product "Pro", and the name of {other}')
    assert 'write its name into the table as well: name = "…". Or give them different names in Stripe.' in said
    assert features_of(seller) == ["sso"]
    assert run("apply", "-", "--yes", stdin=piped(f'{text}name = "Pro"\n'))[0] == SAME
    assert features_of(seller) == []


def test_a_file_for_the_other_mode_is_refused_before_any_call(seller: StripeSimulator) -> None:
    seller.clear_requests()
    for command in ("plan", "apply"):
        code, said = run(command, "-", stdin=piped(f'mode = "live"\n{SHOP}'))
        assert (code, said) == (
            ERROR,
            "Standard input cannot be used, and Stripe was not asked:\n"
            "  mode: this file is for live mode, and the configured API key is of test mode.",
        )
    assert not seller.requests
    assert run("plan", "-", stdin=piped(f'mode = "test"\n{SHOP}'))[0] == SAME


@pytest.fixture
def cut_file(seller: StripeSimulator, tmp_path: Path) -> str:
    """A file that was cut off behind its first table, and would archive four features of five."""
    for key in ("a", "b", "c"):
        seller.create_feature(key)
    path = tmp_path / "cut.toml"
    path.write_text(SHOP[: SHOP.index("[features.export]")])
    return str(path)


def test_a_file_that_was_cut_off_does_not_archive_most_features(seller: StripeSimulator, cut_file: str) -> None:
    seller.clear_requests()
    code, said = run("apply", cut_file, "--archive", "--yes")
    assert code == ERROR
    assert said.endswith(
        "4 of Stripe's 5 features would be archived for good. Nothing was changed. If the file is whole and says what "
        "is meant, run it with --archive-most as well, or without --yes."
    )
    assert writes(seller) == []
    seller.create_feature("a further one")
    seller.archive_feature(feature(seller, "a")["id"])
    assert run("apply", cut_file, "--archive", "--yes")[0] == ERROR, "what is archived already does not count"
    assert run("apply", cut_file, "--archive", "--yes", "--archive-most")[0] == SAME
    assert run("plan", cut_file)[0] == SAME


def test_few_features_or_less_than_most_are_archived_without_further_ado(
    seller: StripeSimulator, cut_file: str
) -> None:
    seller.archive_feature(feature(seller, "a")["id"])
    assert run("apply", cut_file, "--archive", "--yes")[0] == SAME, "three of four"
    many = [f"k{number}" for number in range(8)]
    for key in many:
        seller.create_feature(key)
    text = "".join(f'[features.{key}]\nname = "{key}"\n' for key in many[4:])
    code, _ = run("apply", "-", "--archive", "--yes", stdin=piped(text))
    assert code == ERROR, "five of nine"
    text += '[features.sso]\nname = "SSO"\n'
    assert run("apply", "-", "--archive", "--yes", stdin=piped(text))[0] == SAME, "four of nine"


def test_the_question_says_how_many_are_archived_for_good(seller: StripeSimulator, cut_file: str) -> None:
    code, said = run("apply", cut_file, "--archive", stdin=Terminal("y"))
    assert code == SAME
    assert "\n4 of Stripe's 5 features would be archived for good.\nMake these 4 changes in test mode? [y/N] \n" in said


def test_archive_most_alone_is_a_mistake(seller: StripeSimulator, cut_file: str) -> None:
    for options in (("--archive-most",), ("--archive-most", "--yes"), ("--archive-most", "--archive")):
        assert run("apply", cut_file, *options) == (ERROR, "--archive-most goes with --archive and --yes.")


def test_live_mode_has_rows_of_its_own(settings: Any, shop_file: Path) -> None:
    Feature.objects.create(stripe_id="feat_1", lookup_key="sso", name="SSO", livemode=False)
    Product.objects.create(stripe_id="prod_1", name="Pro", livemode=False)
    with StripeSimulator(livemode=True) as simulator:
        settings.ENTITLEMENTS_STRIPE_API_KEY = simulator.api_key
        settings.ENTITLEMENTS_STRIPE_API_BASE = simulator.url
        simulator.create_product("Pro")
        code, said = run("apply", str(shop_file), stdin=Terminal("y"))
        assert code == SAME
        assert said.startswith("Stripe's catalogue in live mode, at ")
        assert "Make these 3 changes in live mode? [y/N] " in said
    assert Feature.objects.filter(livemode=True).count() == 2
    assert Feature.objects.filter(livemode=False).count() == 1


KILLED_AT = {
    "create": ("POST", FEATURES),
    "change": ("POST", f"{FEATURES}/{{sso}}"),
    "attach": ("POST", "/v1/products/{pro}/features"),
    "detach": ("DELETE", "/v1/products/{pro}/features/{attachment}"),
    "archive": ("POST", f"{FEATURES}/{{export}}"),
}


@pytest.mark.parametrize("step", KILLED_AT)
def test_killed_after_any_change_and_run_again_all_is_done_and_nothing_twice(
    seller: StripeSimulator, news: str, step: str
) -> None:
    pro = product_id(seller)
    sync_catalog()
    [attachment] = seller.call("GET", f"/v1/products/{pro}/features")["data"]
    sso, export = (feature(seller, key)["id"] for key in ("sso", "export"))
    seller.clear_requests()
    method, path = KILLED_AT[step]
    with seller.hold(method, path.format(pro=pro, sso=sso, export=export, attachment=attachment["id"])) as held:
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "entitlements_catalog", "apply", news, "--archive", "--yes"],
            env=environment(TEST_SERVER_API_KEY=seller.api_key, TEST_SERVER_API_BASE=seller.url),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        held.wait_for_request(60)
        process.kill()
        process.wait()
    assert len(writes(seller)) == 1 + list(KILLED_AT).index(step)
    code, _ = run("apply", news, "--archive", "--yes")
    assert code == SAME
    assert len(writes(seller)) == len(KILLED_AT) - 1 - list(KILLED_AT).index(step), "what was done is seen to be done"
    assert features_of(seller) == ["audit"]
    assert [row["lookup_key"] for row in seller.call("GET", FEATURES)["data"]] == ["audit", "sso"]
    assert not feature(seller, "export", archived=True)["active"]
    assert sync_catalog().changes == (), "our copy is Stripe's"


def test_what_was_edited_while_it_read_stays_in_our_copy(seller: StripeSimulator, shop_file: Path) -> None:
    sync_catalog()
    with seller.hold("GET", FEATURES) as asked:
        crowd = Crowd().start(lambda: run("apply", str(shop_file), "--yes"))
        asked.wait_for_request(60)
        catalog.update_feature("export", name="Exports")  # attached to nothing, so that it is read this once
    crowd.join()
    assert Feature.objects.get(lookup_key="export").name == feature(seller, "export")["name"] == "Exports"


def test_exit_codes_of_a_process(seller: StripeSimulator, shop_file: Path, news: str) -> None:
    of_stripe = {"TEST_SERVER_API_KEY": seller.api_key, "TEST_SERVER_API_BASE": seller.url, "PYTHONIOENCODING": "ascii"}

    def process(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "django", "entitlements_catalog", *args]
        return subprocess.run(
            command, env=environment(**of_stripe), cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    assert process("plan", str(shop_file), "--settings", "tests.settings", "--no-color").returncode == SAME
    done = process("plan", news)
    assert done.returncode == DIFFERS
    assert r'name: "SSO" \u2192 "Single sign-on"' in done.stdout
    done = process("plan", news, "--jsn")
    assert done.returncode == ERROR, "a mistyped option is no difference"
    assert "unrecognized arguments: --jsn" in done.stderr
