"""The entities of an example feature repo, which type checkers see as any author's."""

from __future__ import annotations

from fastserve import Entity, Field, Int64, String

user = Entity("user", join_keys=[Field("user_id", String)], owner="risk")
merchant = Entity("merchant", join_keys=Field("merchant_id", Int64), tags={"team": "shops"})
