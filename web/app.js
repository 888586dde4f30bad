// The page: one conversation, its id in the URL's hash so that a reload shows it again. Its query may say who answers and
// which tools of the stack there are: ?provider=mine&model=large&tools=weather,mail

import { events } from "/static/sse.js";

const TERMINAL = new Set(["completed", "failed", "cancelled", "interrupted", "timed_out"]);
const SILENCE_MS = 30_000; // the server sends something every 12 s, if only a comment
const QUERY = new URLSearchParams(location.search);
const ATTEMPTS = 10; // connections in a row that bring nothing
const LONGEST_PAUSE_MS = 8_000;

const main = document.querySelector("main");
const list = document.querySelector("#messages");
const welcome = document.querySelector("#welcome");
const notice = document.querySelector("#notice");
const composer = document.querySelector("#composer");
const input = document.querySelector("#input");
const send = document.querySelector("#send");
const stop = document.querySelector("#stop");

let conversation = null; // its id
let shown = 0; // counts what was shown: whatever is still under way for an earlier one stops
let unsent = null; // what was sent without an answer: sent again as it is, under the same key, it starts nothing twice
const running = new Set(); // the replies that have not ended, as far as this page knows

// ---- the server ----

class Problem extends Error {}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem("The server cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const problem = new Problem(body.error?.message ?? `The server answered with ${response.status}.`);
  problem.status = response.status;
  throw problem;
}

const post = (path, body, { headers, signal } = {}) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
    signal,
  });

const snapshot = async (id) => (await call(`/messages/${id}`)).json();

async function history(id) {
  const messages = [];
  let cursor = null;
  do {
    const query = new URLSearchParams({ limit: 100, ...(cursor && { cursor }) });
    const page = await (await call(`/conversations/${id}/messages?${query}`)).json();
    messages.push(...page.messages);
    cursor = page.next_cursor;
  } while (cursor);
  return messages;
}

// What each start of this page says beside what the user says.
function asked() {
  const [provider, model] = [QUERY.get("provider"), QUERY.get("model")];
  const tools = (QUERY.get("tools") ?? "").split(",").filter(Boolean);
  return {
    ...(provider && { provider }),
    ...(model && { model }),
    ...(tools.length && { options: { tools } }),
    delivery: { progress: true, parts: true },
  };
}

// ---- what is on the page ----

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function keepInView(change) {
  const atEnd = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
  change();
  if (atEnd) main.scrollTop = main.scrollHeight;
}

class Bubble {
  constructor(role, text = "") {
    this.item = element("li", `message ${role}`);
    this.text = element("p", "text", text);
    this.progress = element("p", "progress");
    this.waiting = "";
    this.counts = [];
    this.frame = null;
    this.calls = new Map(); // what is shown of each call of a tool
    this.tools = element("ul", "tools");
    this.item.append(this.tools, this.text, this.progress);
    this.item.setAttribute("aria-label", role === "user" ? "You" : "Reply");
    welcome.hidden = true;
    keepInView(() => list.append(this.item));
  }

  set busy(busy) {
    // A screen reader is told of the reply once it is whole, not for each chunk.
    this.item.setAttribute("aria-busy", String(busy));
  }

  // Drawn once a frame: a fast provider sends many chunks in one.
  add(chunk, progress) {
    this.waiting += chunk;
    this.counts = progress;
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    keepInView(() => {
      this.text.append(this.waiting);
      this.progress.replaceChildren(...this.counts.map((count) => element("span", "", count)));
    });
    this.waiting = "";
  }

  reset() {
    this.waiting = this.text.textContent = "";
    this.thoughts?.remove();
    this.thoughts = undefined;
    this.calls.clear();
    this.tools.replaceChildren();
  }

  // ---- beside the text ----

  think(text) {
    if (!this.thoughts) {
      this.thoughts = element("details", "thoughts");
      this.thoughts.append(element("summary", "", "Reasoning"), element("p", "thought"));
      this.item.prepend(this.thoughts);
    }
    keepInView(() => this.thoughts.lastChild.append(text));
  }

  call({ id, name, arguments: given }) {
    if (this.calls.has(id)) return;
    const shown = element("li", "tool");
    const details = element("details", "");
    details.append(element("summary", "", name), element("pre", "", given ?? ""));
    shown.append(details, element("span", "state", "\u2026"));
    this.calls.set(id, shown);
    keepInView(() => this.tools.append(shown));
  }

  result({ id, name, result, is_error: failed }) {
    this.call({ id, name });
    const shown = this.calls.get(id);
    if (shown.classList.contains("over")) return;
    shown.classList.add("over");
    shown.querySelector("details").append(element("pre", "", result ?? ""));
    shown.querySelector(".state").textContent = failed ? "failed" : "done";
    shown.classList.toggle("failed", failed === true);
  }

