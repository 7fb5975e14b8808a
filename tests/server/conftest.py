from __future__ import annotations

import pytest

from tests.server.application_world import ApplicationWorld


@pytest.fixture
def world() -> ApplicationWorld:
    return ApplicationWorld()
