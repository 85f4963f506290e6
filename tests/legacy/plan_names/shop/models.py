from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    plan = models.CharField(max_length=20, default="free")
    trial_until = models.DateTimeField(null=True, blank=True)
