from django.conf import settings
from django.db import models


class Profile(models.Model):
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="profile")
    stripe_customer_id = models.CharField(max_length=255, blank=True)
    subscription_status = models.CharField(max_length=20, blank=True)
    is_lifetime = models.BooleanField(default=False)

    def __str__(self):
        return f"Profile {self.pk}"

    @property
    def is_premium(self):
        return self.user.is_staff or self.is_lifetime or self.subscription_status in ("active", "trialing")
