"""Make `parameters.json`: what each simulated call accepts, cut from Stripe's public OpenAPI specification.

    python -m entitlements_app.testing.simulator.extract_parameters openapi.spec3.json > parameters.json

Types, limits, enums and names are kept, texts are not. `LICENSE-stripe-openapi` covers the result.
"""

import json
import sys
from pathlib import Path
from typing import Any

PATHS = (
    "/v1/customers",
    "/v1/customers/{customer}",
    "/v1/entitlements/active_entitlements",
    "/v1/entitlements/active_entitlements/{id}",
    "/v1/entitlements/features",
    "/v1/entitlements/features/{id}",
    "/v1/events",
    "/v1/events/{id}",
    "/v1/products",
    "/v1/products/{id}",
    "/v1/products/{product}/features",
    "/v1/products/{product}/features/{id}",
    "/v1/subscriptions",
    "/v1/subscriptions/{subscription_exposed_id}",
    "/v1/webhook_endpoints",
    "/v1/webhook_endpoints/{webhook_endpoint}",
)
KEPT = ("type", "maxLength", "enum", "required", "properties", "items", "anyOf", "additionalProperties")
LONGEST_ENUM = 50
FORM = "application/x-www-form-urlencoded"


def reduce_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without texts; event and version enums, hundreds of names long, are dropped."""
    kept = {key: schema[key] for key in KEPT if schema.get(key) not in (None, [])}
    if len(kept.get("enum", ())) > LONGEST_ENUM:
        del kept["enum"]
    if "properties" in kept:
        kept["properties"] = {name: reduce_schema(part) for name, part in sorted(kept["properties"].items())}
    if "anyOf" in kept:
        kept["anyOf"] = [reduce_schema(part) for part in kept["anyOf"]]
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = reduce_schema(kept[key])
    return kept


def call_schema(operation: dict[str, Any]) -> dict[str, Any]:
    """One object schema for the query parameters and the form body of a call together."""
    query = [part for part in operation.get("parameters", ()) if part["in"] == "query"]
    form = operation.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema", {})
    properties = {part["name"]: part["schema"] for part in query} | form.get("properties", {})
    required = [part["name"] for part in query if part.get("required")] + form.get("required", [])
    return reduce_schema({"type": "object", "properties": properties, "required": sorted(required)})


def extract(specification: dict[str, Any]) -> dict[str, Any]:
    calls = {
        f"{method.upper()} {path}": call_schema(operation)
        for path in PATHS
        for method, operation in sorted(specification["paths"].get(path, {}).items())
        if method in ("get", "post", "delete")
    }
    return {
        "source": f"github.com/stripe/openapi, version {specification['info']['version']}",
        "licence": "MIT, see LICENSE-stripe-openapi",
        "calls": calls,
    }


def render(extracted: dict[str, Any]) -> str:
    """JSON with one line a call, so that a new version of the specification is a readable diff."""
    lines = [f"    {json.dumps(call)}: {json.dumps(schema)}" for call, schema in extracted["calls"].items()]
    head = "".join(f"  {json.dumps(key)}: {json.dumps(extracted[key])},\n" for key in ("source", "licence"))
    return "{\n" + head + '  "calls": {\n' + ",\n".join(lines) + "\n  }\n}\n"


if __name__ == "__main__":
    sys.stdout.write(render(extract(json.loads(Path(sys.argv[1]).read_text()))))
