"""Asking for a vector on a service's page: the form that the script sends, and the same as a curl command.

Where nobody may ask here (`trial.Policy`) the reason stands in the form's place, and the command below it.

Invariants
1. What stands in the form are names and types, never values.
"""

from __future__ import annotations

import json

from fastserve.api.openapi_types import examples
from fastserve.plan.service import ServicePlan
from fastserve.sdk.types import Array, Field, Map, Struct
from fastserve.server.console.html import Html, tag
from fastserve.server.console.layout import code, section
from fastserve.server.console.trial import GET_FEATURES, Policy


def query_section(plan: ServicePlan, policy: Policy, time: str) -> Html:
    """Return the section; ``time`` is what the example's timestamps are."""
    if not policy.is_open:
        return section(
            "try", "Try a query", tag("p", policy.reason, class_="note"), _curl(plan, policy, time)
        )
    fields = [_field("key", field) for field in plan.join_keys]
    fields += [_field("context", field) for field in plan.context_fields]
    if policy.needs_key:
        fields.append(_api_key())
    form = tag(
        "form",
        tag("div", *fields, class_="fields"),
        tag(
            "div",
            tag("button", "Ask", type="submit", class_="first"),
            tag("button", "Copy as curl", type="button", data_copy=True),
            tag("span", "", role="status", class_="told", data_told=True),
            class_="buttons",
        ),
        class_="try",
        autocomplete="off",
        data_service=plan.name,
        data_workspace=plan.workspace,
        data_needs_key=policy.needs_key,
    )
    answered = tag("div", aria_live="polite", data_answer=True)
    return section(
        "try",
        "Try a query",
        tag("noscript", tag("p", "The form needs JavaScript; the command below doesn't.", class_="note")),
        form,
        _curl(plan, policy, time),
        answered,
    )


def _field(kind: str, field: Field) -> Html:
    identity = f"{kind}-{field.name}"
    shared = {
        "id": identity,
        "data_kind": kind,
        "data_name": field.name,
        "data_type": str(field.dtype),
        "spellcheck": "false",
    }
    nested = isinstance(field.dtype, (Array, Map, Struct))
    entry = (
        tag("textarea", rows=2, placeholder="JSON", **shared)
        if nested
        else tag("input", type="text", autocapitalize="none", **shared)
    )
    return tag(
        "div",
        tag("label", code(field.name), tag("span", str(field.dtype), class_="type"), for_=identity),
        entry,
        tag(
            "label",
            tag("input", type="checkbox", data_null=identity, aria_label=f"{field.name} is null"),
            "null",
            class_="null",
        ),
        class_="field",
    )


def _api_key() -> Html:
    return tag(
        "div",
        tag("label", "API key", for_="api-key"),
        tag("input", id="api-key", type="password", autocomplete="off", spellcheck="false"),
        tag("span", "Sent with this query and kept nowhere.", class_="remark"),
        class_="field wide",
    )


def _curl(plan: ServicePlan, policy: Policy, time: str) -> Html:
    return tag(
        "pre",
        tag("code", curl_text(plan, policy, time), data_curl=True),
        class_="curl",
        tabindex=0,
        aria_label="The query as a curl command",
    )


def curl_text(plan: ServicePlan, policy: Policy, time: str) -> str:
    """Return a command that asks for a vector, with values of the right types."""
    params: dict[str, object] = {
        "workspaceName": plan.workspace,
        "featureServiceName": plan.name,
        "joinKeyMap": examples(plan.join_keys, time),
    }
    if plan.context_fields:
        params["requestContextMap"] = examples(plan.context_fields, time)
    lines = [f"curl -s {policy.serving_url}{GET_FEATURES}"]
    if policy.needs_key:
        lines.append('-H "Authorization: Tecton-key $FASTSERVE_API_KEY"')
    body = json.dumps({"params": params}, ensure_ascii=False)
    lines.append(f"-d {_quoted(body)}")
    return " \\\n  ".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
