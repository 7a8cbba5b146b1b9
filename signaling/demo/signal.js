// LiveKit's signalling over one WebSocket, in JSON from the first message (subprotocol "json").
// Requests and responses are the protojson form of livekit.SignalRequest and SignalResponse: {offer: {...}}, {join: {...}}.

const PING_GRACE = 3; // missed answers before the connection counts as lost

export class Signal extends EventTarget {
  #socket = null;
  #pings = null;
  #unanswered = 0;

  /** Opens the socket; resolves with the first message ({join} or {reconnect}). Rejects with a readable Error. */
  async open(token, { resume = "" } = {}) {
    const query = new URLSearchParams({ access_token: token, protocol: "17", auto_subscribe: "1", sdk: "js", version: "demo" });
    if (resume) {
      query.set("reconnect", "1");
      query.set("sid", resume);
    }
    const base = `${location.host}/rtc/v1`;
    const secure = location.protocol === "https:";
    const socket = new WebSocket(`${secure ? "wss" : "ws"}://${base}?${query}`, "json");
    this.#socket = socket;
    const first = await new Promise((resolve, reject) => {
      socket.onmessage = (event) => resolve(JSON.parse(event.data));
      socket.onclose = async () => reject(new Error(await this.#refusal(query)));
    });
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = () => this.#lost(socket);
    this.#startPings((first.join ?? first.reconnect)?.pingInterval || 5);
    return first;
  }

  /** Sends one request, e.g. send({mute: {sid, muted}}). Silently lost while there is no connection. */
  send(request) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(request));
  }

  close() {
    clearInterval(this.#pings);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** Why an upgrade failed: browsers hide the HTTP answer, the validate route repeats it. */
  async #refusal(query) {
    try {
      const answer = await fetch(`/rtc/v1/validate?${query}`);
      return answer.ok ? "the server closed the connection" : (await answer.text()).trim();
    } catch {
      return "the server cannot be reached";
    }
  }

  #startPings(seconds) {
    clearInterval(this.#pings);
    this.#unanswered = 0;
    this.#pings = setInterval(() => {
      if (this.#unanswered++ >= PING_GRACE) this.#socket?.close(4000, "no answer to pings");
      this.send({ pingReq: { timestamp: String(Date.now()), rtt: "0" } });
    }, seconds * 1000);
  }

  #receive(message) {
    this.#unanswered = 0;
    const [[kind, value]] = Object.entries(message);
    this.dispatchEvent(new CustomEvent(kind, { detail: value }));
  }

  #lost(socket) {
    clearInterval(this.#pings);
    if (socket === this.#socket) this.dispatchEvent(new CustomEvent("lost"));
  }
}
