"""A feature server as a competent user of FastAPI and aiobotocore would write it, over the same rows.

Runs in an environment of its own and imports nothing of the project. It knows which tables make a service and
how their rows are laid out from `FEATURE_SERVICES`, JSON in the environment.

Invariants:
1. One BatchGetItem per request, all tables in it; what is unprocessed is asked for again.
2. What costs and needn't be is left out: no response model, no access log, one decoding for all rows.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

SERVICES: dict[str, dict[str, Any]] = orjson.loads(os.environ["FEATURE_SERVICES"])
_MAX_CONNECTIONS = 64


class Params(BaseModel):
    workspaceName: str  # noqa: N815 - the request's own spelling
    featureServiceName: str  # noqa: N815
    joinKeyMap: dict[str, str]  # noqa: N815


class FeaturesRequest(BaseModel):
    params: Params


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one client for all requests."""
    config = AioConfig(max_pool_connections=_MAX_CONNECTIONS)
    session = get_session()
    endpoint = os.environ["DYNAMODB_ENDPOINT"]
    async with session.create_client(
        "dynamodb", region_name="local", endpoint_url=endpoint, config=config
    ) as client:
        app.state.dynamodb = client
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.get("/health")  # type: ignore[untyped-decorator]
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/api/v1/feature-service/get-features")  # type: ignore[untyped-decorator]
async def get_features(body: FeaturesRequest, request: Request) -> Response:
    service = SERVICES.get(body.params.featureServiceName)
    if service is None:
        raise HTTPException(404, "no such feature service")
    key = body.params.joinKeyMap.get("user_id")
    if key is None:
        raise HTTPException(400, "user_id is missing")
    items = await read(request.app.state.dynamodb, service["tables"], key)
    rows = b"".join(items[table]["v"]["B"] for table in service["tables"])
    words = np.frombuffer(rows, "<f8").reshape(len(service["tables"]), service["row_words"])
    first = service["first_word"]
    vector = np.ascontiguousarray(words[:, first : first + service["features"]]).reshape(-1)
    content = orjson.dumps({"result": {"features": vector}}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


async def read(client: Any, tables: list[str], key: str) -> dict[str, Any]:
    """Read one key of all tables."""
    wanted = {table: {"Keys": [{"k": {"S": key}}]} for table in tables}
    found: dict[str, Any] = {}
    while wanted:
        answer = await client.batch_get_item(RequestItems=wanted)
        for table, items in answer["Responses"].items():
            found[table] = items[0]
        wanted = answer.get("UnprocessedKeys")
    return found
