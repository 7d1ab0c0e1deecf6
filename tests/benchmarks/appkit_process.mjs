// AppKit's pools under a load: reads the load from stdin, and writes when each request was asked and answered.
//
//     node appkit_process.mjs NODE_MODULES < load.json

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const load = JSON.parse(readFileSync(0, "utf8"));
const path = join(process.argv[2], "@databricks/appkit/dist/connectors/lakebase/pool-manager.js");
const { createLakebasePoolManager } = await import(pathToFileURL(path));
const { WorkspaceClient } = createRequire(path)("@databricks/sdk-experimental");

const manager = createLakebasePoolManager({
  host: load.host,
  port: load.port,
  database: load.database,
  endpoint: load.endpoint,
  max: load.max_size,
  idleTimeoutMillis: 30_000,
  allowExitOnIdle: true,
});

// AppKit makes a client for each request; here a user has one.
const identities = new Map();
function identityOf(user) {
  let found = identities.get(user);
  if (!found) {
    const client = new WorkspaceClient({ host: load.workspace_url, token: user.token, authType: "pat" });
    found = { client, fingerprint: createHash("sha256").update(user.token).digest("hex").slice(0, 16) };
    identities.set(user, found);
  }
  return found;
}

async function request(user) {
  const { client, fingerprint } = identityOf(user);
  const pool = manager.getPool(user.name, { workspaceClient: client, user: user.name }, fingerprint);
  await pool.query("select 1");
}

await setTimeout(load.idle_before * 1000);
const answered = [];
const errors = {};
const draws = load.draws.values();
const began = performance.now();
const now = () => (performance.now() - began) / 1000;
const beganAt = Date.now() / 1000;

async function work() {
  for (const number of draws) {
    const asked = now();
    try {
      await request(load.users[number]);
      answered.push([asked, now()]);
    } catch (error) {
      const code = error.code ?? error.name;
      errors[code] = (errors[code] ?? 0) + 1;
    }
  }
}

await Promise.all(Array.from({ length: load.at_a_time }, work));
process.stdout.write(JSON.stringify({ began: beganAt, answered, errors }));
await manager.closeAll();
