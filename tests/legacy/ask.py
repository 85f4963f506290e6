"""Requests to a legacy site, in a process of their own, in its folder and with its settings.

Reads a JSON list of requests from standard input, each an object with `user` (a username, or nobody), `path`, and for a
delivery `body` and `headers`. Prints a JSON list of pairs: status, text.
"""

from __future__ import annotations

import json
import sys

import django
from django.contrib.auth import get_user_model
from django.test import Client

django.setup()
answers = []
clients: dict[str | None, Client] = {}
for request in json.load(sys.stdin):
    user = request["user"]
    if user not in clients:
        clients[user] = Client(raise_request_exception=False, SERVER_NAME="localhost")
        if user:
            clients[user].force_login(get_user_model().objects.get(username=user))
    if "body" in request:
        response = clients[user].post(
            request["path"],
            data=request["body"].encode(),
            content_type=request["headers"]["Content-Type"],
            headers={"Stripe-Signature": request["headers"]["Stripe-Signature"]},
        )
    elif request.get("post"):
        response = clients[user].post(request["path"])
    else:
        response = clients[user].get(request["path"])
    answers.append((response.status_code, response.content.decode()))
json.dump(answers, sys.stdout)
