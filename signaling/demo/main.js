// The page: a lobby, a grid of tiles, a chat. All of the protocol is in call.js.

import { Call } from "./call.js";

const $ = (id) => document.getElementById(id);
const SOURCES = { microphone: "MICROPHONE", camera: "CAMERA", screen: "SCREEN_SHARE" };
const DEVICES = { microphone: "audioinput", camera: "videoinput" };
const LABELS = { microphone: ["Mic", "No mic"], camera: ["Camera", "No camera"] };
const REFRESH_MS = 1000;
const STATISTICS_MS = 5000; // the server measures connections as often
const CONNECTIONS = { EXCELLENT: "excellent", GOOD: "good", POOR: "poor", LOST: "lost" };
const LAYERS = ["low", "medium", "high"];
// Why the server sends less of a video than this page prefers.
const SHORTFALLS = {
  bandwidth: "Less than preferred: your connection is slow",
  paused: "Paused: your connection is slow",
  not_live: "Less than preferred: the sender sends no more",
};
// A tile is worth as much of its width as a picture of this shape can fill.
const FACE = 4 / 3;
const SCREEN = 16 / 9;

const TOKEN_REFUSALS = {
  403: "This server gives demo tokens only to pages opened by its address, as localhost or by the machine's own name.",
  404: "This server gives no demo tokens, so nobody can join from this page. To try it, start the server with --dev.",
};

let call = null;
const tiles = new Map(); // key -> {element, trackSid, quality, asked}
const audios = new Map(); // track sid -> <audio>
const notices = new Map(); // what it is about -> element; each stays until the same thing succeeds, or it is closed

$("name").value = localStorage.getItem("aiosfu-name") ?? "";
const query = new URLSearchParams(location.search);
if (query.has("room")) $("room-name").value = query.get("room");
if (query.has("name")) $("name").value = query.get("name");

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("join-button").disabled = true;
  showError("");
  try {
    await join($("room-name").value.trim(), $("name").value.trim());
  } catch (error) {
    showLobby(error.message);
  } finally {
    $("join-button").disabled = false;
  }
});

/** Without tokens nobody can join: who opens the page is told at once, before filling in the form. */
async function askForTokens() {
  const trial = new URLSearchParams({ room: "lobby", identity: "nobody" });
  const answer = await fetch(`/demo/token?${trial}`, { method: "HEAD" }).catch(() => null);
  const refusal = TOKEN_REFUSALS[answer?.status];
  if (!refusal) return;
  showError(refusal);
  $("join-button").disabled = true;
}

async function join(room, name) {
  localStorage.setItem("aiosfu-name", name);
  const identity = `${name}-${Math.random().toString(36).slice(2, 8)}`;
  const answer = await fetch(`/demo/token?${new URLSearchParams({ room, name, identity })}`);
  if (!answer.ok) throw new Error(TOKEN_REFUSALS[answer.status] ?? (await answer.text()));
  call = new Call();
  listen(call);
  await call.join((await answer.json()).token);
  $("title").textContent = room;
  $("lobby").hidden = true;
  $("call").hidden = false;
  for (const button of ["microphone", "camera"]) if ($(`with-${button}`).checked) await toggle(button);
  render();
}

function showLobby(message) {
  call = null;
  for (const { element } of tiles.values()) element.remove();
  tiles.clear();
  for (const audio of audios.values()) audio.remove();
  audios.clear();
  $("messages").replaceChildren();
  for (const about of [...notices.keys()]) showNotice(about, "");
  $("call").hidden = true;
  $("lobby").hidden = false;
  showError(message);
}

function showError(message) {
  $("join-error").hidden = !message;
  $("join-error").textContent = message;
}

function listen(current) {
  const on = (kind, handle) => current.addEventListener(kind, ({ detail }) => current === call && handle(detail));
  on("change", render);
  on("track", ({ sid, track }) => (track.kind === "audio" ? playAudio(sid, track) : render()));
  on("speakers", showSpeakers);
  on("chat", ({ name, message }) => showMessage(name, message));
  on("state", (state) => showConnection(state !== "reconnecting" && state !== "disconnected"));
  on("left", showLobby);
}

// --- controls -------------------------------------------------------------------------------------------------------
async function toggle(button) {
  $(button).disabled = true;
  try {
    await call.toggle(SOURCES[button]);
    showNotice(button, "");
  } catch (error) {
    showNotice(button, error.message);
  } finally {
    $(button).disabled = false;
  }
}

/** A device that is not there is told before somebody looks for it: in the lobby and on its button. */
async function showDevices() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  const missing = Object.keys(DEVICES).filter((button) => !devices.some(({ kind }) => kind === DEVICES[button]));
  for (const button of Object.keys(DEVICES)) {
    const absent = missing.includes(button);
    if (absent || $(`with-${button}`).disabled) $(`with-${button}`).checked = !absent;
    $(`with-${button}`).disabled = absent;
    $(button).classList.toggle("absent", absent);
    $(button).querySelector("span").textContent = LABELS[button][Number(absent)];
  }
  $("missing").hidden = !missing.length;
  $("missing").textContent = navigator.mediaDevices
    ? `No ${missing.join(" and no ")} found. You can join all the same, and see and hear the others.`
    : "Browsers give camera and microphone to pages from https or localhost only. You can see and hear the others.";
}

