// opencode's own SDK against the sidecar: node native.mjs URL KEY PACKAGE. Prints "ok: STEP" for each step.
import assert from "node:assert/strict";

const [url, key, sdk] = process.argv.slice(2);
const { createOpencodeClient } = await import(sdk);
const authorization = "Basic " + Buffer.from(`opencode:${key}`).toString("base64");
const client = createOpencodeClient({ baseUrl: url, headers: { authorization } });
const model = { providerID: "litellm", modelID: "openai/gpt-4o-mini" };

const step = async (name, run) => {
  await run();
  console.log(`ok: ${name}`);
};
const data = ({ data, error }) => {
  assert.equal(error, undefined, JSON.stringify(error));
  return data;
};
const say = (text, more = {}) => ({ model, parts: [{ type: "text", text }], ...more });
const textOf = (message) => message.parts.filter((p) => p.type === "text").map((p) => p.text).join("");

// One subscription for all steps: `seen` holds what came, `until` waits for what fits.
const seen = [];
let wake = () => {};
const stop = new AbortController();
const { stream } = await client.event.subscribe({ signal: stop.signal });
const reading = (async () => {
  for await (const event of stream) {
    seen.push(event);
    wake();
  }
})().catch(() => {});
const until = async (fits) => {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const found = seen.find(fits);
    if (found) return found;
    assert.ok(Date.now() < deadline, `not seen among ${seen.map((e) => e.type)}`);
    await new Promise((done) => {
      wake = done;
      setTimeout(done, 1000);
    });
  }
};

let session;
await step("models of the gateway, no key", async () => {
  await until((event) => event.type === "server.connected");
  const { providers } = data(await client.config.providers());
  assert.ok(providers[0].models["ollama/qwen3:8b"], "a model that no session uses yet");
  const text = JSON.stringify([providers, data(await client.provider.list()), data(await client.config.get())]);
  assert.ok(!/apiKey|relay-/.test(text), "a key in an answer");
});
await step("session and prompt", async () => {
  session = data(await client.session.create({ body: { title: "from the SDK" } }));
  const answer = data(await client.session.prompt({ path: { id: session.id }, body: say("[[say: hello sdk]]") }));
  assert.equal(textOf(answer), "hello sdk");
  assert.equal(answer.info.modelID, "openai/gpt-4o-mini");
});
await step("events of the session", async () => {
  await until((e) => e.type === "session.idle" && e.properties.sessionID === session.id);
  await until((e) => e.type === "message.part.updated" && e.properties.part.text === "hello sdk");
});
await step("a tool call and its file", async () => {
  const prompt = say("[[bash: echo from-bash > made.txt]] [[then]] [[say: made]]");
  assert.equal(textOf(data(await client.session.prompt({ path: { id: session.id }, body: prompt }))), "made");
  const read = data(await client.file.read({ query: { path: "made.txt" } }));
  assert.equal(read.content.trim(), "from-bash");
  const listed = data(await client.file.list({ query: { path: "." } }));
  assert.ok(listed.some((entry) => entry.name === "made.txt"), JSON.stringify(listed));
});
await step("abort", async () => {
  seen.length = 0;
  data(await client.session.promptAsync({ path: { id: session.id }, body: say("[[bash: sleep 60]]") }));
  await until((e) => e.type === "message.part.updated" && e.properties.part.state?.status === "running");
  assert.equal(data(await client.session.abort({ path: { id: session.id } })), true);
  await until((e) => e.type === "session.idle" && e.properties.sessionID === session.id);
});
await step("a permission", async () => {
  const rules = [{ permission: "bash", pattern: "*", action: "ask" }];
  const asking = data(await client.session.create({ body: { title: "asks", permission: rules } }));
  data(await client.session.promptAsync({ path: { id: asking.id }, body: say("[[bash: echo allowed]]") }));
  const asked = await until((e) => e.type === "permission.asked" && e.properties.sessionID === asking.id);
  const path = { id: asking.id, permissionID: asked.properties.id };
  data(await client.postSessionIdPermissionsPermissionId({ path, body: { response: "once" } }));
  await until((e) => e.type === "session.idle" && e.properties.sessionID === asking.id);
  const messages = data(await client.session.messages({ path: { id: asking.id } }));
  assert.ok(JSON.stringify(messages).includes("allowed\\n"), "the call ran");
});
await step("errors are the SDK's", async () => {
  const unknown = await client.session.get({ path: { id: "ses_nothere" } });
  assert.equal(unknown.error.name, "NotFoundError");
  const body = say("hi");
  body.model = { providerID: "litellm", modelID: "gpt-4oo" };
  const refused = await client.session.prompt({ path: { id: session.id }, body });
  assert.equal(refused.error.name, "BadRequest");
  assert.match(refused.error.data.message, /openai\/gpt-4o/);
  const shared = await client.session.share({ path: { id: session.id } });
  assert.match(shared.error.data.message, /sharing/);
});
await step("log", async () => {
  assert.equal(data(await client.app.log({ body: { service: "x", level: "info", message: "dropped" } })), true);
});
stop.abort();
await Promise.race([reading, new Promise((done) => setTimeout(done, 2000))]);
process.exit(0);
