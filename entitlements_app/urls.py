from django.urls import path

from .views import webhook

app_name = "entitlements"

urlpatterns = [
    path("webhook/", webhook, name="webhook"),
    # A redirect to the slash is a failed delivery to Stripe.
    path("webhook", webhook),
]
