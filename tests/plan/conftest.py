from __future__ import annotations

import pytest

from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import Repo, load_repo
from tests.support.shop_repo import write_shop_repo


@pytest.fixture(scope="session")
def shop_repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return load_repo(write_shop_repo(tmp_path_factory.mktemp("shop")))


@pytest.fixture(scope="session")
def shop_plan(shop_repo: Repo) -> WorkspacePlan:
    return plan_workspace(shop_repo, "p_")
