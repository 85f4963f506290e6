"""Users' tests say what a subscriber is entitled to: `override_entitlements`, its marker and its fixture."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import unittest
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.template import engines
from django.test import Client, RequestFactory, SimpleTestCase, TestCase
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from entitlements_app import forced_answers
from entitlements_app.access import (
    ahas_entitlement,
    get_entitlements,
    has_entitlement,
    prefetch_entitlements,
    subscribers_with,
    wait_for_entitlement,
)
from entitlements_app.decorators import entitlement_required
from entitlements_app.exceptions import UnknownFeature
from entitlements_app.explain import explain
from entitlements_app.models import Feature
from entitlements_app.request_entitlements import get_request_entitlements
from entitlements_app.testing import override_entitlements
from tests.rows import BY_ORGANISATION, make_subscriber, visitor_of
from tests.testapp import gates
from tests.testapp.gates import GUARDING, KEY, PERMISSIONS, SAYING
from tests.testapp.models import Organisation
from tests.visitors import (
    Who,
    anonymous,
    deactivated,
    entitled,
    over_both,
    passed,
    said,
    stranger,
    subscriber_with,
    superuser,
    unlinked,
)

db = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_stays(request: Any) -> Any:
    before = forced_answers.current()
    assert len(before) == (1 if request.node.get_closest_marker("entitlements") else 0)
    yield
    assert forced_answers.current() == before


def unsaved() -> Any:
    return Organisation(name="acme") if BY_ORGANISATION else User(username="ada")


def holds(subscriber: Any, *keys: str) -> bool:
    return set(get_entitlements(subscriber)) == set(keys)


# --- every gate

CASES: list[tuple[tuple[str, ...], Who, str]] = [
    ((KEY,), unlinked, "open"),
    ((KEY,), deactivated, "login"),
    ((KEY,), anonymous, "login"),
    ((), entitled, "denied"),
    (("sso",), entitled, "denied"),
]
if BY_ORGANISATION:
    CASES.append(((KEY,), stranger, "denied"))  # of no organisation
every_case = pytest.mark.parametrize(
    ("keys", "who", "outcome"), CASES, ids=[f"{'-'.join(keys) or 'nothing'}-{who.__name__}" for keys, who, _ in CASES]
)


@db
@over_both
@every_case
def test_a_gate_before_a_view(served_by: Any, keys: tuple[str, ...], who: Who, outcome: str) -> None:
    visitor = who()
    with override_entitlements(*keys):
        statuses = {gate: served_by.get(gate, visitor).status_code for gate in GUARDING}
    assert statuses == dict.fromkeys(GUARDING, {"open": 200, "denied": 403, "login": 302}[outcome])


@db
@over_both
@every_case
def test_a_page_that_asks(served_by: Any, keys: tuple[str, ...], who: Who, outcome: str) -> None:
    visitor = who()
    with override_entitlements(*keys):
        says = {gate: served_by.get(gate, visitor).content.decode() for gate in SAYING}
    assert says == said(outcome == "open")


@db
@over_both
@pytest.mark.parametrize(("keys", "who", "outcome"), [*CASES, ((), superuser, "open")])
def test_a_permission(served_by: Any, keys: tuple[str, ...], who: Who, outcome: str) -> None:
    visitor = who()
    with override_entitlements(*keys):
        answers = {gate: passed(served_by.get(gate, visitor)) for gate in PERMISSIONS}
    assert answers == dict.fromkeys(PERMISSIONS, outcome == "open")


@db
@pytest.mark.skipif(not apps.is_installed("rest_framework"), reason="the environment without extras")
@over_both
@every_case
@pytest.mark.parametrize("authentication", ["session", "token"])
def test_an_api(served_by: Any, authentication: str, keys: tuple[str, ...], who: Who, outcome: str) -> None:
    gates = ["declared", "of", "and", "or", "not-not", "object", "viewset", "function"]
    visitor, headers = who(), {}
    if authentication == "token" and visitor:
        from rest_framework.authtoken.models import Token

        headers = {"Authorization": f"Token {Token.objects.create(user=visitor).key}"}
    with override_entitlements(*keys):
        statuses = {
            gate: served_by.get(f"/api/{authentication}/{gate}/", None if headers else visitor, **headers).status_code
            for gate in gates
        }
    refused = 401 if authentication == "token" and outcome == "login" else 403
    assert statuses == dict.fromkeys(gates, 200 if outcome == "open" else refused)


# --- whose


@db
def test_of_one_subscriber_others_are_not_touched() -> None:
    ada, bob = make_subscriber(), subscriber_with("sso")
    with override_entitlements("audit", subscriber=ada):
        assert holds(ada, "audit")
        assert holds(type(ada).objects.get(pk=ada.pk), "audit"), "another instance of the same row"
        assert holds(SimpleLazyObject(lambda: ada), "audit")
        assert holds(bob, "sso")
    assert holds(ada)


@pytest.mark.parametrize("override", [override_entitlements("sso"), None])
def test_nobody_holds_nothing(override: Any) -> None:
    with override or override_entitlements("sso", subscriber=unsaved()):
        assert holds(None)
        assert holds(AnonymousUser())
        assert not async_to_sync(ahas_entitlement)(AnonymousUser(), "sso")


def test_an_unsaved_subscriber_is_the_same_as_itself_only() -> None:
    ada, bob = unsaved(), unsaved()
    with override_entitlements("sso", subscriber=ada):
        assert holds(ada, "sso")
        assert holds(SimpleLazyObject(lambda: ada), "sso")
        assert holds(bob)
    with override_entitlements("sso"):
        assert holds(bob, "sso")


@db
def test_a_subscriber_may_be_saved_meanwhile() -> None:
    ada = unsaved()
    override = override_entitlements("sso", subscriber=ada)
    with override:
        ada.save()
        assert holds(type(ada).objects.get(pk=ada.pk), "sso")
    with override:
        assert holds(type(ada).objects.get(pk=ada.pk), "sso")


@pytest.mark.skipif(BY_ORGANISATION, reason="about users who pay for themselves")
@db
def test_one_that_inherits_from_the_subscriber_s_model_counts_for_itself() -> None:
    from tests.testapp.models import Staffer

    staffer = Staffer.objects.create(username="staffer")
    with override_entitlements("sso", subscriber=User.objects.get(username="staffer")):
        assert holds(staffer, "sso")


@pytest.mark.parametrize("bad", [("",), ("a", ""), (["a"],), (None,), (1,), (b"a",)])
def test_what_is_no_key_is_a_type_error(bad: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        override_entitlements(*bad)


@pytest.mark.parametrize("bad", [AnonymousUser(), "ada", 1, Feature()])
def test_what_is_no_subscriber_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError):
        override_entitlements("sso", subscriber=bad)


def test_a_bare_decorator_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="A lookup key is a text"):
        override_entitlements(lambda: None)  # type: ignore[arg-type]


# --- spellings


@override_entitlements("sso")
def test_as_a_decorator() -> None:
    assert holds(unsaved(), "sso")


@override_entitlements("sso")
@pytest.mark.parametrize("number", [1, 2])
def test_as_a_decorator_of_a_test_with_arguments(number: int, tmp_path: Any) -> None:
    assert number
    assert tmp_path
    assert holds(unsaved(), "sso")


def test_as_a_decorator_of_an_async_function() -> None:
    subscriber = unsaved()

    @override_entitlements("sso")
    async def ask() -> bool:
        await asyncio.sleep(0)
        return await ahas_entitlement(subscriber, "sso")

    assert async_to_sync(ask)()
    assert asyncio.run(ask())


def test_inside_async_code() -> None:
    subscriber = unsaved()

    async def ask() -> tuple[bool, bool]:
        with override_entitlements("sso"):
            return await ahas_entitlement(subscriber, "sso"), await wait_for_entitlement(subscriber, "sso", timeout=0)

    assert asyncio.run(ask()) == (True, True)


@override_entitlements("sso")
class TestAClassOfPytest:
    def test_a_method(self) -> None:
        assert holds(unsaved(), "sso")

    @override_entitlements("audit")
    def test_what_stands_on_the_method_is_closer(self) -> None:
        assert holds(unsaved(), "audit")

    @staticmethod
    def test_a_static_method() -> None:
        assert holds(unsaved(), "sso")

    @classmethod
    def test_a_class_method(cls) -> None:
        assert holds(unsaved(), "sso")

    def test_an_async_method(self) -> None:
        @override_entitlements("sso")
        class Tests:
            async def test_it(self) -> bool:
                return await ahas_entitlement(unsaved(), "sso")

        with override_entitlements():
            assert asyncio.run(Tests().test_it())

    def test_what_is_no_test_is_left_alone(self) -> None:
        assert self.helper.__name__ == "helper"
        assert not hasattr(type(self).helper, "__wrapped__")

    def helper(self) -> None: ...


@override_entitlements("audit")
class TestADerivedClassOfPytest(TestAClassOfPytest):
    """What it inherits was decorated as well: its own counts."""

    test_an_async_method = None

    def test_a_method(self) -> None:
        assert holds(unsaved(), "audit")

    @staticmethod
    def test_a_static_method() -> None:
        assert holds(unsaved(), "audit")

    @classmethod
    def test_a_class_method(cls) -> None:
        assert holds(unsaved(), "audit")


def test_an_inherited_test_has_what_its_own_class_says() -> None:
    @override_entitlements("sso")
    class Base:
        def test_it(self) -> list[str]:
            return list(get_entitlements(unsaved()))

    @override_entitlements("audit")
    class Derived(Base):
        pass

    assert (Base().test_it(), Derived().test_it()) == (["sso"], ["audit"])


def test_a_class_without_tests_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no method test"):
        override_entitlements("sso")(type("Helper", (), {}))


def test_a_generator_is_a_type_error() -> None:
    def fixture() -> Any:
        yield

    async def async_fixture() -> Any:
        yield

    for each in (fixture, async_fixture):
        with pytest.raises(TypeError, match=r"with override_entitlements\(…\): yield"):
            override_entitlements("sso")(each)


@override_entitlements("sso")
class ForSimpleTestCase(SimpleTestCase):
    """Django refuses these the database."""

    def setUp(self) -> None:
        assert holds(unsaved(), "sso")

    def test_open_and_closed(self) -> None:
        for keys, status in [((KEY,), 200), ((), 403), (("sso",), 403)]:
            with self.subTest(keys=keys), override_entitlements(*keys):
                assert status_of_a_gate() == status

    async def test_async(self) -> None:
        assert await ahas_entitlement(unsaved(), "sso")
        assert not await ahas_entitlement(unsaved(), "audit")

    @override_entitlements("audit")
    def test_method(self) -> None:
        assert holds(unsaved(), "audit")


@override_entitlements("audit")
class ForADerivedTestCase(ForSimpleTestCase):
    def setUp(self) -> None:
        assert holds(unsaved(), "audit")
        with override_entitlements("sso"):
            super().setUp()
        assert holds(unsaved(), "audit")

    test_async = None


class ForATestCaseDerivedOnce(ForSimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        assert holds(unsaved(), "sso")


@override_entitlements("outer")
@override_entitlements("sso")
class ForTestCase(TestCase):
    def test_a_row(self) -> None:
        assert holds(make_subscriber(), "sso")


@override_entitlements("sso")
class ForAsyncTestCase(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        assert await ahas_entitlement(unsaved(), "sso")

    async def test_it(self) -> None:
        assert await ahas_entitlement(unsaved(), "sso")


def test_unittest_leaves_nothing_when_a_set_up_fails() -> None:
    seen = []

    @override_entitlements("sso")
    class Fails(unittest.TestCase):
        def setUp(self) -> None:
            seen.append(holds(unsaved(), "sso"))
            raise RuntimeError

        def runTest(self) -> None: ...  # noqa: N802  (unittest's)

    case = Fails()
    for _ in range(2):  # the same instance, as a runner that repeats does
        assert len(case.run().errors) == 1  # type: ignore[union-attr]
        assert forced_answers.current() == ()
    assert seen == [True, True]


def status_of_a_gate() -> int:
    """Of a view behind a gate, for a visitor who is no row."""
    request = RequestFactory().get("/")
    request.user = User(username="ada")
    try:
        return gates.decorated(request).status_code
    except PermissionDenied:
        return 403


if BY_ORGANISATION:  # whose function queries

    def status_of_a_gate() -> int:
        return 200 if has_entitlement(unsaved(), KEY) else 403


# --- without a database


@pytest.mark.parametrize("policy", ["warn", "raise", "ignore"])
@pytest.mark.parametrize(("keys", "status"), [((KEY,), 200), ((), 403), (("sso",), 403)])
def test_a_gate_needs_no_database(keys: tuple[str, ...], status: int, policy: str, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = policy
    with override_entitlements(*keys):
        assert status_of_a_gate() == status
        assert asyncio.run(ahas_entitlement(unsaved(), KEY)) is (status == 200)
        assert get_entitlements(unsaved()).has_any(KEY, "other") is (status == 200)


@pytest.mark.skipif(BY_ORGANISATION, reason="the site's function queries")
def test_an_async_gate_and_a_template_need_no_database() -> None:
    request = RequestFactory().get("/")
    request.user = User(username="ada")
    block = engines["django"].from_string(gates.DJANGO["block"])
    with override_entitlements(KEY):
        assert async_to_sync(gates.decorated_async)(request).status_code == 200
        assert block.render({}, request) == "open"
    with override_entitlements():
        with pytest.raises(PermissionDenied):
            async_to_sync(gates.decorated_async)(request)
        assert block.render({}, request) == "closed"


@db
def test_what_is_forced_costs_no_query() -> None:
    ada = make_subscriber()
    with override_entitlements("sso"), CaptureQueriesContext(connection) as queries:
        assert has_entitlement(ada, "sso")
        assert get_entitlements(ada).has_all("sso")
    assert not queries.captured_queries


@db
def test_waiting_for_what_is_forced_and_for_what_is_not() -> None:
    ada, bob = make_subscriber(), subscriber_with("sso")
    waits = async_to_sync(wait_for_entitlement)
    with override_entitlements("audit", subscriber=ada):
        assert waits(ada, "audit", timeout=0)
        assert waits(bob, "sso", timeout=0)
        assert not waits(bob, "audit", timeout=0)
    with override_entitlements():
        assert not waits(bob, "sso", timeout=0)


# --- keys that nobody knows


def warnings(caplog: Any) -> list[str]:
    return [record.args[0] for record in caplog.records if record.name == "entitlements_app.known_features"]


@db
@pytest.mark.parametrize("policy", ["warn", "raise"])
def test_keys_that_are_forced_count_as_known(policy: str, caplog: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = policy
    ada, bob = subscriber_with("sso"), make_subscriber()
    with override_entitlements("brand_new", subscriber=ada):
        assert has_entitlement(ada, "brand_new")
        assert not has_entitlement(bob, "brand_new")
    assert not warnings(caplog)


@db
def test_a_typo_in_a_gate_is_reported_where_there_is_a_catalogue(caplog: Any, settings: Any) -> None:
    with override_entitlements("sso"):
        assert not has_entitlement(unsaved(), "typo")
    assert not warnings(caplog), "no feature is known"
    subscriber_with("sso")
    with override_entitlements("sso"):
        assert not has_entitlement(unsaved(), "typo")
        assert not has_entitlement(unsaved(), "typo")
    assert len(warnings(caplog)) == 1
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    with override_entitlements("sso"), pytest.raises(UnknownFeature):
        has_entitlement(unsaved(), "typo")
    with override_entitlements("sso"), pytest.raises(UnknownFeature):
        async_to_sync(ahas_entitlement)(unsaved(), "typo")


def test_without_an_override_a_forgotten_database_is_still_told() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        _ = get_entitlements(None).sso


# --- several at a time


def test_the_innermost_that_is_about_a_subscriber_counts() -> None:
    ada, bob = unsaved(), unsaved()
    with override_entitlements("outer"):
        with override_entitlements("adas", subscriber=ada):
            assert holds(ada, "adas")
            assert holds(bob, "outer")
            with override_entitlements("bobs", subscriber=bob):
                assert holds(ada, "adas")
                assert holds(bob, "bobs")
            with override_entitlements():
                assert holds(ada)
                assert holds(bob)
        assert holds(ada, "outer")


def test_an_error_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), override_entitlements("sso"):
        1 / 0  # noqa: B018
    assert forced_answers.current() == ()


def test_one_may_be_used_again_and_inside_itself() -> None:
    override = override_entitlements("sso")
    for _ in range(2):
        with override, override_entitlements("audit"):
            with override:
                assert holds(unsaved(), "sso")
            assert holds(unsaved(), "audit")


def test_they_end_in_any_order() -> None:
    first, second = override_entitlements("first"), override_entitlements("second")
    first.enable()
    second.enable()
    first.disable()
    assert holds(unsaved(), "second")
    second.disable()


@db
def test_a_request_asked_before_and_after_gives_each_answer() -> None:
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber_with("sso"))
    asked = get_request_entitlements(request)
    assert list(asked) == ["sso"]
    with override_entitlements("audit"):
        assert list(asked) == ["audit"]
        with override_entitlements():
            assert list(asked) == []
        assert list(asked) == ["audit"]
    assert list(asked) == ["sso"]


@db
def test_answers_of_before_do_not_count(settings: Any) -> None:
    """Neither prefetched ones nor those of the cache; and what was forced stays in neither."""
    settings.ENTITLEMENTS_CACHE = "default"
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    ada = subscriber_with("sso")
    prefetch_entitlements([ada])
    again = type(ada).objects.get(pk=ada.pk)
    assert holds(again, "sso")
    with override_entitlements("audit"):
        assert holds(ada, "audit")
        assert holds(again, "audit")
    assert holds(ada, "sso")
    assert holds(again, "sso")


@db
def test_the_reverse_question_and_metadata_are_the_database_s() -> None:
    ada, bob = subscriber_with("sso"), make_subscriber()
    Feature.objects.filter(lookup_key="sso").update(metadata={"seats": "5"})
    with override_entitlements("sso", subscriber=bob), override_entitlements(subscriber=ada):
        assert list(subscribers_with("sso")) == [ada]
        assert get_entitlements(bob).metadata("sso") == {"seats": "5"}
        assert get_entitlements(ada).metadata("sso") == {}


@db
def test_explain_agrees_with_the_gates() -> None:
    ada = make_subscriber()
    with override_entitlements("sso"):
        for subscriber in (ada, unsaved(), None, AnonymousUser()):
            assert explain(subscriber, "sso").entitled is has_entitlement(subscriber, "sso")
            assert not explain(subscriber, "audit").entitled


def test_other_threads_see_it() -> None:
    seen: list[bool] = []
    subscriber = unsaved()
    with override_entitlements("sso", subscriber=subscriber):
        thread = threading.Thread(target=lambda: seen.append(has_entitlement(subscriber, "sso")))
        thread.start()
        thread.join()
    assert seen == [True]


def test_many_threads_that_override_at_once_each_leave_the_rest_alone() -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        subscriber, key = unsaved(), f"key_{number}"
        for _ in range(200):
            with override_entitlements(key, subscriber=subscriber):
                if not holds(subscriber, key):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.django_db(transaction=True)
def test_a_live_server_sees_it(live_server: Any) -> None:
    ada = unlinked()
    client = Client()
    client.force_login(ada)
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"

    def status(gate: str) -> int:
        try:
            with urlopen(Request(live_server.url + gate, headers={"Cookie": cookie}), timeout=20) as answer:
                return answer.status  # type: ignore[no-any-return]
        except HTTPError as error:
            error.close()
            return error.code

    for gate in ("/guarding/decorated/", "/guarding/decorated-async/"):
        assert status(gate) == 403
        with override_entitlements(KEY):
            assert status(gate) == 200
            with override_entitlements():
                assert status(gate) == 403
        assert status(gate) == 403


# --- pytest's marker and fixture


@pytest.mark.entitlements("sso")
def test_the_marker_on_a_function() -> None:
    assert holds(unsaved(), "sso")


@pytest.mark.entitlements
def test_the_marker_without_keys_means_nothing_at_all() -> None:
    assert holds(unsaved())
    assert status_of_a_gate() == 403


@pytest.mark.entitlements("sso", "audit")
class TestTheMarkerOnAClass:
    @pytest.fixture
    def seen_by_a_fixture(self) -> bool:
        return holds(unsaved(), "sso", "audit")

    def test_each_method(self, seen_by_a_fixture: bool) -> None:
        assert seen_by_a_fixture
        assert holds(unsaved(), "sso", "audit")

    @pytest.mark.entitlements("audit")
    def test_the_closest_counts(self) -> None:
        assert holds(unsaved(), "audit")

    @override_entitlements("decorated")
    def test_a_decorator_is_closer_than_any(self) -> None:
        assert holds(unsaved(), "decorated")


@pytest.mark.entitlements("sso")
class ForTheMarkerOnAUnittestClass(SimpleTestCase):
    def test_it(self) -> None:
        assert holds(unsaved(), "sso")

    async def test_async(self) -> None:
        assert await ahas_entitlement(unsaved(), "sso")


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(("a",), marks=pytest.mark.entitlements("a")),
        pytest.param(("b",), marks=pytest.mark.entitlements("b")),
    ],
)
def test_the_marker_on_a_case(keys: tuple[str, ...]) -> None:
    assert holds(unsaved(), *keys)


@db
def test_the_fixture(entitlements: Any) -> None:
    ada, bob = subscriber_with("sso"), subscriber_with("sso")
    entitlements("audit", subscriber=ada)
    assert (holds(ada, "audit"), holds(bob, "sso")) == (True, True)
    entitlements("export", subscriber=type(ada).objects.get(pk=ada.pk))
    assert len(forced_answers.current()) == 1, "in the place of the one before"
    assert holds(ada, "export")
    entitlements()
    assert (holds(ada), holds(bob)) == (True, True)
    entitlements("audit", subscriber=ada)
    assert (holds(ada, "audit"), holds(bob)) == (True, True)


@pytest.mark.entitlements("sso")
def test_the_fixture_is_closer_than_the_marker(entitlements: Any) -> None:
    assert holds(unsaved(), "sso")
    entitlements("audit")
    assert holds(unsaved(), "audit")
    with pytest.raises(TypeError):
        entitlements(1)
    assert holds(unsaved(), "audit")


def without(*plugins: str) -> list[str]:
    return [argument for plugin in plugins for argument in ("-p", f"no:{plugin}")]


def run_pytest(folder: Any, source: str, *arguments: str) -> str:
    """In a process and a folder of its own, with nothing but the plugin."""
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-q", *without("cacheprovider", "django", "faker"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.once
def test_a_project_that_uses_neither_loads_nothing_of_django(tmp_path: Any) -> None:
    source = "import sys\ndef test_it():\n    assert not {'django', 'factory', 'stripe'} & set(sys.modules)\n"
    assert "1 passed" in run_pytest(tmp_path, source)


MODULE = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "entitlements_app"])
django.setup()

import pytest
from django.contrib.auth.models import User
from entitlements_app.access import get_entitlements

pytestmark = pytest.mark.entitlements("sso")

def test_module():
    assert list(get_entitlements(User())) == ["sso"]

@pytest.mark.entitlements("audit")
def test_function():
    assert list(get_entitlements(User())) == ["audit"]

@pytest.mark.entitlements("audit", subscriber=User())
def test_refused():
    pass

@pytest.mark.entitlements(1)
def test_no_key():
    pass
"""


