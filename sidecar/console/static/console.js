// The console's one script. What agents, models and tools say is untrusted: it becomes text nodes, never markup,
// and the policy of the page (require-trusted-types-for) has the browser refuse anything else.
"use strict";

const API = "/console/api/v1";
const MAX_SHOWN_CHARS = 100_000;
const PAGE = 200;
const MAX_SHOWN_EVENTS = 3000;

const find = (selector) => document.querySelector(selector);
const token = find('meta[name="console-token"]')?.content ?? "";

/** What has no picture of its own, or turns the order of what follows: a command that is asked about must read as
 * it runs. The pages do the same, see rendering.py. */
const UNSEEN = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

function visible(text) {
  return text.replace(UNSEEN, (one) => `⟨U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** Make an element: el("p", { class: "quiet" }, "text", child). */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  const shown = children.filter((child) => child !== null);
  node.append(...shown.map((child) => (typeof child === "string" ? visible(child) : child)));
  return node;
}

/** Show moments in the reader's own time. */
function localTimes(root) {
  for (const node of root.querySelectorAll("time[datetime]")) {
    const at = new Date(node.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const isToday = at.toDateString() === new Date().toDateString();
    node.textContent = isToday ? at.toLocaleTimeString() : at.toLocaleString();
    node.title = node.dateTime;
  }
}

/** Read a page of ours as an inert document; its scripts do not run. */
function load(address) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", address);
    request.responseType = "document";
    request.timeout = 15_000;
    request.onload = () => (request.status === 200 && request.response ? resolve(request.response) : reject());
    request.onerror = request.ontimeout = reject;
    request.send();
  });
}

/** Replace one part of this page by the same part of another reading of it. */
async function replacePart(id, address) {
  const page = await load(address).catch(() => null);
  document.body.toggleAttribute("data-stale", page === null);
  const old = document.getElementById(id);
  const fresh = page?.getElementById(id);
  if (page && !fresh) location.reload(); // signed out meanwhile: the sign-in is shown
  if (!old || !fresh) return;
  localTimes(fresh);
  old.replaceWith(document.importNode(fresh, true));
}

/** Parts with data-refresh are read again after so many seconds, unless the reader is busy in them. */
function refreshParts() {
  for (const part of document.querySelectorAll("[data-refresh]")) {
    const seconds = Number(part.dataset.refresh);
    setInterval(() => {
      const current = document.getElementById(part.id);
      const isBusy = current.contains(document.activeElement) || !getSelection().isCollapsed;
      if (document.visibilityState === "visible" && !isBusy) replacePart(part.id, location.href);
    }, seconds * 1000);
  }
}

/** Forms with data-search show their result while one types, in the part of that id. */
function searchAsYouType() {
  for (const form of document.querySelectorAll("form[data-search]")) {
    let timer = 0;
    let wanted = 0;
    const show = async () => {
      const address = `${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`;
      const turn = ++wanted;
      const page = await load(address).catch(() => null);
      const fresh = page?.getElementById(form.dataset.search);
      if (turn !== wanted || !fresh) return;
      localTimes(fresh);
      document.getElementById(form.dataset.search).replaceWith(document.importNode(fresh, true));
      history.replaceState(null, "", address);
    };
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(show, 150);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      show();
    });
  }
}

/** Call the API with the page's session; throws an Error with the API's own sentence. */
async function call(path, body) {
  const answer = await fetch(API + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "content-type": "application/json", "x-console-token": token },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const said = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(said?.error?.message ?? `the sidecar answered ${answer.status}`);
  return said;
}

// ---- one session's timeline

const USES = new Set(["agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"]);
const RESULT_OF = {
  "agent.tool_result": "tool_use_id",
  "agent.mcp_tool_result": "mcp_tool_use_id",
  "user.tool_result": "tool_use_id",
  "user.custom_tool_result": "custom_tool_use_id",
};
const STREAMED = [
  "user.message", "user.interrupt", "user.tool_confirmation", "user.custom_tool_result", "user.tool_result",
  "system.message", "agent.message", "agent.thinking", "agent.tool_use", "agent.tool_result",
  "agent.mcp_tool_use", "agent.mcp_tool_result", "agent.custom_tool_use", "agent.thread_context_compacted",
  "session.status_running", "session.status_idle", "session.status_rescheduled", "session.status_terminated",
  "session.thread_status_running", "session.thread_status_idle", "session.thread_status_rescheduled",
  "session.thread_status_terminated", "session.usage", "session.updated", "session.error", "session.deleted",
  "span.model_request_start", "span.model_request_end", "event_start", "event_delta",
];
const STOPS = { end_turn: "turn ended", requires_action: "waits for an answer", retries_exhausted: "turn failed" };

function cut(text) {
  return text.length <= MAX_SHOWN_CHARS ? text : `${text.slice(0, MAX_SHOWN_CHARS)}\n… ${text.length - MAX_SHOWN_CHARS} more characters`;
}

function textOf(content) {
  if (typeof content === "string") return cut(content);
  return cut((content ?? []).map((block) => (block.type === "text" ? block.text : `[${block.type}]`)).join("\n"));
}

function asJson(value) {
  return cut(JSON.stringify(value, null, 2));
}

/** The argument by which people know a call, on one line. */
function brief(input) {
  const values = Object.values(input ?? {});
  const known = input?.command ?? input?.filePath ?? input?.path ?? input?.pattern ?? input?.url;
  const shown = known ?? values.find((value) => typeof value === "string") ?? "";
  return String(shown).split("\n", 1)[0].slice(0, 200);
}

/** A session's events, shown in order. Events come from the list and from the stream, and twice if they are in both. */
class Timeline {
  constructor(list) {
    this.list = list;
    this.clear();
  }

  clear() {
    this.events = new Map();
    this.nodes = new Map();
    this.results = new Map();
    this.decisions = new Map();
    this.blocked = [];
    this.state = "idle";
    this.list.replaceChildren();
  }

  /** Show an event unless it is shown; one that was queued moves to where it was processed. */
  take(event) {
    const known = this.events.get(event.id);
    if (known && (known.processed_at || !event.processed_at)) return;
    this.events.set(event.id, event);
    this.note(event);
    const node = this.draw(event);
    const old = this.nodes.get(event.id);
    if (node === null) return;
    if (!event.processed_at && event.type.startsWith("user.")) node.classList.add("is-queued");
    this.nodes.set(event.id, node);
    node.dataset.id = event.id;
    if (old && old.classList.contains("is-partial")) old.replaceWith(node);
    else {
      old?.remove();
      this.list.append(node);
    }
  }

  /** Show the beginning of a message that is being written. */
  preview(frame) {
    if (frame.type === "event_start") {
      const { id, type } = frame.event;
      if (this.nodes.has(id)) return;
      const node = type === "agent.message" ? item("agent", "agent", text("")) : slim("agent", "thinking…");
      node.classList.add("is-partial");
      node.setAttribute("aria-live", "off"); // the whole message is announced, not each piece
      this.nodes.set(id, node);
      node.dataset.id = id;
      this.list.append(node);
      return;
    }
    const node = this.nodes.get(frame.event_id);
    const piece = frame.delta?.text ?? frame.delta?.content?.text ?? "";
    if (node?.classList.contains("is-partial")) node.querySelector(".text")?.append(visible(piece));
  }

  /** Keep what an event says about the session. */
  note(event) {
    switch (event.type) {
      case "session.status_running": this.state = "running"; this.blocked = []; break;
      case "session.status_rescheduled": this.state = "rescheduling"; break;
      case "session.status_terminated": this.state = "terminated"; this.blocked = []; break;
      case "session.status_idle":
        this.blocked = event.stop_reason?.type === "requires_action" ? event.stop_reason.event_ids : [];
        this.state = this.blocked.length ? "waiting" : "idle";
        for (const node of this.list.querySelectorAll(".is-partial")) node.classList.remove("is-partial");
        break;
      case "user.tool_confirmation": this.decisions.set(event.tool_use_id, event.result); break;
    }
    const use = event[RESULT_OF[event.type]];
    if (use) this.results.set(use, event);
  }

  /** Drop the oldest events of a page that stays open for long; return whether there were such. */
  trim() {
    let isTrimmed = false;
    while (this.list.childElementCount > MAX_SHOWN_EVENTS) {
      const oldest = this.list.firstElementChild;
      const { id } = oldest.dataset;
      this.events.delete(this.results.get(id)?.id);
      for (const known of [this.events, this.nodes, this.results, this.decisions]) known.delete(id);
      oldest.remove();
      isTrimmed = true;
    }
    return isTrimmed;
  }

  /** Calls that wait for an answer and have none yet. */
  open() {
    return this.blocked
      .filter((id) => !this.decisions.has(id) && !this.results.has(id))
      .map((id) => this.events.get(id))
      .filter((event) => event);
  }

  draw(event) {
    const use = event[RESULT_OF[event.type]];
    if (use && this.nodes.has(use)) {
      this.finish(this.nodes.get(use), event);
      return null;
    }
    if (USES.has(event.type)) return this.toolNode(event);
    switch (event.type) {
      case "user.message": return item("user", "user", text(textOf(event.content)));
      case "agent.message": return item("agent", "agent", text(textOf(event.content)));
      case "system.message": return item("system", "system", text(textOf(event.content)));
      case "agent.thinking": return slim("agent", "thought about it");
      case "agent.thread_context_compacted": return slim("agent", "shortened its context");
      case "user.interrupt": return slim("user", "interrupts");
      case "user.tool_confirmation": return this.decisionNode(event);
      case "session.error":
        return item("error", "error", text(`${event.error?.type ?? "error"}: ${event.error?.message ?? ""}`));
      case "session.status_idle": {
        const stop = event.stop_reason?.type ?? "";
        return slim("session", STOPS[stop] ?? `stopped: ${stop}`, event.processed_at);
      }
      case "session.status_rescheduled": return slim("session", "a model request failed and is tried again");
      case "session.status_terminated": return slim("session", "ended for good", event.processed_at);
      case "span.model_request_end": {
        const used = event.model_usage ?? {};
        const cached = used.cache_read_input_tokens ? `, ${used.cache_read_input_tokens} from the cache` : "";
        const said = `model request${event.is_error ? " failed" : ""}: ${used.input_tokens ?? 0} tokens in${cached}, ${used.output_tokens ?? 0} out`;
        return slim("model", said);
      }
      default: return this.otherNode(event);
    }
  }

  toolNode(event) {
    const server = event.mcp_server_name ? `${event.mcp_server_name}: ` : "";
    const badge = el("span", { class: "badge" }, event.evaluated_permission === "deny" ? "denied" : "called");
    const details = el(
      "details", {},
      el("summary", {}, el("span", { class: "name" }, server + event.name), el("span", { class: "brief" }, brief(event.input)), badge),
      el("pre", { class: "input", tabindex: "0", "aria-label": "input" }, asJson(event.input)),
    );
    const node = item("tool", "tool", details);
    const result = this.results.get(event.id);
    if (result) this.finish(node, result);
    return node;
  }

  /** Show on a call's line how it stands. */
  mark(id, words, kind) {
    const badge = this.nodes.get(id)?.querySelector("summary .badge");
    if (!badge) return;
    badge.textContent = words;
    badge.className = `badge ${kind}`;
  }

  finish(node, result) {
    const badge = node.querySelector("summary .badge");
    const isError = result.is_error === true;
    badge.textContent = isError ? "error" : "done";
    badge.className = `badge ${isError ? "bad" : "ok"}`;
    const output = textOf(result.content) || "(no output)";
    node.querySelector("details").append(el("pre", { class: "output", tabindex: "0", "aria-label": "output" }, output));
  }

  decisionNode(event) {
    const call = this.events.get(event.tool_use_id);
    if (!this.results.has(event.tool_use_id)) this.mark(event.tool_use_id, event.result === "allow" ? "allowed" : "denied", "");
    const why = event.deny_message ? `: ${event.deny_message}` : "";
    return slim("user", `${event.result === "allow" ? "allows" : "denies"} ${call?.name ?? "a call"}${why}`);
  }

  otherNode(event) {
    const { type, id, processed_at, ...rest } = event;
    const node = item("slim", "", el("details", {}, el("summary", {}, type), el("pre", { tabindex: "0", "aria-label": type }, asJson(rest))));
    if (/^(span\.|session\.(thread_|usage|status_running|updated))/.test(type)) node.classList.add("bookkeeping");
    return node;
  }
}

function text(said) {
  return el("div", { class: "text" }, said);
}

function item(kind, who, body) {
  return el("li", { class: kind }, el("span", { class: "who" }, who), body);
}

function slim(who, said, at) {
  const time = at ? el("time", { datetime: at }, at) : null;
  const node = item("slim", who, el("span", {}, said, time ? " · " : "", time));
  localTimes(node);
  return node;
}

/** Wire a session's page: history, stream, answers, messages. */
function watchSession(section) {
  const session = section.dataset.session;
  const path = `/sessions/${session}/events`;
  const asked = "event_deltas[]=agent.message&event_deltas[]=agent.thinking";
  const timeline = new Timeline(find("#events"));
  const problem = find("#problem");
  const connection = find("#connection");
  let isFirst = true;
  let earlierPage = null;
  let waiting = null;
  let shownState = null;

  const complain = (error) => {
    problem.textContent = error ? visible(error.message) : "";
    problem.hidden = !error;
  };

  const send = async (...events) => {
    try {
      const { data } = await call(path, { events });
      complain(null);
      take(...data);
      return true;
    } catch (error) {
      complain(error);
      return false;
    }
  };

  function take(...events) {
    const isAtEnd = innerHeight + scrollY >= document.body.scrollHeight - 80;
    for (const event of events) timeline.take(event);
    if (timeline.trim()) {
      earlierPage = null;
      find("#earlier").hidden = true;
      find("#trimmed").hidden = false;
    }
    update();
    if (isAtEnd) scrollTo(0, document.body.scrollHeight);
  }

  function update() {
    showPending(timeline.open());
    find("#interrupt").disabled = !["running", "rescheduling", "waiting"].includes(timeline.state);
    if (timeline.state !== shownState) {
      shownState = timeline.state;
      replacePart("facts", location.href);
    }
    if (timeline.state === "terminated") for (const control of find("#composer").elements) control.disabled = true;
  }

  function showPending(calls) {
    const box = find("#pending");
    const ids = calls.map((call) => call.id).join();
    if (box.dataset.ids === ids) return;
    box.dataset.ids = ids;
    for (const call of calls) timeline.mark(call.id, "waits", "warn");
    box.hidden = calls.length === 0;
    box.replaceChildren(...calls.map(question));
  }

  function question(event) {
    const head = el("p", {}, el("strong", {}, event.name), " waits for an answer");
    const input = el("pre", { tabindex: "0", "aria-label": "input" }, asJson(event.input));
    if (event.type === "agent.custom_tool_use") {
      return el("div", {}, head, input, el("p", { class: "quiet" }, "Its client executes this tool and sends user.custom_tool_result."));
    }
    const allow = el("button", { type: "button", class: "primary" }, "Allow");
    const deny = el("button", { type: "button" }, "Deny");
    const why = el("input", { type: "text", placeholder: "reason, when denied", "aria-label": "Reason, when denied" });
    const answer = async (result) => {
      allow.disabled = deny.disabled = true;
      const event_ = { type: "user.tool_confirmation", tool_use_id: event.id, result };
      if (result === "deny" && why.value) event_.deny_message = why.value;
      if (!(await send(event_))) allow.disabled = deny.disabled = false;
    };
    allow.addEventListener("click", () => answer("allow"));
    deny.addEventListener("click", () => answer("deny"));
    return el("div", {}, head, input, el("div", { class: "actions" }, allow, deny, why));
  }

  /** Read the newest page, or what is missing since the last one: back to an event that is known. */
  async function readHistory() {
    let page = null;
    const found = [];
    for (let count = 0; count < 20; count++) {
      const more = page ? `&page=${encodeURIComponent(page)}` : "";
      const answer = await call(`${path}?order=desc&limit=${PAGE}&${asked}${more}`);
      found.push(answer.data);
      page = answer.next_page;
      if (isFirst || !page || answer.data.some((event) => timeline.events.get(event.id)?.processed_at)) break;
    }
    if (isFirst) earlierPage = page;
    isFirst = false;
    take(...found.flat().reverse());
    find("#earlier").hidden = !earlierPage;
  }

  async function readEarlier() {
    const answer = await call(`${path}?order=desc&limit=${PAGE}&${asked}&page=${encodeURIComponent(earlierPage)}`);
    earlierPage = answer.next_page;
    const shown = [...timeline.events.values()];
    timeline.clear();
    take(...answer.data.reverse(), ...shown);
    find("#earlier").hidden = !earlierPage;
  }

  function openStream() {
    const source = new EventSource(`${API}${path}/stream?${asked}`);
    source.onopen = async () => {
      connection.textContent = "live";
      waiting = [];
      try {
        await readHistory();
      } catch (error) {
        complain(error);
      }
      const late = waiting;
      waiting = null;
      for (const event of late) show(event);
    };
    source.onerror = () => {
      connection.textContent = source.readyState === EventSource.CLOSED ? "not connected: load the page again" : "reconnecting…";
    };
    const show = (event) => {
      if (event.type.startsWith("event_")) timeline.preview(event);
      else take(event);
      if (["session.status_terminated", "session.deleted"].includes(event.type)) {
        source.close();
        connection.textContent = "ended";
      }
    };
    for (const type of STREAMED) {
      source.addEventListener(type, (message) => {
        const event = JSON.parse(message.data);
        if (waiting) waiting.push(event);
        else show(event);
      });
    }
  }

  find("#composer").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = find("#message");
    const content = [{ type: "text", text: field.value }];
    if (field.value.trim() && (await send({ type: "user.message", content }))) field.value = "";
    field.focus();
  });
  find("#message").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("#composer").requestSubmit();
  });
  find("#interrupt").addEventListener("click", () => send({ type: "user.interrupt" }));
  find("#earlier").addEventListener("click", () => readEarlier().catch(complain));
  find("#bookkeeping").addEventListener("change", (event) => {
    timeline.list.classList.toggle("shows-bookkeeping", event.target.checked);
  });

  if (section.dataset.ended) {
    connection.textContent = "ended";
    readHistory().catch(complain);
  } else {
    openStream();
  }
}

localTimes(document);
refreshParts();
searchAsYouType();
const timelineSection = find(".timeline");
if (timelineSection) watchSession(timelineSection);