for (const button of Object.keys(SOURCES)) $(button).addEventListener("click", () => toggle(button));
$("leave").addEventListener("click", () => call.leave());
$("chat-toggle").addEventListener("click", () => {
  $("chat").hidden = !$("chat").hidden;
  $("chat-toggle").setAttribute("aria-pressed", String(!$("chat").hidden));
  $("unread").hidden = true;
  $("unread").textContent = "";
  if (!$("chat").hidden) $("chat-input").focus();
});
$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("chat-input").value.trim();
  if (!message) return;
  try {
    call.sendChat(message);
    showMessage("You", message);
    $("chat-input").value = "";
    showNotice("chat", "");
  } catch (error) {
    showNotice("chat", error.message);
  }
});
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("link").value);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("link")); // the browser refused: it can be copied by hand
  }
});

function showConnection(there) {
  showNotice("connection", there ? "" : "Connection lost, reconnecting…");
}

/** Shows a message in place of the last one about the same thing; an empty one only takes that away. */
function showNotice(about, message) {
  notices.get(about)?.remove();
  notices.delete(about);
  if (message) {
    const element = $("one-notice").content.firstElementChild.cloneNode(true);
    element.querySelector("span").textContent = message;
    element.querySelector("button").ariaLabel = `Close the notice about the ${about}`;
    element.querySelector("button").addEventListener("click", () => closeNotice(about));
    notices.set(about, element);
    $("notice").append(element);
  }
}

/** The pressed button goes away with its notice, so the focus goes to the next one, or to the controls. */
function closeNotice(about) {
  showNotice(about, "");
  ($("notice").querySelector("button") ?? $("microphone")).focus();
}

function showMessage(name, message) {
  const item = document.createElement("li");
  const who = document.createElement("b");
  who.textContent = name;
  item.append(who, message);
  $("messages").append(item);
  item.scrollIntoView();
  if ($("chat").hidden) {
    $("unread").textContent = String(Number($("unread").textContent || 0) + 1);
    $("unread").hidden = false;
  }
}

// --- tiles ----------------------------------------------------------------------------------------------------------
/** What should be on the grid: one tile for each shared screen, and one for each participant. */
function wantedTiles() {
  const [screens, people] = [[], []];
  for (const participant of call.participants.values()) {
    const mine = participant.sid === call.me.sid;
    const tracks = participant.tracks ?? [];
    const name = participant.name || participant.identity;
    const find = (source) => tracks.find((track) => track.source === source);
    const microphone = find("MICROPHONE");
    const silent = mine ? !call.isOn("MICROPHONE") : !microphone || Boolean(microphone.muted);
    const connection = call.qualities.get(participant.sid) ?? "";
    people.push({ key: participant.sid, name: mine ? `${name} (you)` : name, mine, silent, screen: false, connection, ...picture(mine, "CAMERA", find("CAMERA")) });
    const screen = find("SCREEN_SHARE");
    if (screen) screens.push({ key: screen.sid, name: `${name}: screen`, mine, silent: false, screen: true, connection: "", ...picture(mine, "SCREEN_SHARE", screen) });
  }
  return [screens, people];
}

function picture(mine, source, info) {
  if (mine) return { track: call.isOn(source) ? call.local.get(source).track : null, trackSid: "", layers: 0 };
  const live = info && !info.muted;
  const track = live ? (call.remote.get(info.sid)?.track ?? null) : null;
  return { track, trackSid: info?.sid ?? "", layers: info?.layers?.length ?? 0 };
}

function render() {
  if (!call) return;
  const [screens, people] = wantedTiles();
  const keys = new Set([...screens, ...people].map(({ key }) => key));
  for (const [key, { element }] of tiles) {
    if (keys.has(key)) continue;
    element.remove();
    tiles.delete(key);
  }
  for (const tile of screens) showTile(tile, $("stage"));
  for (const tile of people) showTile(tile, $("people"));
  const alone = call.participants.size === 1;
  $("alone").hidden = !alone;
  $("link").value = `${location.origin}${location.pathname}?${new URLSearchParams({ room: $("title").textContent })}`;
  if (alone) $("people").append($("alone"));
  else $("copy").textContent = "Copy the link";
  $("stage").hidden = !screens.length;
  $("grid").classList.toggle("wide", $("grid").clientWidth > $("grid").clientHeight);
  arrange($("stage"), screens.length, SCREEN);
  arrange($("people"), people.length + Number(alone), FACE);
  $("count").textContent = alone ? "only you" : `${call.participants.size} participants`;
  for (const [button, source] of Object.entries(SOURCES)) $(button).setAttribute("aria-pressed", String(call.isOn(source)));
  for (const [sid, audio] of audios) {
    if (call.remote.has(sid)) continue;
    audio.remove();
    audios.delete(sid);
  }
}