  // Calls that wait for a yes or a no; `decide` is called once there is one for each.
  ask(waiting, decide) {
    const decisions = {};
    for (const id of waiting) {
      const shown = this.calls.get(id);
      if (!shown) continue;
      shown.querySelector(".state").textContent = "waits for you";
      const choose = (text, approved) => {
        const button = element("button", "choice", text);
        button.type = "button";
        button.addEventListener("click", () => {
          decisions[id] = approved;
          shown.querySelectorAll(".choice").forEach((each) => each.remove());
          shown.querySelector(".state").textContent = approved ? "allowed" : "not allowed";
          if (Object.keys(decisions).length === waiting.length) decide(decisions);
        });
        return button;
      };
      keepInView(() => shown.append(choose("Allow", true), choose("Don't", false)));
    }
  }

  // What the log says wins over what came through the connection.
  settle(message) {
    this.draw();
    const { reasoning, tool_calls: calls = [], tool_results: results = [], approvals = [] } = message.metadata ?? {};
    if (reasoning && !this.thoughts) this.think(reasoning);
    calls.forEach((each) => this.call(each));
    results.forEach((each) => this.result(each));
    for (const each of message.metadata?.unfinished_tools ?? []) {
      const shown = this.calls.get(each.id);
      if (shown) shown.querySelector(".state").textContent = "nobody knows";
    }
    if (approvals.length && !message.metadata.continued_by) this.ask(approvals, goOn);
    keepInView(() => {
      if (this.text.textContent === message.content) return;
      this.text.textContent = message.content;
      this.progress.replaceChildren(); // it counted what was shown before
    });
    this.busy = !TERMINAL.has(message.status);
    if (message.error) this.end(message.error.type, message.error.message);
  }

  // What was asked for is no failure.
  end(type, text) {
    this.draw();
    this.busy = false;
    this.note ??= this.item.appendChild(element("p", ""));
    this.note.className = type === "cancelled" ? "stopped" : "wrong";
    keepInView(() => (this.note.textContent = type === "cancelled" ? "Stopped." : text));
  }
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function describe(progress, firstMs) {
  const { chunks, characters, speed } = progress;
  const first = `first chunk after ${Math.round(firstMs)} ms`;
  return [`${chunks} chunks`, `${characters} characters`, `${speed} characters/s`, first];
}

// ---- a reply ----

class Reply {
  constructor(bubble) {
    this.bubble = bubble;
    this.id = null;
    this.cursor = ""; // the id of the last event that came
    this.connection = new AbortController();
    this.began = performance.now();
    this.first = null;
    this.mine = shown;
    this.stopped = false;
    bubble.busy = true;
  }

  // Whether what still comes is not for the page any more.
  get stale() {
    return this.stopped || this.mine !== shown;
  }

  // From its beginning: posted again under the same key, the start attaches to the reply that it started before.
  begin(text, key) {
    const body = { input: text, ...asked() };
    const headers = { "Idempotency-Key": key };
    return this.run((signal) => post(`/conversations/${conversation}/stream`, body, { headers, signal }));
  }

  // A reply that goes on with one that waits.
  decide(approvals, key) {
    const body = { approvals, ...asked() };
    const headers = { "Idempotency-Key": key };
    return this.run((signal) => post(`/conversations/${conversation}/stream`, body, { headers, signal }));
  }

  // From where a snapshot of it ends.
  resume(message) {
    this.id = message.id;
    this.cursor = `${message.id}:${message.seq}`;
    return this.run();
  }

  // To its end, over as many connections as that takes. Cut, the reply goes on without us and its log has all of it.
  async run(start) {
    const resume = (signal) =>
      call(`/messages/${this.id}/stream?progress=true&parts=true`, { headers: this.cursor ? { "Last-Event-ID": this.cursor } : {}, signal });
    running.add(this);
    showStop();
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        if (attempt) await pause(attempt);
        if (this.stale) return;
        const before = this.cursor;
        try {
          if (await this.listen(this.id === null ? start : resume)) return;
        } catch (error) {
          if (this.stale) return;
          const refused = error.status !== undefined && error.status < 500;
          if (this.id === null && (refused || attempt >= 2)) throw error;
          if (refused) return this.bubble.end("not_found", error.message);
        }
        if (this.cursor !== before) attempt = 0;
      }
      this.bubble.end("lost", "The connection was lost. What was written is kept: reload the page to see it.");
    } finally {
      running.delete(this);
      showStop();
    }
  }

  // Return whether it has ended.
  async listen(connect) {
    this.connection = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.connection.abort(), SILENCE_MS);
    };
    heard();
    try {
      const response = await connect(this.connection.signal);
      this.id ??= response.headers.get("X-Message-Id");
      showStop();
      if (response.status === 204) return await this.settle();
      const counted = response.body.pipeThrough(
        new TransformStream({
          transform(bytes, controller) {
            heard();
            controller.enqueue(bytes);
          },
        }),
      );
      for await (const { id, data } of events(counted)) {
        if (this.stale) return true;
        this.cursor = id;
        if (data.chunk !== undefined) this.add(data);
        else if (data.reset) this.bubble.reset();
        else if (data.reasoning) this.bubble.think(data.reasoning);
        else if (data.tool_call) this.bubble.call(data.tool_call);
        else if (data.tool_result) this.bubble.result(data.tool_result);
        else if (data.done) return this.bubble.settle(data.message), true;
        else if (data.error) return await this.settle(data);
      }
      return false;
    } finally {
      clearTimeout(timer);
    }
  }

  add({ chunk, progress }) {
    this.first ??= performance.now() - this.began;
    this.bubble.add(chunk, progress ? describe(progress, this.first) : []);
  }

  // An end without the whole message: what is stored is what counts.
  async settle(end) {
    try {
      const stored = await snapshot(this.id);
      if (!this.stale) this.bubble.settle(stored);
    } catch (error) {
      if (!this.stale) this.bubble.end(end?.error_type, end?.message ?? error.message);
    }
    return true;
  }

  // Ends it for everybody. Its connection would say so too, up to half a second and some chunks later.
  async cancel() {
    const stored = await (await post(`/messages/${this.id}/cancel`, {})).json();
    if (this.stale) return;
    this.bubble.settle(stored);
    this.stopped = true;
    this.connection.abort();
  }
}

