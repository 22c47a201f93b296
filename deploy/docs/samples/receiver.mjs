// A receiver of Carillon's webhooks. Node 20, no dependencies.
//
//   WEBHOOK_SECRETS="whsec_… whsec_…" PORT=3000 node receiver.mjs
//
// Name more than one secret while you rotate them. Stands behind your TLS proxy.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE_SECONDS = 5 * 60;
const BODY_BYTES_MAX = 4 * 1024 * 1024;
const IDS_KEPT = 100_000;

const secrets = (process.env.WEBHOOK_SECRETS ?? "").split(/\s+/).filter(Boolean);
if (secrets.length === 0 || !secrets.every((secret) => /^whsec_[A-Za-z0-9+/]+=*$/.test(secret))) {
  console.error("WEBHOOK_SECRETS must hold one or more secrets of the form whsec_…");
  process.exit(2);
}

// Ids of deliveries that were already processed, oldest first. In production this is a unique
// column in your database, written in the same transaction as the effect of the event.
const processed = new Set();

class Refusal extends Error {}

function sameText(given, expected) {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}

// Standard Webhooks: covers id, time and body, so that an old delivery cannot be sent again by
// somebody else. Keyed with the bytes that stand, in base64, after `whsec_`.
function verifyStandard(headers, body) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const signatures = headers["webhook-signature"];
  if (!id || !timestamp || !signatures) throw new Refusal("missing Standard Webhooks headers");
  if (!/^\d{1,12}$/.test(timestamp)) throw new Refusal("malformed webhook-timestamp");
  const age = Math.floor(Date.now() / 1000) - Number(timestamp);
  if (Math.abs(age) > TOLERANCE_SECONDS) throw new Refusal("webhook-timestamp too far from now");

  const expected = secrets.map((secret) => {
    const key = Buffer.from(secret.slice("whsec_".length), "base64");
    const hmac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body);
    return `v1,${hmac.digest("base64")}`;
  });
  // While secrets are rotated, a delivery carries one signature of each.
  const given = signatures.split(" ");
  if (!given.some((one) => expected.some((other) => sameText(one, other)))) {
    throw new Refusal("no matching webhook-signature");
  }
}

// x-stackone-signature: covers the body alone. Keyed with the whole text of the secret.
function verifyStackone(headers, body) {
  const given = headers["x-stackone-signature"];
  if (!given) throw new Refusal("missing x-stackone-signature");
  const expected = secrets.map((secret) =>
    createHmac("sha256", secret).update(body).digest("base64url"),
  );
  if (!expected.some((one) => sameText(given, one))) {
    throw new Refusal("no matching x-stackone-signature");
  }
}

// The bytes as they arrived: JSON that was parsed and written again has another signature.
async function readBody(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  if (length > BODY_BYTES_MAX) throw new Refusal("body too large");
  return Buffer.concat(chunks);
}

function accept(id, event) {
  // A repeat is answered like the first arrival, else it would be sent again.
  if (processed.has(id)) return;
  console.log(`accepted ${id} ${event.event} ${event.record_id}`);
  processed.add(id);
  if (processed.size > IDS_KEPT) processed.delete(processed.values().next().value);
}

const server = createServer(async (request, response) => {
  try {
    if (request.method !== "POST") throw new Refusal("not a POST");
    const body = await readBody(request);
    // One of the two is enough; prefer the first.
    verifyStandard(request.headers, body);
    verifyStackone(request.headers, body);
    accept(request.headers["webhook-id"], JSON.parse(body.toString("utf8")));
    response.writeHead(204).end();
  } catch (error) {
    console.log(`refused ${error instanceof Refusal ? error.message : "unreadable body"}`);
    response.writeHead(401).end();
  }
});

server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});
