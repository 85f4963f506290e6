"""What `pip install django-stripe-entitlements` brings: built, installed without extras in an empty venv, and used."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "entitlements_app.asked_keys.jinja_templates": "jinja2",
    "entitlements_app.contrib.djstripe.accounts": "djstripe",
    "entitlements_app.contrib.djstripe.customers": "djstripe",
    "entitlements_app.contrib.djstripe.details": "djstripe",
    "entitlements_app.contrib.djstripe.management.commands.entitlements_link_djstripe": "djstripe",
    "entitlements_app.contrib.djstripe.admin": "djstripe",
    "entitlements_app.contrib.djstripe.admin_words": "djstripe",
    "entitlements_app.contrib.djstripe.checks": "djstripe",
    "entitlements_app.contrib.djstripe.products": "djstripe",
    "entitlements_app.contrib.djstripe.subscribers": "djstripe",
    "entitlements_app.contrib.djstripe.webhooks": "djstripe",
    "entitlements_app.contrib.rest_framework": "rest_framework",
    "entitlements_app.jinja": "jinja2",
    "entitlements_app.tasks": "celery",
    "entitlements_app.testing.factories": "factory",
    "entitlements_app.testing.pytest_plugin": "pytest",
}


def run(*command: str | Path, cwd: Path) -> str:
    # -I of the Pythons below keeps this checkout and PYTHON… out; pytest-django sets the other one.
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path

    def names(self) -> set[str]:
        return set(zipfile.ZipFile(self.wheel).namelist())


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
    """A folder that the first test process to ask for it makes; the others of this run wait, and share it."""
    under_xdist = "PYTEST_XDIST_WORKER" in os.environ
    folder = (factory.getbasetemp().parent if under_xdist else factory.getbasetemp()) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel made of it: what is missing in the first cannot be in the second."""
    folder = made_once("dist", tmp_path_factory, _build)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def _build(folder: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)


@dataclass(frozen=True)
class Site:
    """A new project of somebody who has installed the wheel and nothing else."""

    folder: Path
    interpreter: Path

    def python(self, *arguments: str) -> str:
        return run(self.interpreter, "-I", "-W", "error", *arguments, cwd=self.folder)

    def manage(self, *arguments: str) -> str:
        # Not isolated: a script's own folder is where it finds its project.
        return run(self.interpreter, "-E", "-s", "-W", "error", "manage.py", *arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return _site(made_once("site", tmp_path_factory, lambda folder: _start_site(_site(folder), built)))


def _site(folder: Path) -> Site:
    return Site(folder, folder / "venv" / "bin" / "python")


def _start_site(site: Site, built: Built) -> None:
    """With a database. What is not imported need not be compiled, nor is a pip of its own needed."""
    folder = site.folder
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    install = ("install", "--quiet", "--prefer-binary", "--no-compile", "--disable-pip-version-check", built.wheel)
    run(sys.executable, "-m", "pip", "--python", site.interpreter, *install, cwd=folder)
    site.python("-m", "django", "startproject", "mysite", ".")
    with (folder / "mysite" / "settings.py").open("a") as settings:
        settings.write(
            "INSTALLED_APPS += ['entitlements_app']\n"
            "MIDDLEWARE += ['entitlements_app.middleware.EntitlementsMiddleware']\n"
            "ENTITLEMENTS_STRIPE_API_KEY, ENTITLEMENTS_WEBHOOK_SECRETS = 'sk_test_x', ['whsec_x']\n"
        )
    (folder / "mysite" / "urls.py").write_text(
        "from django.urls import include, path\nurlpatterns = [path('stripe/', include('entitlements_app.urls'))]\n"
    )
    site.manage("migrate")


def test_every_file_of_the_app_is_in_the_wheel_and_nothing_else(built: Built) -> None:
    app = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "entitlements_app").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }

    assert {name for name in built.names() if ".dist-info/" not in name} == app
    assert {"entitlements_app/py.typed", "entitlements_app/migrations/0001_initial.py"} <= app
    assert "entitlements_app/testing/simulator/parameters.json" in app
    assert "entitlements_app/templates/entitlements_app/checkout_return.html" in app
    assert "entitlements_app/static/entitlements_app/checkout_return.css" in app


