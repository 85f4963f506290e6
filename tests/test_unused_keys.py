"""`entitlements_catalog unused`, on the site in `key_site`, where each gate asks for a key of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.template import engines

from entitlements_app.asked_keys.comparison import Comparison, compare
from entitlements_app.asked_keys.declarations import read_declarations
from entitlements_app.asked_keys.django_templates import read_django_template
from entitlements_app.asked_keys.findings import Found, Place
from entitlements_app.management.commands.entitlements_catalog import Command
from entitlements_app.models import EntitlementOverride, Feature
from tests.rows import make_subscriber

pytestmark = pytest.mark.django_db

HERE = Path(__file__).parent / "key_site"
SHOP = HERE / "bookshop"
HAS_API = apps.is_installed("rest_framework")
HAS_JINJA = "jinja2" in [engine.name for engine in engines.all()]

DECORATOR, ON_CLASS, OF_REQUEST = "@entitlement_required", "entitlement_required =", "request.entitlements"

# By file: the keys that each way to ask for one has there. None stands in another line than its key.
ASKED: dict[str, dict[str, list[str]]] = {
    "urls.py": {DECORATOR: ["around_as_view", "around_include", "around_admin"], ON_CLASS: ["as_view"]},
    "views.py": {
        DECORATOR: ["decorator", "decorator_any_1", "decorator_any_2", "decorator_by_another_name", "method_decorator"],
        ON_CLASS: ["class_attribute", "class_tuple_1", "class_tuple_2"],
    },
    "api.py": {  # read without REST framework, too
        ON_CLASS: ["api_attribute"],
        "HasEntitlement.of": ["api_and", "api_not", "api_function", "api_action"],
    },
    "code.py": {
        "has_entitlement": ["function", "function_1", "function_2", "function_renamed"],
        "ahas_entitlement": ["function_async"],
        "wait_for_entitlement": ["function_wait"],
        "subscribers_with": ["function_reverse", "function_reverse_by_name"],
        "get_entitlements": ["attribute", "item", "membership"],
        "aget_entitlements": ["attribute_async"],
        "entitlements": ["annotated"],
        "entitled_to": ["customers", "customers_filtered"],
        "permission": ["permission", "permission_list", "permission_decorator", "permission_attribute"],
        OF_REQUEST: [
            *["request_attribute", "request_item", "request_not_in", "request_all_1", "request_all_2", "request_any"],
            *["request_metadata", "request_getattr", "request_local", "request_async", "request_of_self"],
        ],
    },
    "templates/bookshop/page.html": {
        OF_REQUEST: [
            *["template_attribute", "template_negated", "template_variable", "template_of_view", "template_with"],
            *["template_as", "template_handed_on"],
        ],
        f"in {OF_REQUEST}": ["template_in", "template_not_in"],
        "{% entitled %}": ["template_block", "template_block_1", "template-block.2"],
        "|entitled_to": ["template_filter", "template_filter_quoted"],
        "perms.entitlements": ["template_permission"],
        "in perms": ["template_in_perms"],
    },
}
# Keys that do not stand where they are asked for: the line says what does.
NAMED = {
    "from_constant": "CONSTANT)",
    "from_enum": "Key.OWN",
    "from_choices": "Choice.OWN.value",
    "from_imported_constant": "IMPORTED)",
    "from_imported_enum": "keys.Key.OF_ENUM",
    "from_local": "local)",
    "from_joined_from_constant": "from_joined_{CONSTANT}",
    "from_condition": "from_condition",
    "from_attribute_of_imported": "keys.GOLD.lookup_key",
    "decorator_computed": "@entitlement_required(COMPUTED)",
    "decorator_of_gold": "@logged",  # what is called is known as the loaded view, which begins there
    "decorator_of_class": "class OnClassCalled",
    "decided_1": "def get_entitlement_required",
    "decided_2": "def get_entitlement_required",
}
AT_RUN_TIME = {
    ("views.py", "def get_entitlement_required(self) -> str:"),
    ("code.py", "holds(user, key),"),
    ("code.py", "request.entitlements[key],"),
    ("code.py", "key in request.entitlements,"),
    ("code.py", 'user.has_perm(f"entitlements.{key}"),'),
    ("code.py", "*(holds(user, CONSTANT) for CONSTANT in user.keys),"),
    ("code.py", "holds(keys.LAZY(), keys.LAZY.key),"),
    ("templates/bookshop/run_time.html", "{% if feature.lookup_key in request.entitlements %}{% endif %}"),
    ("templates/bookshop/run_time.html", "{% entitled key %}{% endentitled %}"),
    ("templates/bookshop/run_time.html", "{% if user|entitled_to:key %}{% endif %}"),
}
if HAS_JINJA:
    ASKED["jinja2/bookshop/page.html"] = {
        OF_REQUEST: [
            *["jinja_attribute", "jinja-item", "jinja_all_1", "jinja_all_2", "jinja_any", "jinja_metadata"],
            *["jinja_set", "jinja_with"],
        ],
        f"in {OF_REQUEST}": ["jinja_in", "jinja_not_in"],
        "{% entitled %}": ["jinja_block", "jinja_block_1", "jinja_block_2"],
        "entitled_to": ["jinja_test", "jinja_filter"],
        "perms.entitlements": ["jinja_perms"],
        "has_perm": ["jinja_permission"],
    }
    AT_RUN_TIME |= {
        ("jinja2/bookshop/run_time.html", line)
        for line in (SHOP / "jinja2/bookshop/run_time.html").read_text().splitlines()
    }


@pytest.fixture
def visit(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], None]]:
    """Make the package of that name, in that folder, the whole site."""
    names = []

    def visit_(folder: Path, name: str) -> None:
        names.append(name)
        monkeypatch.syspath_prepend(folder)
        settings.INSTALLED_APPS = [*(app for app in settings.INSTALLED_APPS if app != "tests.testapp"), name]
        settings.SETTINGS_MODULE = f"{name}.settings"
        settings.ROOT_URLCONF = f"{name}.urls"
        settings.TEMPLATES = [{**engine, "APP_DIRS": True} for engine in settings.TEMPLATES]

    yield visit_
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]


@pytest.fixture
def bookshop(visit: Callable[[Path, str], None]) -> None:
    visit(HERE, "bookshop")


@pytest.fixture
def site(visit: Callable[[Path, str], None], tmp_path: Path) -> Callable[..., str]:
    """Make a site without views the whole site, which asks for these keys in its one file; the file."""

    def make(*keys: str) -> str:
        questions = "\n".join(f'has_entitlement(None, "{key}")' for key in keys)
        imported = "from entitlements_app.access import has_entitlement"
        write(tmp_path, {"keysite/urls.py": f"{imported}\n\n{questions}\nurlpatterns = []"})
        visit(tmp_path, "keysite")
        return str(tmp_path / "keysite" / "urls.py")

    return make


def feature(
    key: str, *, active: bool = True, livemode: bool = False, account: str = "", name: str | None = None
) -> Feature:
    number = Feature.objects.count()
    name = key if name is None else name
    return Feature.objects.create(
        stripe_id=f"feat_{number}", lookup_key=key, active=active, livemode=livemode, account=account, name=name
    )


def unused(*args: str) -> str:
    """What the command says where all is well, as its exit code has it."""
    out = StringIO()
    call_command("entitlements_catalog", "unused", *args, stdout=out)
    return out.getvalue()


def unused_and_failing(*args: str) -> str:
    out = StringIO()
    with pytest.raises(SystemExit) as exit_:
        call_command("entitlements_catalog", "unused", *args, stdout=out)
    assert exit_.value.code == 2
    return out.getvalue()


def asked_in(told: Comparison) -> set[tuple[str, str, str, str]]:
    """The file, gate, key and line of each place."""
    return {
        (str(Path(place.file).relative_to(SHOP)), place.gate, asked.key, line_of(place.file, place.line))
        for asked in told.missing
        for place in asked.places
    }


def line_of(file: str, line: int) -> str:
    return Path(file).read_text().splitlines()[line - 1].strip()


def test_every_gate_is_found_where_it_stands(bookshop: None) -> None:
    found = asked_in(compare())
    assert {(file, gate, key) for file, gate, key, _ in found if key not in NAMED} == {
        (file, gate, key) for file, gates in ASKED.items() for gate, keys in gates.items() for key in keys
    }
    elsewhere = [(file, key, line) for file, _, key, line in found if key not in line and key not in NAMED]
    assert not elsewhere


def test_a_site_that_a_link_leads_to(visit: Callable[[Path, str], None], tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(HERE)
    visit(tmp_path / "current", "bookshop")
    told = compare()
    assert {place.file for asked in told.missing for place in asked.places} == {
        str(SHOP / file) for file in ASKED if HAS_JINJA or not file.startswith("jinja2")
    }
    assert len(told.undecided) == len(AT_RUN_TIME)


def test_constants_are_looked_up(bookshop: None) -> None:
    lines = {key: line for _, _, key, line in asked_in(compare()) if key in NAMED}
    assert lines.keys() == NAMED.keys()
    assert not {key: line for key, line in lines.items() if NAMED[key] not in line}


def test_what_only_the_running_site_knows_is_told_with_its_place(bookshop: None) -> None:
    told = compare()
    assert {
        (str(Path(each.place.file).relative_to(SHOP)), line_of(each.place.file, each.place.line))
        for each in told.undecided
    } == AT_RUN_TIME
    assert not told.unread
    assert told.templates == (4 if HAS_JINJA else 2)
    assert told.python_files == 7


def test_a_mistyped_key_is_told_with_the_one_that_is_meant(bookshop: None) -> None:
    feature("class-atribute")
    feature("Decorator")
    text = unused_and_failing()
    assert "  class_attribute  Did you mean class-atribute?\n" in text
    assert "  decorator  Did you mean Decorator?\n" in text
    assert "  wholly_different" not in text
    assert "\n  sso" not in text


def test_the_gates_say_themselves_what_they_ask_for(bookshop: None) -> None:
    declared = {(asked.place.gate, asked.key) for asked in read_declarations().asked}
    files = ["urls.py", "views.py", *(["api.py"] if HAS_API else [])]
    of_views = {(gate, key) for file in files for gate, keys in ASKED[file].items() for key in keys}
    computed = {(DECORATOR, key) for key in ("decorator_computed", "decorator_of_gold", "from_attribute_of_imported")}
    assert declared == of_views | computed | {(ON_CLASS, "decorator_of_class")}


def test_a_view_of_an_installed_package_is_found_by_what_it_declares(
    visit: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages"
    write(
        tmp_path,
        {
            "site-packages/keylib.py": """
                from entitlements_app.decorators import entitlement_required
                from entitlements_app.mixins import EntitlementRequiredMixin
                from django.views import View

                @entitlement_required("of_package")
                def view(request): ...

                class Deciding(EntitlementRequiredMixin, View):
                    def get_entitlement_required(self):
                        return "who knows"
            """,
            "keysite/urls.py": """
                import keylib
                from django.urls import path

                urlpatterns = [path("1/", keylib.view), path("2/", keylib.Deciding.as_view())]
            """,
        },
    )
    monkeypatch.syspath_prepend(package)
    visit(tmp_path, "keysite")
    told = compare()
    (asked,) = told.missing
    (undecided,) = told.undecided
    file = str(package / "keylib.py")
    assert (asked.key, asked.places) == ("of_package", (Place(file, 5, DECORATOR),))
    assert undecided.place == Place(file, 9, "get_entitlement_required()")
    assert told.python_files == 2


def test_what_has_a_feature_or_an_override_is_not_missing(site: Callable[..., str]) -> None:
    site("sso", "archived", "given", "live", "of_another_account", "renewed")
    feature("sso")
    feature("archived", active=False)
    feature("live", livemode=True)
    feature("of_another_account", account="acct_1")
    feature("renewed")
    feature("renewed", active=False)
    EntitlementOverride.objects.create(subscriber=make_subscriber(), lookup_key="given", effect="grant")
    told = compare()
    assert [asked.key for asked in told.missing] == ["live", "of_another_account"]
    assert [asked.key for asked in told.archived] == ["archived"]
    assert told.unused == ()


def test_features_that_nothing_asks_for_are_told_and_are_no_failure(site: Callable[..., str]) -> None:
    site("sso")
    feature("sso")
    feature("audit_log", name="Audit log")
    feature("api", name="")
    feature("old", active=False)
    feature("live", livemode=True)
    text = unused()
    assert "Features that nothing asks for:\n  api\n  audit_log  Audit log\n" in text
    assert "old" not in text
    assert "Asked for" not in text


def test_no_name_reaches_the_terminal_as_more_than_a_name(site: Callable[..., str]) -> None:
    site("sso")
    feature("sso")
    feature("audit", name="\x1b]0;evil\x07\nevil\u202e")
    assert r"  audit  \u001b]0;evil\u0007\u000aevil\u202e" in unused()
    assert "\u202e" not in unused("--json")


def test_all_is_well(site: Callable[..., str]) -> None:
    site("sso")
    feature("sso")
    first, *rest = unused().splitlines()
    assert first.startswith("Looked through 0 views, 0 templates and 2 Python files of the site")
    assert rest == ["", "Each key that is asked for has a feature, and each feature is asked for."]


def test_an_archived_feature_still_grants(site: Callable[..., str]) -> None:
    site("sso")
    feature("sso", active=False)
    assert "only an archived feature has it. Products that have it go on granting it" in unused()


def test_an_empty_catalogue_is_no_list_of_mistakes(site: Callable[..., str]) -> None:
    site("sso")
    text = unused_and_failing()
    assert "No feature is known here in test mode" in text
    assert "manage.py entitlements_sync --catalog" in text
    assert "  sso\n" in text


def test_an_empty_catalogue_of_a_site_that_asks_for_nothing(site: Callable[..., str]) -> None:
    site()
    assert unused().endswith("manage.py entitlements_sync --catalog.\n")


def test_keys_are_left_out_on_both_sides(site: Callable[..., str]) -> None:
    site("sso", "soon")
    for key in ("sso", "of_the_app", "unused"):
        feature(key)
    text = unused("--ignore", "soon", "--ignore", "of_the_app")
    assert "Features that nothing asks for:\n  unused  unused\n" in text
    assert "soon" not in text
    assert "of_the_app" not in text


def test_the_same_as_data(site: Callable[..., str]) -> None:
    file = site("sso_", "archived")
    feature("sso", name="Single sign-on")
    feature("archived", active=False)
    data = json.loads(unused_and_failing("--json"))
    assert data == {
        "livemode": False,
        "is_empty": False,
        "missing": [
            {"key": "sso_", "places": [{"file": file, "line": 3, "gate": "has_entitlement"}], "similar": "sso"},
        ],
        "archived": [
            {"key": "archived", "places": [{"file": file, "line": 4, "gate": "has_entitlement"}], "similar": ""},
        ],
        "unused": [{"key": "sso", "name": "Single sign-on"}],
        "undecided": [],
        "unread": [],
        "views": 0,
        "templates": 0,
        "python_files": 2,
    }


def test_what_cannot_be_read_is_told_and_left_out(site: Callable[..., str], tmp_path: Path, settings: Any) -> None:
    site("sso")
    feature("sso")
    (tmp_path / "keysite" / "broken.py").write_text("x = 1\ndef entitlements(:\n")
    (tmp_path / "keysite" / "deep.py").write_text(f"entitlements = {' + '.join(['1'] * 20_000)}")
    (tmp_path / "keysite" / "warned.py").write_text(r'entitlements = "\d"')
    write(tmp_path, {"pages/good.html": "{{ request.entitlements.sso }}", "pages/jinja/bad.html": "\n{% entitled %"})
    (tmp_path / "pages" / "latin.html").write_bytes("{{ request.entitlements.sso }} é".encode("latin-1"))
    (tmp_path / "pages" / "gone.html").symlink_to(tmp_path / "nowhere")
    settings.TEMPLATES = [
        {**engine, "DIRS": [tmp_path / "pages" / ("jinja" if "jinja2" in engine["BACKEND"] else "")]}
        for engine in settings.TEMPLATES
    ]
    text = unused()
    assert "Could not be read, and may ask for more:" in text
    assert f"{tmp_path}/keysite/broken.py:2  invalid syntax" in text
    assert f"{tmp_path}/keysite/deep.py" in text
    assert "warned.py" not in text
    assert f"{tmp_path}/pages/latin.html  It is not UTF-8" in text
    assert f"{tmp_path}/pages/gone.html  No such file or directory" in text
    assert (f"{tmp_path}/pages/jinja/bad.html:2  " in text) is HAS_JINJA


@pytest.mark.parametrize("mistake", ["1 / 0", "import nothing_of_that_name", "urlpatterns = 3"])
def test_a_urlconf_that_cannot_be_imported_is_a_plain_error(
    visit: Callable[[Path, str], None], tmp_path: Path, mistake: str
) -> None:
    write(tmp_path, {"keysite/urls.py": mistake})
    visit(tmp_path, "keysite")
    command = Command()
    options = command.create_parser("manage.py", "entitlements_catalog").parse_args(["unused"])
    with pytest.raises(CommandError, match=r"^The URLconf keysite\.urls could not be read, .*\. \w+"):
        command.execute(**vars(options))  # as from a shell, where Django's own checks might come first


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("{% if a.b in request.entitlements and 'x' in request.entitlements %}", {"x", None}),
        ("{% if 'x'|lower in request.entitlements %}", {None}),
        ('{% entitled "x" key any=yes %}', {"x", None}),
        ("{%entitled 'it\\'s'%}", {"it's"}),
        ("{% comment %}{% entitled 'x' %}{% comment %}{% endcomment %}{% entitled 'y' %}", {"y"}),
        ("{% include 'a' with e=request.entitlements %}{{ e.x }}{{ e.as_of }}{{ eel.y }}{{ the.e.z }}", {"x"}),
        ("{% if perms.entitlements %}{% endif %}{% if 'shop.x' in perms %}{% endif %}{% load entitlements %}", set()),
        ("{{ my_request.entitlements.x }}{{ request.entitlements }}{{ 'request.entitlements.y' }}", set()),
    ],
)
def test_words_of_a_template(source: str, keys: set[str | None]) -> None:
    found = read_django_template("page.html", source)
    assert {asked.key for asked in found.asked} | {None for _ in found.undecided} == keys


@pytest.mark.skipif(not HAS_JINJA, reason="needs the extra jinja")
def test_a_jinja_template_is_read_and_not_run() -> None:
    from jinja2 import Environment

    from entitlements_app.asked_keys.jinja_templates import read_jinja_template

    def read(expression: str) -> Found:
        return read_jinja_template("page.html", f"{{{{ request.entitlements[{expression}] }}}}", site)

    site, ran = Environment(autoescape=True), []
    site.filters["from_database"] = ran.append
    site.tests["in_database"] = ran.append
    for expression in ("'a'|from_database", "'a' is in_database", "['a'|from_database]", "'a' * 10 ** 10"):
        found = read(expression)
        assert (len(found.undecided), found.asked, ran) == (1, set(), [])
    assert {asked.key for asked in read("'a' ~ 'b'").asked} == {"ab"}
    assert [each.file for each in read("(" * 3000 + "1" + ")" * 3000).unread] == ["page.html"]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text).strip("\n") if name.endswith(".py") else text)
        if name.endswith(".py") and "/" in name and "site-packages" not in name:
            (folder / name).with_name("__init__.py").touch()
