"""One change that somebody wants, from a form's first showing to the end of its last try.

The form's hidden idempotency key is made when it is first shown and kept for its re-submits, so that a double click, or
going back and sending it again, changes one thing. After a refusal, which changed nothing, there is a new key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.utils.translation import gettext as _

from entitlements_app.catalog import new_idempotency_key
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.stripe_client import KeyReused

_T = TypeVar("_T")

KEY = "idempotency_key"  # the name of the hidden input
_OURS = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Trouble:
    """Why it was not done, or is not known to be, and the idempotency key for the next try.

    `param`: Stripe's name of the parameter that is wrong, if it is one.
    """

    text: str
    key: str
    param: str = ""
    is_outage: bool = False


def get_key(posted: Any) -> str:
    """The key that a form has brought, or one for a form that is about to be shown."""
    key = str(posted.get(KEY, ""))
    return key if _OURS.fullmatch(key) else new_idempotency_key()


def attempt(key: str, change: Callable[[str], _T], *, is_known: bool = True) -> _T | Trouble:
    """Make a call of `catalog` with this idempotency key.

    `is_known`: an outage of which no idempotency key came means that nothing was done. So it is but for a deletion.
    """
    try:
        return change(key)
    except StripeUnavailable as error:
        text = _("Stripe gave no usable answer. %(error)s")
        if error.idempotency_key is None and is_known:
            text = _("Nothing was changed: Stripe gave no usable answer. %(error)s Try again later.")
        elif error.idempotency_key is None:
            text = _("Stripe gave no usable answer. %(error)s Whether it was done is not known. Try again: it is safe.")
        return Trouble(text % {"error": error}, error.idempotency_key or key, is_outage=True)
    except KeyReused:
        text = _(
            "This form was sent before, and said something else then, which may have been done. Look at what is there. "
            "What the form says now was not done: send it again if it is wanted as well."
        )
        return Trouble(text, new_idempotency_key())
    except (StripeRefused, ImproperlyConfigured) as error:
        text = _("Nothing was changed. %(error)s") % {"error": error}
        return Trouble(text, new_idempotency_key(), param=getattr(error, "param", ""))
    except ObjectDoesNotExist:
        return Trouble(_("Nothing was changed: it was deleted meanwhile."), new_idempotency_key())
