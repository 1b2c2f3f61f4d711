// Cloudflare's own local R2 for the tests, with a front that answers what its engine does not. Run by r2_miniflare.py.
//
// Standard input: one line of JSON {modules, folder, accessKeyId, secretAccessKey, buckets}; its end stops the server,
// so that a test run that is killed leaves none behind. Standard output: one line, the endpoint's URL.
import { once } from "node:events";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

// Between one server and the next: of this connection alone (RFC 9110, 7.6.1).
const HOP_BY_HOP = ["connection", "keep-alive", "transfer-encoding", "upgrade"];
const S3 = "/cdn-cgi/local/r2/s3";

const input = readline.createInterface({ input: process.stdin });
const [line] = await once(input, "line");
const wishes = JSON.parse(line);
const { Log, LogLevel, Miniflare } = createRequire(path.join(wishes.modules, "package.json"))("miniflare");

const s3Credentials = { accessKeyId: wishes.accessKeyId, secretAccessKey: wishes.secretAccessKey };
const engine = new Miniflare({
  host: "127.0.0.1",
  port: 0,
  cf: false, // else it asks Cloudflare for a request's sample properties
  compatibilityDate: "2026-01-01",
  modules: true,
  script: "export default { fetch: () => new Response('the local R2 of a test run') }",
  log: new Log(LogLevel.WARN),
  r2Persist: wishes.folder,
  r2Buckets: Object.fromEntries(wishes.buckets.map((id, number) => [`BUCKET${number}`, { id, s3Credentials }])),
});
const behind = await engine.ready;
const agent = new http.Agent({ keepAlive: true });

// Node answers `Expect: 100-continue` by itself. workerd never does, and DVC waits for it without end.
const front = http.createServer((request, answer) => {
  const { method, url, headers } = request;
  const { hostname, port } = behind;
  const asked = http.request({ agent, hostname, port, method, path: url, headers }, (given) => {
    const kept = Object.entries(given.headers).filter(([name]) => !HOP_BY_HOP.includes(name));
    answer.writeHead(given.statusCode, Object.fromEntries(kept));
    given.on("error", () => answer.destroy());
    given.pipe(answer);
  });
  asked.on("error", (error) => {
    if (answer.headersSent) answer.destroy();
    else answer.writeHead(502).end(String(error));
  });
  answer.on("close", () => answer.writableFinished || asked.destroy());
  request.pipe(asked);
});
front.requestTimeout = 0; // an upload over a slow link takes what it takes
front.listen(0, "127.0.0.1");
await once(front, "listening");
console.log(`http://127.0.0.1:${front.address().port}${S3}`);

async function stop() {
  front.close();
  front.closeAllConnections();
  agent.destroy();
  await engine.dispose();
  process.exit(0);
}

input.on("close", stop);
process.on("SIGTERM", stop);
