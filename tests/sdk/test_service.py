from __future__ import annotations

import pytest

from fastserve import Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Int64, String
from fastserve.sdk.checks import collecting
from tests.sdk.authoring import fault_of

USER = Entity("user", Field("user_id", String))
SHOP = Entity("shop", Field("shop_id", Int64))
FILES = FileSource("f", "f.csv")
AGE = Attribute("age", Int64)
USERS = FeatureView("users", USER, FILES, [AGE])
VISITS = FeatureView("visits", [SHOP, USER], FILES, [Attribute("n", Int64), Attribute("m", Int64)])
NAMES: dict[str, object] = {"USERS": USERS, "VISITS": VISITS, "AGE": AGE}


def test_whole_views_and_parts_of_them_become_references() -> None:
    service = FeatureService("fraud:v2", [USERS, VISITS[["m"]].with_name("v")])
    assert [(r.view, r.name, r.features) for r in service.references] == [
        (USERS, "users", ("age",)),
        (VISITS, "v", ("m",)),
    ]


def test_the_request_keys_stand_in_the_order_in_which_they_appear_once_each() -> None:
    service = FeatureService(
        "s", [VISITS, USERS, USERS.with_name("b").with_join_key_map({"user_id": "user_b"})]
    )
    assert service.join_keys == (Field("shop_id", Int64), Field("user_id", String), Field("user_b", String))


KIND = "FeatureView or OnDemandFeatureView, whole or selected from"


@pytest.mark.parametrize(
    "arguments,message",
    [
        ("[]", f"features (expected at least one {KIND}, got [])"),
        ("['users']", f"features[0] (expected {KIND}, got 'users')"),
        ("[[USERS]]", f"features[0] (expected {KIND}, got [FeatureView('users')])"),
        ("[AGE]", f"features[0] (expected {KIND}, got Attribute('age', Int64))"),
        ("FeatureView", f"features (expected a list of {KIND}, got the class FeatureView)"),
        (
            "[USERS, USERS]",
            (
                "features: the view name 'users' stands there twice "
                '(expected different names; with_name("…") gives one of them another)'
            ),
        ),
        (
            "[USERS, VISITS.with_name('users')]",
            (
                "features: the view name 'users' stands there twice "
                '(expected different names; with_name("…") gives one of them another)'
            ),
        ),
        (
            "[USERS, VISITS.with_join_key_map({'shop_id': 'user_id', 'user_id': 'buyer'})]",
            (
                "join key 'user_id' of view 'visits' (expected String as in view 'users', "
                "or another name by with_join_key_map, got Int64)"
            ),
        ),
    ],
)
def test_a_wrong_service_says_what_was_expected_and_what_came(arguments: str, message: str) -> None:
    assert fault_of(f'FeatureService("s", {arguments})', **NAMES) == f"FeatureService 's': {message}"


def test_a_services_name_may_hold_a_colon_and_no_space() -> None:
    assert FeatureService("fraud:v2.1-a_b", [USERS]).name == "fraud:v2.1-a_b"
    assert fault_of('FeatureService("a b", [USERS])', **NAMES).startswith(
        "FeatureService 'a b': name (expected a letter"
    )


def test_a_service_of_an_invalid_view_is_invalid_and_says_nothing_more() -> None:
    with collecting() as collector:
        view = FeatureView("v", USER, FILES, [Attribute("a", "text")])  # type: ignore[call-overload]
        service = FeatureService("s", [view[["b"]].with_join_key_map({"c": "d"})])
    assert not service.valid
    assert len(collector.errors) == 1
