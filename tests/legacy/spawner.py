"""Processes of a legacy site, each forked from one that has imported Django already: a third of the time.

Nothing of a site is imported here, and no setting read. A line of JSON on standard input is a job; its exit code is
printed when it has ended.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from typing import Any

for name in (
    "django.core.mail",
    "django.core.management.commands.shell",
    "django.core.management.commands.migrate",
    "django.db.backends.sqlite3.base",
    "django.db.models",
    "django.forms",
    "django.template.loader",
    "django.test.client",
    "django.views.generic",
    "stripe",
):
    importlib.import_module(name)


def work(job: dict[str, Any]) -> int:
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    for target, file in enumerate((job["input"], job["output"], job["errors"])):
        os.dup2(os.open(file, os.O_RDONLY if target == 0 else os.O_WRONLY), target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for as long as the process
    sys.argv = job["argv"]
    sys.path[0] = job["cwd"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
        return 1
    return 0


for line in sys.stdin:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201
    else:
        sys.exit(work(json.loads(line)))
