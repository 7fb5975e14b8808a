"""The one entity of all measured services."""

from __future__ import annotations

from fastserve import Entity, Field, String

user = Entity("user", join_keys=Field("user_id", String))
