// Verifies captured deliveries by code that is not ours: `x-stackone-signature` by Node's crypto,
// and the Standard Webhooks headers by the official `standardwebhooks` package of npm.
//
//   node tests/verify/verify.mjs CAPTURED.json
//
// The file holds {"deliveries": [{"secret", "headers": {…}, "body_base64"}]}. The npm package is
// looked up from the folder in NODE_VERIFIER_MODULES, where it must then be, or else from
// .tools/node, without which the first check stands alone and stderr says so. Exits 0 if every
// delivery verifies, and 1 naming the first that does not. The package also checks that a delivery
// was signed within the last 5 minutes.

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

function fail(message) {
  console.error(message);
  process.exit(1);
}

function officialVerifier() {
  const named = process.env.NODE_VERIFIER_MODULES;
  const folder = named ? resolve(named) : fileURLToPath(new URL("../../.tools/node", import.meta.url));
  try {
    return createRequire(`${folder}/`)("standardwebhooks").Webhook;
  } catch (error) {
    if (named) fail(`standardwebhooks was not found from ${named}: ${error.message.split("\n")[0]}`);
    console.error("standardwebhooks was not found in .tools/node: only x-stackone-signature is verified");
    return undefined;
  }
}

function verify({ secret, headers, body_base64 }, Webhook) {
  const body = Buffer.from(body_base64, "base64");
  if (body.toString("base64") !== body_base64) throw new Error("body_base64 is not base64");
  const given = lowerCaseNames(headers)["x-stackone-signature"];
  const expected = createHmac("sha256", secret).update(body).digest("base64url");
  if (given !== expected) throw new Error(`x-stackone-signature is ${given}, expected ${expected}`);
  if (Webhook) new Webhook(secret).verify(body, headers, { jsonParse: false });
}

function lowerCaseNames(headers) {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
}

if (process.argv.length !== 3) fail("usage: verify.mjs CAPTURED.json");
const path = process.argv[2];
let deliveries;
try {
  ({ deliveries } = JSON.parse(readFileSync(path, "utf8")));
} catch (error) {
  fail(`${path} is not a capture: ${error.message}`);
}
if (!Array.isArray(deliveries)) fail(`${path} is not a capture: deliveries is no list`);
if (deliveries.length === 0) fail("no deliveries were captured");

const Webhook = officialVerifier();
for (const [index, delivery] of deliveries.entries()) {
  try {
    verify(delivery, Webhook);
  } catch (error) {
    const id = lowerCaseNames(delivery?.headers ?? {})["webhook-id"] ?? "no webhook-id";
    fail(`delivery ${index + 1} (${id}): ${error.message}`);
  }
}
console.log(`verified ${deliveries.length} deliveries`);
