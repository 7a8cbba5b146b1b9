"""Simulated faults (LiveKit's `simulate`), which tests of SDKs request to see how a client recovers."""

from livekit.protocol.models import CLIENT_INITIATED, SERVER_SHUTDOWN, UNKNOWN_REASON
from livekit.protocol.rtc import TCP, TLS, UDP, LeaveRequest, RequestResponse, SimulateScenario

from signaling.errors import RequestRefused, SessionEnded
from signaling.participants.participant import Participant
from signaling.participants.sockets import CLOSE_RECONNECT
from signaling.records.fallbacks import Way

MAX_SPEECH_S = 60
WAYS = {UDP: Way.ANY, TCP: Way.TCP, TLS: Way.RELAY}
"""How a client is to connect, by the candidate protocol to which it switches."""


def run(participant: Participant, scenario: SimulateScenario) -> None:
    """Simulate the fault that `participant` asks for.

    Raises:
        RequestRefused: UNSUPPORTED_TYPE.
        SessionEnded: the scenario ends the session.
    """
    match scenario.WhichOneof("scenario"):
        case "speaker_update" if not participant.hidden:
            until = participant.node.clock() + min(scenario.speaker_update, MAX_SPEECH_S)
            participant.room.speakers.simulate(participant.sid, until)
        case "speaker_update":
            return  # the others would be told its name
        case "node_failure":
            # A node that fails says nothing: the socket breaks, and a resume finds nobody.
            participant.sockets.close(CLOSE_RECONNECT)
            participant.sockets.forget()
            participant.room.remove(participant, UNKNOWN_REASON)
        case "server_leave":
            raise SessionEnded(SERVER_SHUTDOWN, LeaveRequest.DISCONNECT, "simulated leave")
        case "leave_request_full_reconnect":
            raise SessionEnded(CLIENT_INITIATED, LeaveRequest.RECONNECT, "simulated full reconnect")
        case "disconnect_signal_on_resume" | "disconnect_signal_on_resume_no_messages":
            participant.disconnect_on_resume = True
        case "migration":
            participant.sockets.close(CLOSE_RECONNECT)
        case "subscriber_bandwidth":
            participant.subscriptions.simulate_capacity(scenario.subscriber_bandwidth)
        case "switch_candidate_protocol":
            # What can be restarted from here is; the SDKs then reconnect, and are given these candidates.
            way = WAYS.get(scenario.switch_candidate_protocol)
            if way is None:  # enums of proto3 hold any number
                raise RequestRefused(RequestResponse.UNSUPPORTED_TYPE, "no such candidate protocol")
            participant.node.fallbacks.set(participant.room.name, participant.identity, way)
            participant.renegotiation.resume()
        case other:
            raise RequestRefused(RequestResponse.UNSUPPORTED_TYPE, f"scenario {other} is not supported")
