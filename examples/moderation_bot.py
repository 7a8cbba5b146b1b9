"""A moderator that is no participant: it hears of a room by webhooks, and acts by the server API.

    .venv/bin/pip install livekit-api starlette uvicorn
    export LIVEKIT_URL=http://127.0.0.1:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
    .venv/bin/python examples/moderation_bot.py 8000 mallory

The server has to know where it listens. `make run ARGS="--config webhook.yaml"` tells it, with this in that file:

    webhook: {api_key: devkey, urls: ["http://127.0.0.1:8000/webhook"]}

Who is named on the command line is removed when it joins. Who shares its screen without the attribute `role: host` is
muted, and told so by a message of the topic `moderation`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from livekit import api
from livekit.protocol.models import DataPacket, TrackSource
from livekit.protocol.webhook import WebhookEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOPIC = "moderation"


class Moderator:
    """Decides about one event after the other, in the order in which they came."""

    def __init__(self, banned: set[str]) -> None:
        self._banned = banned
        self._events: asyncio.Queue[WebhookEvent] = asyncio.Queue(maxsize=1_000)

    def put(self, event: WebhookEvent) -> bool:
        """Take an event to look at later; False: there are too many, so that the server has to send it again."""
        if self._events.full():
            return False
        self._events.put_nowait(event)
        return True

    async def run(self) -> None:
        """Look at all events until this is cancelled."""
        async with api.LiveKitAPI() as livekit:
            while True:
                event = await self._events.get()
                try:
                    await self._look_at(livekit, event)
                except api.TwirpError as error:
                    # Whom it is about may have left meanwhile.
                    print(f"{event.event}: {error.code}", flush=True)

    async def _look_at(self, livekit: api.LiveKitAPI, event: WebhookEvent) -> None:
        room, identity = event.room.name, event.participant.identity
        if event.event == "participant_joined" and identity in self._banned:
            await livekit.room.remove_participant(api.RoomParticipantIdentity(room=room, identity=identity))
            print(f"removed {identity}", flush=True)
        elif event.event == "track_published" and event.track.source == TrackSource.SCREEN_SHARE:
            # A message about a track names its participant and no more, so ask for the rest.
            asked = api.RoomParticipantIdentity(room=room, identity=identity)
            if (await livekit.room.get_participant(asked)).attributes.get("role") == "host":
                return
            await livekit.room.mute_published_track(
                api.MuteRoomTrackRequest(room=room, identity=identity, track_sid=event.track.sid, muted=True)
            )
            await livekit.room.send_data(
                api.SendDataRequest(
                    room=room,
                    data=json.dumps({"muted": event.track.sid}).encode(),
                    kind=DataPacket.RELIABLE,
                    destination_identities=[identity],
                    topic=TOPIC,
                )
            )
            print(f"muted the screen of {identity}", flush=True)


def build(moderator: Moderator) -> Starlette:
    """The application that takes webhooks. Answer soon: the server sends a room's events one after the other."""
    receiver = api.WebhookReceiver(api.TokenVerifier())

    async def webhook(request: Request) -> Response:
        body = (await request.body()).decode()
        try:
            event = receiver.receive(body, request.headers.get("authorization", ""))
        except Exception:  # livekit-api raises plain ones for a signature that is not right
            return Response(status_code=401)
        return Response(status_code=200 if moderator.put(event) else 503)

    @asynccontextmanager
    async def working(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(moderator.run())
        yield
        task.cancel()

    return Starlette(routes=[Route("/webhook", webhook, methods=["POST"])], lifespan=working)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    uvicorn.run(build(Moderator(set(sys.argv[2:]))), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