def test_both_licences_go_with_it(built: Built) -> None:
    licences = {name.partition("/licenses/")[2] for name in built.names() if "/licenses/" in name}

    assert licences == set(PROJECT["license-files"])


def test_the_metadata_says_what_it_needs(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        [name] = [name for name in built.names() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(wheel.read(name).decode())
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert needed == ["django>=5.2", "stripe>=12.5"]
    assert {"celery", "drf", "jinja", "testing"} <= set(metadata.get_all("Provides-Extra", []))
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_sdist_has_what_the_tests_need(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"LICENSE", "Makefile", "manage.py", "pyproject.toml", "tests/settings.py", "README.md"} <= names
    assert {"bench/gate.py", "docs/quick-start.md", "example_project/settings.py"} <= names
    assert {"tests/legacy/plan_names/manage.py", "tests/legacy/plan_names/shop/templates/shop/home.html"} <= names


def test_a_new_project_with_the_wheel_is_in_order(site: Site) -> None:
    site.manage("check", "--fail-level", "WARNING")
    site.manage("makemigrations", "--check", "--dry-run")

    assert "[X] 0001_initial" in site.manage("showmigrations", "entitlements_app")
    assert site.manage("check", "--database", "default", "--fail-level", "WARNING").startswith("System check")


def test_every_module_can_be_imported_without_extras_but_those_that_are_one(site: Site) -> None:
    site.python(
        "-c",
        "import sys; sys.path.insert(0, '.')\n"
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'\n"
        "import django, importlib, pkgutil; django.setup()\n"
        "import entitlements_app; assert 'site-packages' in entitlements_app.__file__\n"
        "missing = {}\n"
        "walk = pkgutil.walk_packages(entitlements_app.__path__, 'entitlements_app.', onerror=lambda _: None)\n"
        "modules = list(walk)\n"
        "assert len(modules) > 40, modules\n"
        "for module in modules:\n"
        "    if module.name.endswith('.__main__'): continue\n"
        "    try: importlib.import_module(module.name)\n"
        "    except ImportError as error: missing[module.name] = error.name.partition('.')[0]\n"
        f"assert missing == {EXTRAS!r}, missing\n",
    )


def test_workers_without_celery_are_an_error_of_the_check(site: Site) -> None:
    code = (
        "from django.conf import settings; from django.core.checks import run_checks\n"
        "settings.ENTITLEMENTS_WEBHOOK_PROCESSING = 'celery'\n"
        "print([message.id + ' ' + message.msg for message in run_checks()])"
    )
    [said] = site.manage("shell", "--no-imports", "--command", code).splitlines()

    assert "entitlements_app.E019" in said
    assert "Celery cannot be imported" in said


def test_the_template_tags_render(site: Site) -> None:
    template = "{% load entitlements %}{% entitled 'sso' %}yes{% else %}no{% endentitled %}"
    code = (
        "from django.contrib.auth.models import AnonymousUser; from django.template import engines\n"
        "from django.test import RequestFactory\n"
        "request = RequestFactory().get('/'); request.user = AnonymousUser()\n"
        f'print(engines["django"].from_string("{template}").render({{}}, request))'
    )

    assert site.manage("shell", "--no-imports", "--command", code).strip() == "no"


def test_the_page_after_a_checkout_has_its_template_and_its_style(site: Site) -> None:
    code = (
        "from django.contrib.auth.models import User; from django.contrib.staticfiles import finders\n"
        "from django.test import RequestFactory; from entitlements_app.views import CheckoutReturnView\n"
        "request = RequestFactory(SERVER_NAME='localhost').get('/'); request.user = User(pk=1)\n"
        "view = CheckoutReturnView.as_view(entitlement_required='sso', next_page='/')\n"
        "print('Waiting for Stripe' in view(request).render().text)\n"
        "print(finders.find('entitlements_app/checkout_return.css') is not None)"
    )

    assert site.manage("shell", "--no-imports", "--command", code).split() == ["True", "True"]
