from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from entitlements_app.decorators import entitlement_required
from example_project.settings import BESIDE_DJSTRIPE
from example_project.shop import api, demo_sign_in, gate_views, views

urlpatterns = [
    # Where Stripe delivers: /stripe/webhook/
    path("stripe/", include("djstripe.urls" if BESIDE_DJSTRIPE else "entitlements_app.urls")),
    # The gates, one spelling each; what they guard and how they are shown stands in shop/gates.py.
    path("gates/request/", gate_views.request, name="request"),
    path("gates/block/", gate_views.block, name="block"),
    path("gates/filter/", gate_views.filter_, name="filter"),
    path("gates/jinja/", gate_views.jinja, name="jinja"),
    path("support/", gate_views.support, name="support"),
    path("tokens/", gate_views.tokens, name="tokens"),
    path("exports/", gate_views.Exports.as_view(), name="exports"),
    path("reports/", entitlement_required("advanced_reporting")(include("example_project.shop.reports"))),
    path("gates/permission/", gate_views.permission, name="permission"),
    path("gates/code/", gate_views.code, name="code"),
    path("gates/api/", gate_views.api, name="api"),
    path("gates/api-composed/", gate_views.api_composed, name="api-composed"),
    path("api/usage/", api.Usage.as_view(), name="usage"),
    path("api/members/", api.Members.as_view(), name="members"),
    # What a front end asks: /api/entitlements/
    path("api/", include("entitlements_app.contrib.rest_framework.urls")),
    # Where a checkout returns to: waits until the gates know, then goes on.
    path("welcome/", views.Welcome.as_view(), name="welcome"),
    # The rest of the site
    path("", views.home, name="home"),
    path("catalogue/", views.catalogue, name="catalogue"),
    path("plan/", views.choose_plan, name="choose-plan"),
    path("plan/try/", views.try_plan, name="try-plan"),
    path("plan/cancel-at-period-end/", views.cancel_at_period_end, name="cancel-at-period-end"),
    path("news/", views.tell_news, name="news"),
    path("lose-webhook/", views.lose_webhook, name="lose-webhook"),
    path("ask-stripe/", views.ask_stripe, name="ask-stripe"),
    path("sign-in/", demo_sign_in.sign_in, name="sign-in"),
    path("sign-out/", demo_sign_in.sign_out, name="sign-out"),
    path("admin/", admin.site.urls),
    # Browsers ask for it where a page names no icon, as the API and Django admin do.
    path("favicon.ico", RedirectView.as_view(url="/static/shop/icon.svg")),
]

handler403 = "example_project.shop.views.denied"
