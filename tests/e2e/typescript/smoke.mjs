// A client that uses the API as the official TypeScript SDK offers it. Each step asserts what it must see;
// the first that fails ends the program with its name. Run by test_typescript_sdk.py:
//   node smoke.mjs BASE_URL API_KEY

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { accumulateManagedAgentsEvent } from "@anthropic-ai/sdk/lib/sessions/accumulate";

const [baseURL, apiKey] = process.argv.slice(2);

let attempts = 0;
const countingFetch = (url, init) => {
  attempts += 1;
  return fetch(url, init);
};
const client = new Anthropic({ baseURL, apiKey, fetch: countingFetch });
const { agents, environments, sessions } = client.beta;

const MODEL = "openai/gpt-4o";
const TOOLSET = { type: "agent_toolset_20260401" };
const ASKING = {
  ...TOOLSET,
  configs: [{ name: "bash", permission_policy: { type: "always_ask" } }],
};
const LOOKUP = {
  type: "custom",
  name: "lookup",
  description: "Looks a word up.",
  input_schema: { type: "object", properties: { word: { type: "string" } } },
};

const say = (text) => ({ type: "user.message", content: [{ type: "text", text }] });
const interrupt = { type: "user.interrupt" };
const result = (call, text) => ({
  type: "user.custom_tool_result",
  custom_tool_use_id: call,
  content: [{ type: "text", text }],
});
const typesOf = (events) => events.map((event) => event.type);
const textOf = (events) =>
  events
    .filter((event) => event.type === "agent.message")
    .flatMap((event) => event.content.map((block) => block.text))
    .join("");

async function openSession(...tools) {
  const agent = await agents.create({ name: "coder", model: MODEL, tools });
  const place = await environments.create({ name: "place" });
  return (await sessions.create({ agent: agent.id, environment_id: place.id })).id;
}

const send = async (session, ...events) => (await sessions.events.send(session, { events })).data;

async function all(pages) {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
}

// One stream read in pieces: `until` returns what came up to the first event of a type.
class Reader {
  constructor(stream) {
    this.stream = stream;
    this.events = stream[Symbol.asyncIterator]();
  }

  async until(type) {
    const seen = [];
    for (;;) {
      const { done, value } = await this.events.next();
      assert(!done, `the stream ended before ${type}: ${typesOf(seen)}`);
      seen.push(value);
      if (value.type === type) return seen;
    }
  }

  async rest() {
    const seen = [];
    for (;;) {
      const { done, value } = await this.events.next();
      if (done) return seen;
      seen.push(value);
    }
  }

  close() {
    this.stream.controller.abort();
  }
}

const open = async (session, query) => new Reader(await sessions.events.stream(session, query));

