"""What each call accepts, and the check of what it was given against that."""

import functools
import json
from pathlib import Path
from typing import Any

from . import errors

Schema = dict[str, Any]

METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500


@functools.cache
def load_calls() -> dict[str, Schema]:
    """Schemas by "METHOD /path/{id}": those of the specification, and the few calls taken from the SDK."""
    here = Path(__file__).parent
    files = [json.loads((here / name).read_text()) for name in ("parameters.json", "sdk_parameters.json")]
    calls: dict[str, Schema] = files[0]["calls"] | files[1]["calls"]
    return calls


def check(schema: Schema, value: Any, name: str = "") -> Any:
    """The value in its proper type. Raises the 400 that Stripe's API answers to a wrong one."""
    if "anyOf" in schema:
        return check(_choose(schema["anyOf"], value), value, name)
    return _CHECKS[schema["type"]](schema, value, name)


def _choose(options: list[Schema], value: Any) -> Schema:
    """The option the caller seems to have meant, so that the error speaks of that one."""
    named = [option for option in options if value in option.get("enum", ())]
    shaped = [option for option in options if (option["type"] in ("object", "array")) is isinstance(value, dict)]
    free = [option for option in shaped if "enum" not in option and value != ""]
    return [*named, *free, *options][0]


def _check_object(schema: Schema, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise errors.parameter_invalid("Invalid object", name)
    if "properties" not in schema and isinstance(schema.get("additionalProperties"), dict):
        return _check_map(value, name)
    properties = schema.get("properties", {})
    for key in value:
        if key not in properties:
            raise errors.parameter_unknown(_join(name, key))
    for key in schema.get("required", ()):
        if key not in value:
            raise errors.parameter_missing(_join(name, key))
    return {key: check(properties[key], part, _join(name, key)) for key, part in value.items()}


def _check_map(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Metadata: an empty value is allowed here, it removes the key."""
    if len(value) > METADATA_KEYS:
        raise errors.parameter_invalid(f"You can have at most {METADATA_KEYS} keys.", name)
    for key, part in value.items():
        if not isinstance(part, str):
            raise errors.parameter_invalid("Invalid string", _join(name, key))
        if len(key) > METADATA_KEY_LENGTH:
            message = f"Metadata keys can have up to {METADATA_KEY_LENGTH} characters."
            raise errors.parameter_invalid(message, name)
        if len(part) > METADATA_VALUE_LENGTH:
            message = f"Metadata values can have up to {METADATA_VALUE_LENGTH} characters."
            raise errors.parameter_invalid(message, _join(name, key))
    return dict(value)


def _check_array(schema: Schema, value: Any, name: str) -> list[Any]:
    if not isinstance(value, dict) or not all(key.isascii() and key.isdigit() for key in value):
        raise errors.parameter_invalid("Invalid array", name)
    ordered = sorted(value.items(), key=lambda item: int(item[0]))
    return [check(schema["items"], part, _join(name, key)) for key, part in ordered]


def _check_string(schema: Schema, value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise errors.parameter_invalid("Invalid string", name)
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(option for option in schema["enum"] if option)
        raise errors.parameter_invalid(f"Invalid {name}: must be one of {allowed}", name)
    if value == "" and "enum" not in schema:
        message = f"You passed an empty string for '{name}', which cannot be unset."
        raise errors.parameter_invalid(message, name, code="parameter_invalid_empty")
    longest = schema.get("maxLength", len(value))
    if len(value) > longest:
        raise errors.parameter_invalid(f"Invalid string: must be at most {longest} characters", name)
    return value


def _check_integer(_: Schema, value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise errors.parameter_invalid(f"Invalid integer: {value}", name, code="parameter_invalid_integer") from None


def _check_number(_: Schema, value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise errors.parameter_invalid(f"Invalid decimal: {value}", name) from None


def _check_boolean(_: Schema, value: Any, name: str) -> bool:
    if value not in ("true", "false"):
        raise errors.parameter_invalid(f"Invalid boolean: {value}", name)
    return bool(value == "true")


_CHECKS = {
    "object": _check_object,
    "array": _check_array,
    "string": _check_string,
    "integer": _check_integer,
    "number": _check_number,
    "boolean": _check_boolean,
}


def _join(name: str, key: str) -> str:
    return f"{name}[{key}]" if name else key
