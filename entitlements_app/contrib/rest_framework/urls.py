from django.urls import path

from .views import EntitlementsView

app_name = "entitlements_api"  # `entitlements` is the webhook's

urlpatterns = [path("entitlements/", EntitlementsView.as_view(), name="entitlements")]
