from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

from example_project.shop import api, demo_sign_in, views

urlpatterns = [
    path("stripe/", include("entitlements_app.urls")),  # where Stripe delivers: /stripe/webhook/
    path("", views.home, name="home"),
    path("plan/", views.choose_plan, name="choose-plan"),
    path("support/", views.support, name="support"),
    path("reports/", views.reports, name="reports"),
    path("api/usage/", api.UsageView.as_view(), name="usage"),
    path("lose-webhook/", views.lose_webhook, name="lose-webhook"),
    path("ask-stripe/", views.ask_stripe, name="ask-stripe"),
    path("sign-in/", demo_sign_in.sign_in, name="sign-in"),
    path("sign-out/", demo_sign_in.sign_out, name="sign-out"),
    path("admin/", admin.site.urls),
    # Browsers ask for it where a page names no icon, as the API and Django admin do.
    path("favicon.ico", lambda _: HttpResponse(status=204)),
]

handler403 = "example_project.shop.views.denied"
