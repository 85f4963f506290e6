"""Started, stopped, as a fixture and as a command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import stripe
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from entitlements_app.access import has_entitlement
from entitlements_app.linking import link
from entitlements_app.testing import StripeSimulator
from tests.rows import make_subscriber
from tests.simulator.tools import SETTINGS, ask_in_vain, client_for, plan, wait_until


class TestLifetime:
    def test_stopping_leaves_no_thread_behind(self, receiver):
        before = set(threading.enumerate())
        simulator = StripeSimulator(retry_delays=(60,)).start()
        url = simulator.url
        simulator.add_webhook_endpoint(receiver.url)
        receiver.answers = [500]
        client_for(simulator).v1.customers.create({})
        wait_until(lambda: simulator.deliveries)
        receiver.gate.clear()
        simulator.create_customer()
        wait_until(lambda: len(receiver.received) == 2)
        simulator.slow(60)
        asking = threading.Thread(target=ask_in_vain, args=(client_for(simulator),))
        asking.start()
        wait_until(lambda: len(set(threading.enumerate()) - before) >= 5)
        began = time.monotonic()
        simulator.stop()
        assert time.monotonic() - began < 20
        receiver.gate.set()
        asking.join(5)
        wait_until(lambda: not [t for t in set(threading.enumerate()) - before if "stripe" in t.name])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1)

    def test_a_stopped_simulator_can_start_again_with_what_it_knew(self, receiver):
        simulator = StripeSimulator()
        simulator.add_webhook_endpoint(receiver.url)
        acme = simulator.create_customer()["id"]
        with simulator:
            simulator.wait_for_deliveries()
            assert client_for(simulator).v1.customers.retrieve(acme).id == acme
        with pytest.raises(RuntimeError):
            simulator.url  # noqa: B018
        with simulator:
            assert client_for(simulator).v1.customers.retrieve(acme).id == acme

    def test_many_threads_lose_nothing(self, simulator):
        def work():
            for _ in range(20):
                client_for(simulator).v1.customers.create({})

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(simulator.events("customer.created")) == 100

    def test_a_call_does_not_wait_for_the_network_stack(self, simulator, client):
        client.v1.customers.list()
        took = []
        for _ in range(20):
            began = time.monotonic()
            client.v1.customers.list()
            took.append(time.monotonic() - began)
        assert min(took) < 0.03, "a delayed acknowledgement takes 40 ms, each time"

    def test_importing_the_plugin_and_the_names_imports_nothing_of_django(self):
        code = (
            "import sys, entitlements_app.testing.pytest_plugin\n"
            "from entitlements_app.testing import StripeSimulator\n"
            "assert not [name for name in sys.modules if name.partition('.')[0] in ('django', 'stripe')]"
        )
        environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class TestFixture:
    @pytest.fixture
    def client(self):
        return Client(enforce_csrf_checks=True)

    @pytest.fixture
    def restored(self):
        """Wraps `stripe_simulator`, if it is asked for before it."""
        before = {name: getattr(settings, name, None) for name in SETTINGS}
        yield
        assert {name: getattr(settings, name, None) for name in SETTINGS} == before

    def test_it_is_a_running_simulator_that_the_app_is_pointed_at(self, restored, stripe_simulator):
        assert client_for(stripe_simulator).v1.customers.list().data == []
        pointed_at = [getattr(settings, name) for name in SETTINGS]
        assert pointed_at == [stripe_simulator.api_key, stripe_simulator.url, [stripe_simulator.webhook_secret], False]

    @pytest.mark.django_db
    def test_what_is_subscribed_to_and_delivered_opens_the_gate(self, stripe_simulator, client):
        ada, customer = make_subscriber(), stripe_simulator.create_customer()
        link(ada, customer["id"])

        subscription = stripe_simulator.subscribe(customer, plan(stripe_simulator, "premium_support"))
        responses = stripe_simulator.deliver(client)

        in_order = [event["id"] for event in stripe_simulator.events()][::-1]
        assert [response.content.decode() for response in responses] == in_order
        assert {response.status_code for response in responses} == {200}
        assert has_entitlement(ada, "premium_support")

        assert stripe_simulator.deliver(client) == []
        stripe_simulator.cancel(subscription)
        stripe_simulator.deliver(client)
        assert not has_entitlement(ada, "premium_support")

    def test_another_path_can_be_named(self, stripe_simulator, client):
        stripe_simulator.create_customer()
        (response,) = stripe_simulator.deliver(client, path="/nowhere/")
        assert response.status_code == 404

    def test_without_django_it_is_just_a_simulator(self, tmp_path):
        (tmp_path / "test_bare.py").write_text(
            "from django.conf import settings\n"
            "def test_bare(stripe_simulator):\n"
            "    assert stripe_simulator.create_customer()['id'] and not settings.configured\n"
        )
        environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bare.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert "1 passed" in done.stdout, done.stdout + done.stderr


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path):
        """Start the command in a project of its own, that has nothing but the app."""
        (tmp_path / "bare_settings.py").write_text(
            "SECRET_KEY = 'x'\nUSE_TZ = True\n"
            "INSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'entitlements_app']\n"
        )
        processes = []

        def start(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "django", "entitlements_simulator", *arguments],
                cwd=tmp_path,
                env={**os.environ, "DJANGO_SETTINGS_MODULE": "bare_settings", "PYTHONPATH": str(tmp_path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            return process

        yield start
        for process in processes:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("stop_with", [signal.SIGINT, signal.SIGTERM])
    def test_it_serves_a_seeded_catalogue_until_interrupted(self, run, receiver, tmp_path, stop_with):
        seed = {
            "features": [{"lookup_key": "sso"}, {"lookup_key": "reports", "name": "Reports"}],
            "products": [{"name": "Pro", "features": ["sso", "reports"], "prices": [{"unit_amount": 2000}]}],
            "customers": [{"email": "ada@example.com", "subscribe_to": "Pro"}, {"name": "Bob"}],
        }
        (tmp_path / "catalogue.json").write_text(json.dumps(seed))
        process = run("--port", "0", "--webhook-url", receiver.url, "--seed-file", "catalogue.json")
        head = list(iter(process.stdout.readline, "Stop with Ctrl-C.\n"))
        settings = dict(line.strip().split(" = ") for line in head if " = " in line)
        url = json.loads(settings["ENTITLEMENTS_STRIPE_API_BASE"])
        key = json.loads(settings["ENTITLEMENTS_STRIPE_API_KEY"])
        (secret,) = json.loads(settings["ENTITLEMENTS_WEBHOOK_SECRETS"])
        client = stripe.StripeClient(key, base_addresses={"api": url})
        (ada,) = client.v1.customers.list({"email": "ada@example.com"}).data
        grants = client.v1.entitlements.active_entitlements.list({"customer": ada.id}).data
        assert sorted(grant.lookup_key for grant in grants) == ["reports", "sso"]
        client.v1.customers.create({})
        wait_until(lambda: receiver.received)
        body, signature, _ = receiver.received[0]
        assert stripe.Webhook.construct_event(body, signature, secret).type == "customer.created"
        while "customer.created" not in (line := process.stdout.readline()):
            assert line
        assert line.rstrip().endswith("attempt 1: 200")
        process.send_signal(stop_with)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("Stopped.\n")

    def test_without_a_webhook_url_it_says_that_none_are_sent_and_how_to_reach_it(self, run):
        process = run("--port", "0")
        head = "".join(iter(process.stdout.readline, "Stop with Ctrl-C.\n"))
        assert "Add --webhook-url http://127.0.0.1:8000/stripe/webhook/ to send them." in head
        assert "It forgets everything when it stops." in head
        (line,) = [line for line in head.splitlines() if line.startswith("stripe.StripeClient")]
        assert eval(line).v1.customers.list().data == []

    def test_what_it_cannot_do_is_said_in_one_line(self, simulator, tmp_path):
        port = simulator.url.rpartition(":")[2]
        for name, content in {"bad": '{"products": [{"name": "Pro", "features": ["missing"]}]}', "no": "{"}.items():
            (tmp_path / f"{name}.json").write_text(content)
        (tmp_path / "odd.json").write_text('{"plans": []}')
        (tmp_path / "list.json").write_text('{"products": [{"name": "Pro", "features": 5}]}')
        for arguments, message in [
            (["--port", port], f"Cannot listen on port {port}: Address already in use. Choose another with --port."),
            (["--port", "65536"], "--port must be a number from 0 to 65535, not '65536'."),
            (["--port", "http"], "--port must be a number from 0 to 65535, not 'http'."),
            (["--webhook-secret", ""], "--webhook-secret must be one word, and not empty"),
            (["--api-key", ""], "--api-key must be one word that starts with sk_test_"),
            (["--api-key", "pk_test_1"], "--api-key must be one word that starts with sk_test_"),
            (["--api-key", "sk_test_a b"], "--api-key must be one word that starts with sk_test_"),
            (["--seed-file", ""], "--seed-file must name a file."),
            (["--seed-file", "none.json"], "Cannot read the seed file none.json: No such file or directory."),
            (["--seed-file", str(tmp_path / "bad.json")], "no feature 'missing'; there is none."),
            (["--seed-file", str(tmp_path / "list.json")], "features must be a list of lookup keys, not 5."),
            (["--seed-file", str(tmp_path / "no.json")], "Expecting property name"),
            (["--seed-file", str(tmp_path / "odd.json")], "unknown plans."),
            (["--webhook-url", "https://example.com/"], "it does not start with http:// and a host."),
        ]:
            with pytest.raises(CommandError, match=re.escape(message)) as refused:
                call_command("entitlements_simulator", *arguments)
            assert "\n" not in str(refused.value)
            assert ".." not in str(refused.value)
            assert "Errno" not in str(refused.value)