@pytest.mark.once
def test_the_marker_on_a_module_and_what_it_refuses(tmp_path: Any) -> None:
    said = run_pytest(tmp_path, MODULE)
    assert "2 passed, 2 errors" in said, said
    assert "takes lookup keys only; for one subscriber use the fixture" in said
    assert "A lookup key is a text that is not empty, not 1" in said


@pytest.mark.once
def test_the_marker_and_the_fixture_are_documented_by_pytest_itself(tmp_path: Any) -> None:
    assert "@pytest.mark.entitlements(*lookup_keys)" in run_pytest(tmp_path, "", "--markers")
    assert "A function that says what a subscriber is entitled to" in run_pytest(tmp_path, "", "--fixtures")


@pytest.mark.once
def test_it_needs_neither_pytest_nor_factory_boy() -> None:
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['factory'] = None\n"
        "import django; from django.conf import settings\n"
        "apps = ['django.contrib.auth', 'django.contrib.contenttypes', 'entitlements_app']\n"
        "settings.configure(INSTALLED_APPS=apps)\n"
        "django.setup()\n"
        "from entitlements_app.testing import WebhookClient, override_entitlements\n"
        "from entitlements_app.access import has_entitlement\n"
        "from django.contrib.auth.models import User\n"
        "with override_entitlements('sso'): assert has_entitlement(User(), 'sso')\n"
        "WebhookClient()\n"
        "try: from entitlements_app.testing import CustomerFactory\n"
        "except ImportError as error: print(error, error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The factories of entitlements_app.testing need factory_boy: pip install")


def test_the_decorator_guards_a_view_in_a_test_too() -> None:
    """A view that a test makes, behind the gate, as users write it."""
    if BY_ORGANISATION:
        pytest.skip("the site's function queries")
    request = RequestFactory().get("/")
    request.user = User(username="ada")
    view = entitlement_required("sso", "audit", any=True)(gates.plain)
    with override_entitlements("audit"):
        assert view(request).status_code == 200
    with override_entitlements("export"), pytest.raises(PermissionDenied):
        view(request)