const steps = {
  async "models page to an end and are retrieved by ids with slashes"() {
    const ids = (await all(client.models.list({ limit: 1 }))).map((model) => model.id);
    assert(ids.length >= 6);
    assert.equal(new Set(ids).size, ids.length);
    const active = await all(client.models.list({ lifecycle: ["active"] }));
    assert.deepEqual(active.map((model) => model.id), ids);
    assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
    attempts = 0;
    await assert.rejects(client.models.retrieve("openai/none"), Anthropic.NotFoundError);
    assert.equal(attempts, 1);
  },

  async "a wrong key is an AuthenticationError with a request id"() {
    const stranger = new Anthropic({ baseURL, apiKey: "wrong" });
    await assert.rejects(async () => stranger.models.list(), (error) => {
      assert(error instanceof Anthropic.AuthenticationError);
      assert.equal(error.type, "authentication_error");
      assert(error.requestID);
      return true;
    });
  },

  async "environments are created, read, changed, listed and deleted"() {
    const config = { type: "cloud", networking: { type: "unrestricted" } };
    const place = await environments.create({ name: "place", config });
    assert.deepEqual(
      ["apt", "cargo", "gem", "go", "npm", "pip"].filter((kind) => !place.config.packages[kind]),
      [],
    );
    assert.equal((await environments.update(place.id, { name: "other" })).name, "other");
    assert.equal((await environments.retrieve(place.id)).name, "other");
    assert((await all(environments.list({ limit: 2 }))).some(({ id }) => id === place.id));
    const gone = await environments.delete(place.id);
    assert.deepEqual([gone.id, gone.type], [place.id, "environment_deleted"]);
  },

  async "agents have versions; a stale update conflicts after one attempt; archived ones serve no more"() {
    const agent = await agents.create({ name: "a", model: MODEL, system: "One.", tools: [ASKING, LOOKUP] });
    assert.equal(agent.version, 1);
    assert.equal((await agents.update(agent.id, { version: 1, system: "Two." })).version, 2);
    attempts = 0;
    await assert.rejects(agents.update(agent.id, { version: 1, system: "Three." }), Anthropic.ConflictError);
    assert.equal(attempts, 1);
    assert.equal((await agents.update(agent.id, { version: 2, system: "Two." })).version, 2);
    const versions = (await all(agents.versions.list(agent.id, { limit: 1 }))).map((a) => a.version);
    assert.deepEqual(versions.sort(), [1, 2]);
    assert.equal((await agents.retrieve(agent.id, { version: 1 })).system, "One.");
    assert((await agents.archive(agent.id)).archived_at);
    const place = await environments.create({ name: "place" });
    await assert.rejects(
      sessions.create({ agent: agent.id, environment_id: place.id }),
      Anthropic.BadRequestError,
    );
  },

  async "sessions take three agent forms and initial events, and lists page both ways"() {
    const agent = await agents.create({ name: "a", model: MODEL, system: "One." });
    await agents.update(agent.id, { system: "Two." });
    const place = await environments.create({ name: "place" });
    const forms = [
      agent.id,
      { type: "agent", id: agent.id, version: 1 },
      { type: "agent_with_overrides", id: agent.id, system: "Three." },
    ];
    const made = [];
    for (const form of forms) made.push(await sessions.create({ agent: form, environment_id: place.id }));
    assert.deepEqual(made.map((session) => session.agent.system), ["Two.", "One.", "Three."]);
    const begun = await sessions.create({
      agent: agent.id,
      environment_id: place.id,
      initial_events: [say("[[say: begun]]")],
    });
    assert.equal(begun.status, "running");
    const ids = [...made, begun].map((session) => session.id);
    const first = await sessions.list({ agent_id: agent.id, order: "asc", limit: 3 });
    assert.deepEqual(first.data.map(({ id }) => id), ids.slice(0, 3));
    const second = await first.getNextPage();
    assert.deepEqual(second.data.map(({ id }) => id), ids.slice(3));
    assert(second.prev_page);
    const reader = await open(made[0].id);
    await sessions.update(made[0].id, { title: "renamed", metadata: { k: "v" } });
    const [updated] = await reader.until("session.updated");
    assert.deepEqual([updated.title, updated.metadata], ["renamed", { k: "v" }]);
    reader.close();
  },

  async "a turn streams, its previews accumulate, stream and list agree, usage adds up"() {
    const session = await openSession(TOOLSET);
    const reader = await open(session, { event_deltas: ["agent.message"] });
    const [sent] = await send(session, say("[[slow: 8x0.03 wörd]]"));
    const seen = await reader.until("session.status_idle");
    reader.close();
    let snapshot;
    let deltas = 0;
    const final = seen.find((event) => event.type === "agent.message");
    for (const event of seen) {
      snapshot = accumulateManagedAgentsEvent(snapshot, event);
      if (event.type !== "event_delta") continue;
      deltas += 1;
      assert(final.content[0].text.startsWith(snapshot.content[0].text));
    }
    assert(deltas > 1);
    assert.equal(seen.find((event) => event.type === "user.message").id, sent.id);
    const listed = await all(sessions.events.list(session));
    assert.deepEqual(listed, seen.filter((event) => !event.type.startsWith("event_")));
    const newest = await sessions.events.list(session, { order: "desc", limit: 1 });
    assert.equal(newest.data[0].id, listed.at(-1).id);
    const messages = await all(sessions.events.list(session, { types: ["agent.message"] }));
    assert.deepEqual(messages, [final]);
    const after = { "created_at[gt]": listed[4].processed_at };
    assert.deepEqual(await all(sessions.events.list(session, after)), listed.slice(5));
    const shown = await sessions.retrieve(session);
    const spent = listed.filter((event) => event.type === "span.model_request_end");
    assert.equal(shown.status, "idle");
    assert.equal(
      shown.usage.output_tokens,
      spent.reduce((sum, event) => sum + event.model_usage.output_tokens, 0),
    );
  },

  async "an ask is allowed, another is denied with a message"() {
    const session = await openSession(ASKING);
    const reader = await open(session);
    for (const [answer, text] of [[{ result: "allow" }, "yes"], [{ result: "deny", deny_message: "no way" }, "no"]]) {
      await send(session, say(`[[bash: echo ${text}]]`));
      const [call] = (await reader.until("session.status_idle")).at(-1).stop_reason.event_ids;
      await send(session, { type: "user.tool_confirmation", tool_use_id: call, ...answer });
      const done = await reader.until("session.status_idle");
      const { is_error, content } = done.find((event) => event.type === "agent.tool_result");
      assert.equal(is_error, answer.result === "deny");
      assert.match(content[0].text, answer.result === "deny" ? /no way/ : /yes/);
    }
    reader.close();
  },

  async "two custom calls are answered one by one"() {
    const session = await openSession(LOOKUP);
    const reader = await open(session);
    await send(session, say('[[tools: lookup {"word": "a"} ;; lookup {"word": "b"}]]'));
    const [first, second] = (await reader.until("session.status_idle")).at(-1).stop_reason.event_ids;
    await send(session, result(first, "alpha"));
    const left = (await reader.until("session.status_idle")).at(-1).stop_reason;
    assert.deepEqual(left, { type: "requires_action", event_ids: [second] });
    await send(session, result(second, "beta"));
    assert.equal(textOf(await reader.until("session.status_idle")), "The tool answered:\nalpha\nbeta");
    reader.close();
  },

  async "an interrupt and a message in one send; a dropped stream loses nothing"() {
    const session = await openSession(TOOLSET);
    const known = new Map();
    const note = (events) => {
      for (const event of events) if (event.id && event.processed_at) known.set(event.id, event);
    };
    const dropped = await open(session, { event_deltas: ["agent.message"] });
    await send(session, say("[[slow: 300x0.1 tick]]"));
    note(await dropped.until("event_delta"));
    dropped.close();
    await send(session, interrupt, say("[[say: instead]]"));
    const reader = await open(session);
    note(await all(sessions.events.list(session)));
    const idles = () => [...known.values()].filter((e) => e.type === "session.status_idle").length;
    while (idles() < 2) note(await reader.until("session.status_idle"));
    reader.close();
    const complete = await all(sessions.events.list(session));
    assert.deepEqual([...known.keys()].sort(), complete.map(({ id }) => id).sort());
    assert.equal(textOf(complete), "instead");
  },

  async "a running session is neither archived nor deleted; an archived one takes no events"() {
    const session = await openSession(TOOLSET);
    const reader = await open(session, { event_deltas: ["agent.message"] });
    await send(session, say("[[slow: 300x0.1 tick]]"));
    await reader.until("event_delta");
    await assert.rejects(sessions.archive(session), Anthropic.BadRequestError);
    await assert.rejects(sessions.delete(session), Anthropic.BadRequestError);
    await send(session, interrupt);
    await reader.until("session.status_idle");
    assert.equal((await sessions.archive(session)).status, "terminated");
    assert.equal((await reader.rest()).at(-1).type, "session.status_terminated");
    await assert.rejects(send(session, say("late")), Anthropic.ConflictError);
  },

  async "deleting a session ends its stream"() {
    const session = await openSession(TOOLSET);
    const reader = await open(session);
    assert.equal((await sessions.delete(session)).type, "session_deleted");
    assert.deepEqual(typesOf(await reader.rest()), ["session.deleted"]);
    await assert.rejects(sessions.retrieve(session), Anthropic.NotFoundError);
  },

  async "the tool runner serves one custom tool to the end"() {
    const session = await openSession(LOOKUP);
    const lookup = betaTool({
      name: "lookup",
      description: "Looks a word up.",
      inputSchema: LOOKUP.input_schema,
      run: ({ word }) => `${word}!`,
    });
    await send(session, say('[[tool: lookup {"word": "hey"}]]'));
    const calls = [];
    const runner = sessions.events.toolRunner(session, { tools: [lookup], maxIdleMs: 300 });
    for await (const call of runner) calls.push([call.name, call.isError]);
    assert.deepEqual(calls, [["lookup", false]]);
    assert.equal(textOf(await all(sessions.events.list(session))), "The tool answered:\nhey!");
  },
};

for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
  } catch (error) {
    console.error(`FAILED: ${name}\n${error.stack}`);
    process.exit(1);
  }
  console.log(`ok: ${name}`);
}