async function goOn(approvals) {
  const mine = shown;
  say("");
  const answer = new Bubble("assistant");
  try {
    await new Reply(answer).decide(approvals, crypto.randomUUID());
  } catch (error) {
    if (mine !== shown) return;
    answer.item.remove();
    say(error instanceof Problem ? error.message : "Something went wrong on this page.");
  }
}

const pause = (attempt) =>
  new Promise((resolve) => setTimeout(resolve, Math.min(250 * 2 ** (attempt - 1), LONGEST_PAUSE_MS)));

function showStop() {
  const open = [...running].filter((reply) => !reply.stale);
  send.hidden = open.length > 0;
  stop.hidden = !send.hidden;
  stop.disabled = open.some((reply) => reply.id === null);
}

stop.addEventListener("click", async () => {
  stop.disabled = true;
  say("");
  try {
    await Promise.all([...running].filter((reply) => !reply.stale).map((reply) => reply.cancel()));
  } catch (error) {
    say(error instanceof Problem ? error.message : "Something went wrong on this page.");
  } finally {
    showStop();
  }
});

composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value;
  if (!text.trim() || send.disabled || send.hidden) return;
  const mine = shown;
  say("");
  send.disabled = true;
  let question = null;
  let answer = null;
  try {
    if (conversation === null) {
      const created = await (await post("/conversations", { title: text.trim().slice(0, 80) })).json();
      if (mine !== shown) return;
      conversation = created.id;
      window.history.replaceState(null, "", `#${conversation}`);
    }
    if (unsent?.text !== text || unsent.conversation !== conversation) {
      unsent = { conversation, text, key: crypto.randomUUID() };
    }
    question = new Bubble("user", text);
    answer = new Bubble("assistant");
    main.scrollTop = main.scrollHeight;
    input.value = "";
    await new Reply(answer).begin(text, unsent.key);
    unsent = null;
  } catch (error) {
    if (mine !== shown) return;
    // Nothing was started, as far as we know: what was typed goes back to where it was.
    answer?.item.remove();
    question?.item.remove();
    if (!list.children.length) welcome.hidden = false;
    input.value = text;
    say(error instanceof Problem ? error.message : "Something went wrong on this page.");
  } finally {
    if (mine === shown) {
      send.disabled = false;
      input.focus();
    }
  }
});

input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});

// ---- which conversation ----

async function show(id) {
  const mine = ++shown;
  for (const reply of running) reply.connection.abort();
  conversation = id || null;
  list.replaceChildren();
  welcome.hidden = false;
  send.disabled = false;
  showStop();
  say("");
  input.focus();
  if (conversation === null) return;
  try {
    const messages = await history(conversation);
    if (mine !== shown) return;
    for (const message of messages) {
      if (message.role !== "user" && message.role !== "assistant") continue;
      const bubble = new Bubble(message.role);
      bubble.settle(message);
      if (!TERMINAL.has(message.status)) new Reply(bubble).resume(message);
    }
    main.scrollTop = main.scrollHeight;
  } catch (error) {
    if (mine !== shown) return;
    if (error.status === 404) {
      conversation = null;
      window.history.replaceState(null, "", location.pathname + location.search);
    }
    say(error.status === 404 ? "That conversation is not here (any more)." : error.message);
  }
}

document.querySelector("#new").addEventListener("click", () => {
  window.history.pushState(null, "", location.pathname + location.search);
  show("");
});
window.addEventListener("popstate", () => show(location.hash.slice(1)));
show(location.hash.slice(1));
