"""GStreamer's webrtcbin publishes a tone and a picture by WHIP, until it is interrupted.

    /usr/bin/python3 gstreamer_publisher.py URL TOKEN vp8|h264 trickle|whole [TURN_URI]
    /usr/bin/python3 gstreamer_publisher.py --check

It is a program of its own, for the system's Python: GStreamer's bindings are none of a virtual environment. It prints
each answer of the server and each state. With a TURN_URI it uses relays only. --check fails if anything is missing.
"""

import importlib
import signal
import sys
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin

gi = importlib.import_module("gi")
for namespace in ("Gst", "GstSdp", "GstWebRTC"):
    gi.require_version(namespace, "1.0")
GLib, Gst, GstSdp, GstWebRTC = (
    importlib.import_module(f"gi.repository.{namespace}") for namespace in ("GLib", "Gst", "GstSdp", "GstWebRTC")
)

ELEMENTS = ("webrtcbin", "nicesrc", "dtlsdec", "srtpenc", "opusenc", "rtpopuspay", "vp8enc", "rtpvp8pay")
ELEMENTS_OF_H264 = ("openh264enc", "h264parse", "rtph264pay")
SOUND = "audiotestsrc is-live=true freq=440 ! audioconvert ! opusenc ! rtpopuspay pt=111 ! queue"
PICTURE = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! videoconvert ! queue"
CODECS = {
    "vp8": "vp8enc deadline=1 ! rtpvp8pay pt=96 ! application/x-rtp,media=video,encoding-name=VP8,payload=96",
    "h264": "openh264enc ! h264parse ! rtph264pay config-interval=-1 pt=102 ! "
    "application/x-rtp,media=video,encoding-name=H264,payload=102,packetization-mode=(string)1",
}
OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=111"


def tell(text: str) -> None:
    """Write a line that the test can read."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Publisher:
    """One session."""

    def __init__(self, url: str, token: str, codec: str, trickles: bool, turn: str) -> None:
        self.loop = GLib.MainLoop()
        self._url, self._token, self._trickles = url, token, trickles
        self._place, self._tag = "", ""
        self._offer = ""
        self._reply: Any = None
        self._candidates: list[str] = []
        self._lock = threading.Lock()
        relay = f'turn-server="{turn}" ice-transport-policy=relay' if turn else ""
        self._pipeline = Gst.parse_launch(
            f"webrtcbin name=rtc bundle-policy=max-bundle {relay} "
            f"{PICTURE} ! {CODECS[codec]} ! rtc. {SOUND} ! {OPUS} ! rtc."
        )
        self._rtc = self._pipeline.get_by_name("rtc")
        self._rtc.connect("on-negotiation-needed", self._negotiate)
        self._rtc.connect("on-ice-candidate", self._gathered)
        for state in ("connection-state", "ice-connection-state", "ice-gathering-state"):
            self._rtc.connect(f"notify::{state}", self._changed, state)

    def run(self) -> None:
        """Publish until SIGINT."""
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, self._end)
        self._pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self._pipeline.set_state(Gst.State.NULL)

    def _end(self) -> bool:
        if self._place:
            self._ask("DELETE", self._place)
        self.loop.quit()
        return False

    def _negotiate(self, rtc: Any) -> None:
        rtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self._offered, None))

    def _offered(self, promise: Any, _: object) -> None:
        promise.wait()
        self._reply = promise.get_reply()  # which owns the offer
        offer = self._reply.get_value("offer")
        self._rtc.emit("set-local-description", offer, Gst.Promise.new())
        if self._trickles:
            GLib.idle_add(self._post, offer.sdp.as_text())

    def _gathered(self, _: object, line: int, candidate: str) -> None:
        if line == 0:
            with self._lock:
                self._candidates.append(candidate)
            GLib.idle_add(self._trickle)

    def _changed(self, rtc: Any, _: object, state: str) -> None:
        value = rtc.get_property(state).value_nick
        tell(f"{state} {value}")
        if (state, value) == ("ice-gathering-state", "complete") and not self._trickles:
            GLib.idle_add(lambda: self._post(rtc.get_property("local-description").sdp.as_text()))

    def _post(self, offer: str) -> None:
        tell(offer)
        status, headers, answer = self._ask("POST", self._url, offer, "application/sdp")
        if status != 201:
            self.loop.quit()
            return
        self._place, self._tag = urljoin(self._url, headers["Location"]), headers["ETag"]
        tell(answer)
        self._offer = offer
        _, description = GstSdp.SDPMessage.new_from_text(answer)
        told = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, description)
        self._rtc.emit("set-remote-description", told, Gst.Promise.new())
        self._trickle()

    def _trickle(self) -> None:
        """Tell the candidates that were gathered since the offer."""
        with self._lock:
            if not self._trickles or not self._place or not self._candidates:
                return
            lines = [f"a={candidate}" for candidate in self._candidates]
            self._candidates.clear()
        known = [line for line in self._offer.splitlines() if line.startswith(("a=ice-ufrag:", "a=ice-pwd:", "a=mid:"))]
        head = [known[0], known[1], "m=video 9 UDP/TLS/RTP/SAVPF 0", next(line for line in known if "mid" in line)]
        self._ask("PATCH", self._place, "\r\n".join([*head, *lines, ""]), "application/trickle-ice-sdpfrag")

    def _ask(self, method: str, url: str, body: str = "", kind: str = "") -> tuple[int, Any, str]:
        headers = {"Authorization": f"Bearer {self._token}"}
        if kind:
            headers["Content-Type"] = kind
        if self._tag:
            headers["If-Match"] = self._tag
        request = urllib.request.Request(url, body.encode() or None, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, told, text = answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, told, text = error.code, error.headers, error.read().decode()
        tell(f"{method} {status} {text if status >= 400 else ''}")
        return status, told, text


def main(words: list[str]) -> None:
    Gst.init(None)
    if words == ["--check"]:
        sys.exit(0 if all(map(Gst.ElementFactory.find, (*ELEMENTS, *ELEMENTS_OF_H264))) else 1)
    url, token, codec, candidates = words[:4]
    Publisher(url, token, codec, candidates == "trickle", "".join(words[4:])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