/** Chooses the number of columns with the largest pictures, which are `shape` times as wide as high. */
function arrange(place, count, shape) {
  const { clientWidth: width, clientHeight: height } = place;
  const worth = (columns) => Math.min(width / columns, (shape * height) / Math.ceil(count / columns));
  let best = 1;
  for (let columns = 2; columns <= count; columns++) if (worth(columns) > worth(best)) best = columns;
  place.style.setProperty("--columns", String(best));
}

function showTile({ key, name, mine, silent, screen, connection, track, trackSid, layers }, place) {
  let tile = tiles.get(key);
  if (!tile) {
    tile = { element: $("tile").content.firstElementChild.cloneNode(true), quality: "auto", asked: "" };
    tile.element.querySelector(".quality").addEventListener("change", ({ target }) => {
      tile.quality = target.value;
      askQuality(tile);
    });
    tiles.set(key, tile);
    place.append(tile.element);
  }
  tile.trackSid = trackSid;
  tile.layers = layers;
  const { element } = tile;
  showQuality(element.querySelector(".bars"), connection);
  element.dataset.participant = key;
  element.classList.toggle("mine", mine);
  element.classList.toggle("screen", screen);
  element.classList.toggle("muted", silent);
  element.classList.toggle("has-video", Boolean(track));
  element.querySelector(".quality").hidden = layers < 2; // there is nothing to choose
  element.querySelector(".who").textContent = name;
  element.querySelector(".avatar").textContent = name.trim().slice(0, 1).toUpperCase();
  const video = element.querySelector("video");
  if (video.srcObject?.getTracks()[0] !== track) video.srcObject = track ? new MediaStream([track]) : null;
}

/** Bars for the eye, and the same in words. */
function showQuality(bars, connection) {
  bars.hidden = !connection;
  bars.dataset.connection = connection;
  bars.ariaLabel = bars.title = `Connection: ${CONNECTIONS[connection] ?? "unknown"}`;
}

/** Sends the quality once for each change; "auto" asks for what the tile can show. */
function askQuality(tile) {
  if (!tile.trackSid) return;
  const { width, height } = tile.element.getBoundingClientRect();
  const [w, h] = [width * devicePixelRatio, height * devicePixelRatio].map((size) => 32 * Math.ceil(size / 32));
  const asked = `${tile.trackSid} ${tile.quality === "auto" ? `${w}x${h}` : tile.quality}`;
  if (asked === tile.asked) return;
  tile.asked = asked;
  call.setQuality(tile.trackSid, tile.quality, w, h);
}

function playAudio(sid, track) {
  const audio = audios.get(sid) ?? document.createElement("audio");
  audio.autoplay = true;
  audio.srcObject = new MediaStream([track]);
  document.body.append(audio);
  audios.set(sid, audio);
}

function showSpeakers(speakers) {
  for (const { sid, active } of speakers) tiles.get(sid)?.element.classList.toggle("speaking", Boolean(active));
}

/** Why the server sends less of a video than this page prefers, in words; empty if it does not. */
function shortfallOf({ layers }, sent) {
  const missing = Math.min(sent?.preferred?.spatial, layers - 1) > sent?.current?.spatial;
  return sent?.reason === "not_live" && !missing ? "" : (SHORTFALLS[sent?.reason] ?? "");
}

/** Shows what a tile really gets, and why no more. `sent` is what the server says of it, if it does. */
async function showReceived(tile, sent) {
  const visible = tile.element.classList.contains("has-video");
  if (visible) askQuality(tile);
  const seen = visible && tile.trackSid ? await call?.received(tile.trackSid) : null;
  const layer = tile.layers > 1 && seen?.height ? LAYERS[sent?.current?.spatial] : "";
  const shortfall = visible ? shortfallOf(tile, sent) : "";
  const part = (name) => tile.element.querySelector(name);
  part(".size").textContent = seen?.height ? `${seen.width}×${seen.height}` : "";
  part(".layer").textContent = layer ? ` · ${layer}` : "";
  part(".rate").textContent = seen?.height ? ` · ${Math.round(seen.bitrate / 1000)} kbit/s` : "";
  part(".shortfall span").textContent = shortfall;
  part(".shortfall").hidden = !shortfall;
}

let told = new Map(); // what the server said last of what it sends us
let askedAt = -Infinity;

async function askServer() {
  const watched = [...tiles.values()].some(({ trackSid }) => trackSid);
  if (!call || !watched) {
    told = new Map();
    askedAt = -Infinity;
  } else if (!document.hidden && performance.now() - askedAt >= STATISTICS_MS) {
    askedAt = performance.now();
    told = await call.subscriptions();
  }
}

async function refresh() {
  try {
    await askServer();
    await Promise.all([...tiles.values()].map((tile) => showReceived(tile, told.get(tile.trackSid))));
  } finally {
    setTimeout(refresh, REFRESH_MS);
  }
}

new ResizeObserver(render).observe($("grid"));
navigator.mediaDevices?.addEventListener?.("devicechange", showDevices);
showDevices();
askForTokens();
refresh();
addEventListener("beforeunload", () => call?.leave());
