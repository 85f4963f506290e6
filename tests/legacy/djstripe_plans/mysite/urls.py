from django.urls import include, path

urlpatterns = [
    path("", include("club.urls")),
    path("djstripe/", include("djstripe.urls", namespace="djstripe")),
]
