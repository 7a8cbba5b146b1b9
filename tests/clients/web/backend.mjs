// LiveKit's server SDK of npm, which a test drives: each line of JSON on standard input, [OBJECT, METHOD, ARGUMENTS], is a
// call, and each is answered with one line. Webhooks that come to its own port are verified and kept.
//
//     node backend.mjs URL KEY SECRET

import http from "node:http";
import readline from "node:readline";
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // the SDK takes it for granted, and Debian's Node.js 18 has it in the module only
const sdk = await import("livekit-server-sdk");

const [url, key, secret] = process.argv.slice(2);
const receiver = new sdk.WebhookReceiver(key, secret);
const told = [];
const called = new Set();

const webhooks = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    try {
        const event = await receiver.receive(Buffer.concat(parts).toString(), request.headers.authorization);
        told.push(event.toJson());
        response.writeHead(200).end();
    } catch (error) {
        told.push({ event: String(error) });
        response.writeHead(401).end();
    }
});
await new Promise((listens) => webhooks.listen(0, "127.0.0.1", listens));

const objects = {
    rooms: new sdk.RoomServiceClient(url, key, secret),
    dispatches: new sdk.AgentDispatchClient(url, key, secret),
    sip: new sdk.SipClient(url, key, secret),
    egress: new sdk.EgressClient(url, key, secret),
    ingress: new sdk.IngressClient(url, key, secret),
    strangers: new sdk.RoomServiceClient(url, key, `${secret}, but another`),
    backend: {
        port: () => webhooks.address().port,
        webhooks: () => told,
        token: (options, grants, config) => {
            const token = new sdk.AccessToken(key, secret, options);
            token.addGrant(grants);
            if (config) token.roomConfig = new sdk.RoomConfiguration(config);
            return token.toJwt();
        },
        uncalled: (service) =>
            Object.getOwnPropertyNames(Object.getPrototypeOf(objects[service])).filter(
                (name) => name !== "constructor" && !called.has(`${service}.${name}`),
            ),
    },
};

const plain = (value) => (Array.isArray(value) ? value.map(plain) : (value?.toJson?.() ?? value ?? null));
const revive = (_, value) =>
    value?.base64 !== undefined ? Buffer.from(value.base64, "base64") : value?.bigint !== undefined ? BigInt(value.bigint) : value;

for await (const line of readline.createInterface({ input: process.stdin })) {
    const [object, method, args] = JSON.parse(line, revive);
    called.add(`${object}.${method}`);
    let answer;
    try {
        answer = { result: plain(await objects[object][method](...args)) };
    } catch ({ message, code, status }) {
        answer = { error: { message, code, status } };
    }
    console.log(JSON.stringify(answer));
}
process.exit();
