"""`user.has_perm("entitlements.premium_support")`: entitlements as Django permissions."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import BaseBackend

from .access import Entitlements, get_entitlements
from .subscribers import is_subscriber

logger = logging.getLogger(__name__)

LABEL = "entitlements"


class EntitlementsBackend(BaseBackend):
    """Answers permissions of the made-up label `entitlements`, and no others. Goes after `ModelBackend`.

    The lookup key is all that follows the first dot. Inactive and anonymous users have none, superusers all, as
    everywhere in Django. Where users are the subscribers, the object is left out, or is that user. Where another model
    is, pass its instance as the object: `user.has_perm("entitlements.sso", organisation)`. Without one the answer is
    no, and logged once; an instance of any other model raises `TypeError`. Each call asks anew: nothing is kept on
    the user object, so that one that lives long is never behind.
    """

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Raises `TypeError` for `"entitlements."`, which names no key, and for what is no text."""
        if not isinstance(perm, str):
            raise TypeError(f"A permission is a text, not {perm!r}.")
        label, _, key = perm.partition(".")
        if label != LABEL:
            return False
        if not key:
            raise TypeError('Name a lookup key after the dot: "entitlements.premium_support".')
        return _entitlements(user_obj, obj)[key]

    async def ahas_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return await sync_to_async(self.has_perm)(user_obj, perm, obj)

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Whether the user holds any: `{% if perms.entitlements %}`."""
        return app_label == LABEL and bool(_entitlements(user_obj, None))

    async def ahas_module_perms(self, user_obj: Any, app_label: str) -> bool:
        return await sync_to_async(self.has_module_perms)(user_obj, app_label)

    def get_user_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Ours among `user.get_all_permissions(obj)`; none, and no error, for what is no subscriber."""
        if not is_subscriber(user_obj if obj is None else obj):
            return set()
        return {f"{LABEL}.{key}" for key in _entitlements(user_obj, obj)}


def _entitlements(user: Any, obj: Any) -> Entitlements:
    if not user.is_active:  # as an anonymous one is
        return get_entitlements(None)
    user_pays = is_subscriber(user)
    if obj is None and not user_pays:  # of no organisation, or the site forgot to pass it
        _say_once_what_is_asked_for()
        return get_entitlements(None)
    if user_pays and is_subscriber(obj) and obj != user:
        return get_entitlements(None)  # what another user pays for is not this one's
    return get_entitlements(user if obj is None else obj)


@cache
def _say_once_what_is_asked_for() -> None:
    logger.warning(
        "A permission of the label 'entitlements' was asked without an object, and users are not the subscribers "
        "(ENTITLEMENTS_SUBSCRIBER_MODEL). The answer is no. Pass the subscriber: "
        "user.has_perm('entitlements.sso', organisation)."
    )
