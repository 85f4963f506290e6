"""What gunicorn serves: one site with this app's endpoint, dj-stripe's, and the floor. `bench.intake` starts it."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery
from django.conf import settings
from django.core.wsgi import get_wsgi_application

from bench.news_settings import settings_of_news

site: dict[str, Any] = json.loads(os.environ["BENCH_SITE"])
settings.configure(**settings_of_news(**site), ROOT_URLCONF="bench.intake_urls", ALLOWED_HOSTS=["*"])
celery = Celery("bench", broker=site["redis_url"])
celery.set_default()
application = get_wsgi_application()
