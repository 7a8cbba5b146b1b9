"""The STUN and TURN servers that a client is told, with credentials of its own.

Who calls it: the answers to joins and resumes, and those of WHIP and WHEP.
"""

from livekit.protocol.rtc import ICEServer

from signaling.config.ice_servers import IceServerOptions, TurnServer
from signaling.turn.allocation.credentials import make_credentials


def ice_servers(options: IceServerOptions, holder: str, now: float) -> list[ICEServer]:
    """Return what LiveKit's messages call `ice_servers`; empty where the operator names none.

    Args:
        options: the operator's servers.
        holder: the sid of the participant, which its user names carry.
        now: the time of day in seconds since 1970, from which the validity of credentials counts.
    """
    told = [_turn(server, holder, now) for server in options.turn_servers]
    if options.stun_urls:
        told.append(ICEServer(urls=options.stun_urls))
    return told


def _turn(server: TurnServer, holder: str, now: float) -> ICEServer:
    secret = server.secret.get_secret_value()
    if not secret:
        credential = server.credential.get_secret_value()
        return ICEServer(urls=[server.url], username=server.username, credential=credential)
    made = make_credentials(secret, holder, server.ttl_s, now)
    return ICEServer(urls=[server.url], username=made.username, credential=made.password)
