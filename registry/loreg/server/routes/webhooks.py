"""Routes of webhooks: who is told of events, and what was sent."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Path, Response

from loreg.entities import Page, Webhook, WebhookDelivery
from loreg.schemas import WebhookCreated, WebhookPing, WebhookRequest, WebhookRotation
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses, json_response, no_content
from loreg.server.state import AsyncBackendDep

routes = APIRouter(prefix="/api/v1", tags=["webhooks"], route_class=BodyRoute)
WebhookId = Annotated[int, Path(ge=1, lt=2**31)]
DeliveryId = Annotated[int, Path(ge=1, lt=2**53)]


@routes.get("/webhooks", response_model=tuple[Webhook, ...], responses=error_responses())
async def webhooks(backend: AsyncBackendDep) -> Response:
    """List the webhooks that the caller may change, the newest first."""
    return json_response(await backend.webhooks())


@routes.post("/webhooks", status_code=201, response_model=WebhookCreated, responses=error_responses())
async def add_webhook(body: WebhookRequest, backend: AsyncBackendDep) -> Response:
    """Tell a URL of events from now on. The answer is the only one that has the secret that signs them."""
    created = await backend.add_webhook(body.url, body.patterns, body.actions, body.name)
    return json_response(WebhookCreated(*created), 201)


@routes.delete("/webhooks/{webhook_id}", status_code=204, responses=error_responses(404))
async def remove_webhook(webhook_id: WebhookId, backend: AsyncBackendDep) -> Response:
    """Remove a webhook, and what waits to be sent to it."""
    await backend.remove_webhook(webhook_id)
    return no_content()


@routes.put("/webhooks/{webhook_id}/secret", response_model=WebhookCreated, responses=error_responses(404, 409))
async def rotate_webhook(webhook_id: WebhookId, body: WebhookRotation, backend: AsyncBackendDep) -> Response:
    """Give a webhook another secret, which signs beside the one before, or drop the older one."""
    return json_response(WebhookCreated(*await backend.rotate_webhook(webhook_id, body.drop_old)))


@routes.put("/webhooks/{webhook_id}/enabled", response_model=Webhook, responses=error_responses(404))
async def enable_webhook(webhook_id: WebhookId, backend: AsyncBackendDep) -> Response:
    """Tell a webhook that was disabled of events again."""
    return json_response(await backend.enable_webhook(webhook_id))


@routes.post("/webhooks/{webhook_id}/ping", status_code=202, response_model=WebhookPing, responses=error_responses(404))
async def ping_webhook(webhook_id: WebhookId, backend: AsyncBackendDep) -> Response:
    """Queue a ping for a webhook; the answer has the id of the delivery."""
    return json_response(WebhookPing(await backend.ping_webhook(webhook_id)), 202)


@routes.get("/webhooks/{webhook_id}/deliveries", response_model=Page[WebhookDelivery], responses=error_responses(404))
async def deliveries(
    webhook_id: WebhookId, backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Return a page of what was sent to a webhook and waits to be, the newest first."""
    return await page_response(functools.partial(backend.webhook_deliveries, webhook_id), limit, cursor)


@routes.put(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}", response_model=WebhookDelivery, responses=error_responses(404)
)
async def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, backend: AsyncBackendDep) -> Response:
    """Queue a delivery again, under its id."""
    return json_response(await backend.redeliver(webhook_id, delivery_id))
