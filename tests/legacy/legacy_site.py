"""A site from before this app, and somebody who follows a migration guide on it.

Everything runs in processes of the site's own: commands as the guide has them, visits and deliveries by `ask.py`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from entitlements_app.testing import StripeSimulator
from tests.documents import ROOT, Block, blocks

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds, for a slow machine
OUR_EVENTS = ("entitlements.active_entitlement_summary.updated", "customer.deleted", "customer.subscription.")
Answers = dict[str, set[str]]


def _bare(code: str) -> str:
    return re.sub(r"  # .*", "", code)


@dataclass(frozen=True)
class Page:
    """A page, and how it says that its visitor may use the feature: it is there, or it has this text."""

    path: str
    text: str = ""

    def says_yes(self, status: int, text: str) -> bool:
        if self.text:
            assert status == 200, (self.path, status, text)
            return self.text in text
        assert status in (200, 403), (self.path, status, text)
        return status == 200


class LegacySite:
    """A copy of a project, with what is its own in a subclass: who its users are.

    The key of a user is his place in `users`, from 1 on. `customers` and `subscriptions` are at Stripe, by username.
    """

    name: str
    guide: str
    pages: Mapping[str, Page]
    users: Iterable[str]
    settings = ""  # by which its tests differ from the site itself

    def __init__(self, folder: Path, stripe: StripeSimulator) -> None:
        self.folder = folder / self.name
        shutil.copytree(HERE / self.name, self.folder, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
        self.stripe = stripe
        self.prices: dict[str, str] = {}
        self.customers: dict[str, str] = {}
        self.subscriptions: dict[str, str] = {}
        self.endpoints: dict[str, tuple[str, tuple[str, ...]]] = {}  # by path: secret, types of events
        self.log = ""
        self._told: set[str] = set()
        self._blocks = list(blocks(ROOT / "docs" / self.guide))
        self._followed: list[str] = []
        self._spawner: subprocess.Popen[str] | None = None
        outside = {
            name: value for name, value in os.environ.items() if not re.match("DJANGO_|TEST_|STRIPE_|PYTHON", name)
        }
        self.environment = {
            **outside,
            "DJANGO_SETTINGS_MODULE": "here",
            "STRIPE_API_KEY": stripe.api_key,
            "STRIPE_API_BASE": stripe.url,
            "STRIPE_WEBHOOK_SECRET": "whsec_of_the_new_endpoint",
            "NO_PROXY": "*",
        }
        (self.folder / "here.py").write_text(
            f"from mysite.settings import *\n{self.settings}\n"
            f"ENTITLEMENTS_STRIPE_API_BASE = {stripe.url!r}\n"
            "ENTITLEMENTS_STRIPE_RATE = 1000\n"
            # Nothing of the guides: only faster.
            'DATABASES["default"]["OPTIONS"] = {"init_command": "PRAGMA synchronous = OFF"}\n'
            'SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"\n'
        )

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Self]:
        """The site, and a Stripe of its own, ten days after it was opened."""
        with StripeSimulator() as stripe, cls(folder, stripe) as site:
            with site.days_ago(10):
                site.open()
            yield site

    def open(self) -> None:
        """Sell to `users`, at Stripe and in the site's tables."""
        raise NotImplementedError

    def load(self, rows: list[dict[str, Any]]) -> None:
        """Make the site's tables, with these rows in them."""
        (self.folder / "rows.json").write_text(json.dumps(rows))
        self.run("python manage.py migrate --verbosity 0")
        self.run("python manage.py loaddata rows.json")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._spawner is not None:
            self._spawner.communicate(timeout=PATIENCE)

    # The guide

    def assert_it_began_as_written(self) -> None:
        """What the guide shows of the site is in it, comments apart, paragraph by paragraph."""
        code = _bare("".join(file.read_text() for file in self.folder.rglob("*.py")))
        shown = [block.text for block in self._blocks if block.language == "py"]
        assert shown
        assert [part for text in shown for part in _bare(text).strip().split("\n\n") if part not in code] == []

    def follow(self, number: int, *, exits: Mapping[str, int] | None = None) -> str:
        """Do what this step says, in order, and return what its commands print.

        `exits`: how commands end that do not with 0, by their last words.
        """
        exits = exits or {}
        step = [block for block in self._blocks if block.heading.startswith(f"{number}. ")]
        assert step, f"step {number}"
        commands = [line for block in step if block.language == "console" for line in block.text.splitlines()]
        assert not [end for end in exits if not any(line.endswith(end) for line in commands)]
        printed = ""
        for block in step:
            if block.language == "console":
                printed += self._type(block, exits)
            elif block.language == "diff":
                self._edit(block.text)
            elif block.language in ("python", "toml"):
                self._keep(block.text)
            else:
                continue
            self._followed.append(block.text)
        return printed

    def cron(self, command: str, *, exits_with: int = 0) -> None:
        """What the guide's crontab does when its line with this command is due."""
        [block] = [block for block in self._blocks if not block.language and command in block.text]
        self._followed.append(block.text)
        self.run(block.text[block.text.index("python ") :].strip(), exits_with=exits_with)

    def assert_all_was_followed(self) -> None:
        steps = [block.text for block in self._blocks if re.match(r"\d+\. ", block.heading)]
        assert [text for text in steps if text not in self._followed] == []

    def _keep(self, text: str) -> None:
        """The first line says where: `# FILE` or `# FILE, at the end`."""
        match = re.match(r"# (\S+?)(, at the end)?\n", text)
        assert match, text
        file = self.folder / match[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in file.relative_to(self.folder).parents:
            if file.suffix == ".py" and folder != Path():
                (self.folder / folder / "__init__.py").touch()
        file.write_text((file.read_text() if match[2] else "") + text)

    def _edit(self, text: str) -> None:
        """The first line says where: `# FILE`. A line without `-` or `+` is context; `…` parts two places."""
        head, _, rest = text.partition("\n")
        file = self.folder / head.removeprefix("# ")
        code = file.read_text()
        for place in re.split(r"^…\n", rest, flags=re.M):
            lines = place.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if not line.startswith("+"))
            new = "".join(line[1:] for line in lines if not line.startswith("-"))
            assert code.count(old) == 1, f"{code.count(old)} times in {file.name}:\n{old}"
            code = code.replace(old, new)
        file.write_text(code)

    def _type(self, block: Block, exits: Mapping[str, int]) -> str:
        """Each command. Lines that follow one are what it says: `…` stands for anything."""
        printed = ""
        for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            command, _, said = part.partition("\n")
            [code] = [code for end, code in exits.items() if command.endswith(end)] or [0]
            output = self.run(command, exits_with=code)
            wanted = ".*?".join(re.escape(text) for text in said.strip().split("…"))
            assert re.search(wanted, output, flags=re.S), f"{command}\n{output}"
            printed += output
        return printed

    # Its processes

    def run(self, command: str, *, exits_with: int = 0) -> str:
        """Run it and return what it prints; `export` is for the processes to come."""
        if export := re.fullmatch(r'export (\w+)="([^"]*)"', command):
            self.environment[export[1]] = export[2]
            return ""
        words = shlex.split(command)
        if words[0] != "python":
            subprocess.run(words, cwd=self.folder, check=True, timeout=PATIENCE)
            return ""
        code, printed, errors = self._spawn(words[1:])
        assert code == exits_with, f"{command}\n{printed}{errors}"
        assert "WARNINGS" not in errors + printed, errors
        return printed + errors

    def _spawn(self, argv: list[str], given: str = "") -> tuple[int, str, str]:
        """A process of the site: its exit code, and what it wrote to standard output and standard error."""
        if self._spawner is None:
            command = [sys.executable, HERE / "spawner.py"]
            self._spawner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._spawner.stdin
        assert self._spawner.stdout
        files = [self.folder.parent / name for name in ("given", "printed", "errors")]
        for file, text in zip(files, (given, "", ""), strict=True):
            file.write_text(text)
        job = dict(zip(("input", "output", "errors"), map(str, files), strict=True))
        job |= {"argv": argv, "cwd": str(self.folder), "env": self.environment}
        self._spawner.stdin.write(json.dumps(job) + "\n")
        self._spawner.stdin.flush()
        ended = self._spawner.stdout.readline()
        return int(ended), files[1].read_text(), files[2].read_text()

    # Its users, and Stripe

    def key(self, user: str) -> int:
        return list(self.users).index(user) + 1

    def subscribe(self, user: str, product: str, status: str = "active") -> None:
        terms = {"trial_period_days": 14} if status == "trialing" else {}
        wanted = {"customer": self.customers[user], "items": [{"price": self.prices[product]}], **terms}
        self.subscriptions[user] = self.stripe.call("POST", "/v1/subscriptions", wanted)["id"]
        if status in ("past_due", "unpaid"):
            self.stripe.set_status(self.subscriptions[user], status)
        elif status == "canceled":
            self.cancel(user)

    def cancel(self, user: str) -> None:
        self.stripe.cancel(self.subscriptions.pop(user))

    def renew_all(self) -> None:
        """A new period begins for everybody."""
        for subscription in self.subscriptions.values():
            self.stripe.renew(subscription)

    @contextmanager
    def days_ago(self, days: int) -> Iterator[None]:
        """What is done at Stripe meanwhile was done then. Of what is a minute old nobody says yet that it lacks."""
        now = self.stripe.clock.seconds
        self.stripe.clock.set(now - days * 86400)
        yield
        self.stripe.clock.set(now)

    def let_a_minute_pass(self) -> None:
        """What the site has heard of customers is a minute old from now on, and due."""
        with closing(sqlite3.connect(self.folder / "db.sqlite3")) as database, database:
            for column in ("hinted_at", "next_fetch_at"):
                database.execute(f"UPDATE entitlements_app_customer SET {column} = datetime({column}, '-2 minutes')")

    # What it answers

    def say(self, *users: str) -> Answers:
        """What these users may, or all, as the pages say it once the site was told what happened at Stripe."""
        deliveries = self._deliveries()
        asked = [(user, gate, page) for user in users or self.users for gate, page in self.pages.items()]
        told = self.ask([*deliveries, *({"user": user, "path": page.path} for user, _, page in asked)])
        assert {status for status, _ in told[: len(deliveries)]} <= {200}
        answers: Answers = {user: set() for user, _, _ in asked}
        for (user, gate, page), (status, text) in zip(asked, told[len(deliveries) :], strict=True):
            if page.says_yes(status, text):
                answers[user].add(gate)
        return answers

    def post(self, user: str, path: str) -> str:
        [(status, text)] = self.ask([{"user": user, "path": path, "post": True}])
        assert status == 200, text
        return text

    def assert_strangers_log_in(self, path: str) -> None:
        [(status, _)] = self.ask([{"user": None, "path": path}])
        assert status == 302

    def gates_that_differed(self) -> set[str]:
        """What the shadow of the last visits logged."""
        return {line for line in self.log.splitlines() if line.startswith("Gate ")}

    def lose_events(self) -> None:
        """Nobody is ever told what has happened at Stripe so far."""
        self._told.update(event["id"] for event in self.stripe.events())

    def ask(self, requests: list[dict[str, Any]]) -> list[tuple[int, str]]:
        """What the site answers, in a process of its own. What it logs meanwhile is kept in `log`."""
        code, printed, self.log = self._spawn([str(HERE / "ask.py")], json.dumps(requests))
        assert code == 0, self.log
        return [(status, text) for status, text in json.loads(printed)]

    def _deliveries(self) -> list[dict[str, Any]]:
        """What has happened since, in order, for each endpoint that listens."""
        requests = []
        for event in self.stripe.events()[::-1]:
            if event["id"] in self._told:
                continue
            self._told.add(event["id"])
            for path, (secret, types) in self.endpoints.items():
                if event["type"].startswith(types):
                    delivery = self.stripe.signed_delivery(event["id"], secret=secret)
                    headers = dict(delivery.headers)
                    requests.append({"user": None, "path": path, "body": delivery.body.decode(), "headers": headers})
        return requests
