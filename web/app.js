// The page: one conversation, its id in the URL's hash so that a reload shows it again.

import { events } from "/static/sse.js";

const TERMINAL = new Set(["completed", "failed", "cancelled", "interrupted", "timed_out"]);
const SILENCE_MS = 30_000; // the server sends something every 12 s, if only a comment
const POLL_MS = 1_000;

const main = document.querySelector("main");
const list = document.querySelector("#messages");
const welcome = document.querySelector("#welcome");
const notice = document.querySelector("#notice");
const composer = document.querySelector("#composer");
const input = document.querySelector("#input");
const send = document.querySelector("#send");

let conversation = null; // its id
let shown = 0; // counts what was shown: whatever is still under way for an earlier one stops

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

const post = (path, body, signal) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

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
    this.waiting = this.counts = "";
    this.frame = null;
    this.item.append(this.text, this.progress);
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
      this.progress.textContent = this.counts;
    });
    this.waiting = "";
  }

  reset() {
    this.waiting = this.text.textContent = "";
  }

  // What the log says wins over what came through the connection.
  settle(message) {
    this.draw();
    keepInView(() => {
      if (this.text.textContent !== message.content) this.text.textContent = message.content;
    });
    this.busy = !TERMINAL.has(message.status);
    if (message.error) this.fail(message.error.message);
  }

  fail(text) {
    this.draw();
    this.busy = false;
    this.wrong ??= this.item.appendChild(element("p", "wrong"));
    keepInView(() => (this.wrong.textContent = text));
  }
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function describe(progress, firstMs) {
  const { chunks, characters, speed } = progress;
  const parts = [`${chunks} chunks`, `${characters} characters`, `${speed} characters/s`];
  parts.push(`first chunk after ${Math.round(firstMs)} ms`);
  return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · "); // breaks only between the parts
}

// ---- a reply ----

async function reply(text) {
  const mine = shown;
  const bubble = new Bubble("assistant");
  bubble.busy = true;
  main.scrollTop = main.scrollHeight;
  const began = performance.now();
  let id = null;
  let first = null;
  let whole = false;
  const silence = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  try {
    const body = { input: text, delivery: { progress: true } };
    const response = await post(`/conversations/${conversation}/stream`, body, silence.signal);
    id = response.headers.get("X-Message-Id");
    const counted = response.body.pipeThrough(
      new TransformStream({
        transform(bytes, controller) {
          heard();
          controller.enqueue(bytes);
        },
      }),
    );
    heard();
    for await (const event of events(counted)) {
      if (mine !== shown) return;
      if (event.chunk !== undefined) {
        first ??= performance.now() - began;
        bubble.add(event.chunk, describe(event.progress, first));
      } else if (event.reset) {
        bubble.reset();
      } else if (event.done) {
        whole = true;
        bubble.settle(event.message);
      } else if (event.error) {
        whole = true;
        bubble.fail(event.message);
      }
    }
  } catch (error) {
    if (mine !== shown) return;
    if (id === null) throw Object.assign(error, { bubble });
  } finally {
    clearTimeout(timer);
  }
  // Cut before its end: the reply goes on without us, and its log has all of it.
  if (!whole) await follow(id, bubble, mine);
}

async function follow(id, bubble, mine) {
  for (let failures = 0; failures < 10; ) {
    if (mine !== shown) return;
    try {
      const message = await (await call(`/messages/${id}`)).json();
      bubble.settle(message);
      failures = 0;
      if (TERMINAL.has(message.status)) return;
    } catch (error) {
      failures += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  bubble.fail("The connection was lost. What was written is kept: reload the page to see it.");
}

composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value;
  if (!text.trim() || send.disabled) return;
  const mine = shown;
  say("");
  send.disabled = true;
  let bubble = null;
  try {
    if (conversation === null) {
      const created = await (await post("/conversations", { title: text.trim().slice(0, 80) })).json();
      if (mine !== shown) return;
      conversation = created.id;
      window.history.replaceState(null, "", `#${conversation}`);
    }
    bubble = new Bubble("user", text);
    input.value = "";
    await reply(text);
  } catch (error) {
    if (mine !== shown) return;
    // Nothing was started: what was typed goes back to where it was.
    error.bubble?.item.remove();
    bubble?.item.remove();
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
  conversation = id || null;
  list.replaceChildren();
  welcome.hidden = false;
  send.disabled = false;
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
      if (!TERMINAL.has(message.status)) follow(message.id, bubble, mine);
    }
    main.scrollTop = main.scrollHeight;
  } catch (error) {
    if (mine !== shown) return;
    if (error.status === 404) {
      conversation = null;
      window.history.replaceState(null, "", location.pathname);
    }
    say(error.status === 404 ? "That conversation is not here (any more)." : error.message);
  }
}

document.querySelector("#new").addEventListener("click", () => {
  window.history.pushState(null, "", location.pathname);
  show("");
});
window.addEventListener("popstate", () => show(location.hash.slice(1)));
show(location.hash.slice(1));
