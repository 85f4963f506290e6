"""Settings of the example project: a small site with the app installed, and a simulated Stripe on this machine.

What is particular to entitlements stands at the end. Nothing here is a secret, and nothing here is for production.
"""

import os
from pathlib import Path

import django

from example_project import stripe_account

BASE_DIR = Path(__file__).resolve().parent.parent
DEMO_FOLDER = Path(os.environ.get("DEMO_FOLDER", BASE_DIR / ".demo"))


def _port(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise SystemExit(
            f"{name} must be a number from 1 to 65535, not {text!r}. For example: {name}={default} make demo"
        )
    return int(text)


PORT = _port("PORT", 8000)
STRIPE_PORT = _port("STRIPE_PORT", PORT + 4111 if PORT + 4111 <= 65535 else PORT - 4111)
if PORT == STRIPE_PORT:
    raise SystemExit(f"PORT and STRIPE_PORT are both {PORT}; the site and the simulated Stripe need one each.")

DEBUG = True
SECRET_KEY = "the-demo-has-no-secrets"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
LOGIN_URL = "sign-in"
TIME_ZONE = "UTC"
SESSION_COOKIE_NAME = f"entitlements_demo_{PORT}"  # cookies do not tell ports apart: leave other sites signed in

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "entitlements_app",
    "example_project.shop",
]

# No script, style or image but the site's own files, on any page, Django admin's included.
SECURE_CSP = {
    "default-src": ["'self'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "object-src": ["'none'"],
}
CSP_OF_DJANGO = "django.middleware.csp.ContentSecurityPolicyMiddleware"
CSP_HERE = "example_project.content_security_policy.middleware"

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    CSP_OF_DJANGO if django.VERSION >= (6, 0) else CSP_HERE,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "entitlements_app.middleware.EntitlementsMiddleware",  # after AuthenticationMiddleware
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "example_project.shop.page_frame.page_frame",
            ]
        },
    },
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "APP_DIRS": True,
        "OPTIONS": {"extensions": ["entitlements_app.jinja.EntitlementsExtension"]},
    },
]

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "entitlements_app.backends.EntitlementsBackend",  # after ModelBackend
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DEMO_FOLDER / f"site-{PORT}.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},  # a transaction waits its turn instead of failing half-way
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.BasicAuthentication",  # for curl
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "[{name}] {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "entitlements_app": {"handlers": ["console"], "level": "INFO"},
        "django.request": {"level": "ERROR"},  # a closed gate is no error
    },
}

BESIDE_DJSTRIPE = stripe_account.is_beside_djstripe(os.environ)
STRIPE = stripe_account.from_environment(
    os.environ, simulator=f"http://127.0.0.1:{STRIPE_PORT}", beside_djstripe=BESIDE_DJSTRIPE
)

if not BESIDE_DJSTRIPE:
    WEBHOOK_PATH = "/stripe/webhook/"

    ENTITLEMENTS_STRIPE_API_KEY = STRIPE.api_key
    ENTITLEMENTS_WEBHOOK_SECRETS = [STRIPE.webhook_secret]
    ENTITLEMENTS_STRIPE_API_BASE = STRIPE.api_base  # a site with a Stripe account leaves this out
    ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER = "example_project.shop.billing.find_user"  # of customers nobody has linked
else:  # key, mode, customers and webhooks are dj-stripe's; this app has them from there
    WEBHOOK_PATH = "/stripe/webhook/8f6a3c0e-5d5b-4f0a-9a43-6f1f0c9b7d21/"  # a row of dj-stripe's has this id

    INSTALLED_APPS += ["djstripe", "entitlements_app.contrib.djstripe"]
    STRIPE_LIVE_MODE = False
    STRIPE_TEST_SECRET_KEY = STRIPE.api_key
    if STRIPE.api_base is not None:
        STRIPE_API_HOST = STRIPE.api_base
    DJSTRIPE_FOREIGN_KEY_TO_FIELD = "id"
    MIGRATION_MODULES = {"djstripe": "entitlements_app.testing.djstripe_tables"}  # its own take a minute
    SILENCED_SYSTEM_CHECKS = ["djstripe.W002"]  # that Stripe is a simulated one is meant
