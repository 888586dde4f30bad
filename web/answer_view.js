// A reply on the page: what it says, thinks and does, in the order in which it comes, and what it came to.

import { countsOf, countsSoFar, partsOf } from "./answer_parts.js";
import { copyButton } from "./copy.js";
import { button, element, iconButton } from "./element.js";
import { explain } from "./explain.js";
import { MarkdownView } from "./markdown_view.js";
import { ToolView } from "./tool_view.js";

const NOTES = {
  cancelled: "Stopped.",
  interrupted: "Interrupted.",
};

export class AnswerView {
  /** @param actions  {retry(answer), goOn(answer), decide(answer, approvals), reconnect(answer)} */
  constructor(actions) {
    this.actions = actions;
    this.id = null;
    this.createdAt = null;
    this.message = null;
    this.said = ""; // what is drawn of its text
    this.item = element("li", "message assistant");
    this.parts = element("div", "parts");
    this.link = element("p", "link");
    this.link.setAttribute("role", "status");
    this.footer = element("div", "footer");
    this.progress = element("p", "progress");
    this.tools = element("div", "actions");
    this.footer.append(this.progress, this.tools);
    this.item.append(element("h2", "unseen", "Reply"), this.parts, this.link, this.footer);
    this.#clear();
  }

  /** A screen reader is told of the reply once it is whole, not for each chunk. */
  set busy(busy) {
    this.item.setAttribute("aria-busy", String(busy));
  }

  get isBusy() {
    return this.item.getAttribute("aria-busy") === "true";
  }

  #clear() {
    this.parts.replaceChildren();
    this.said = "";
    this.calls = new Map();
    this.last = null; // the part that more of its kind goes into
    this.steps = 1;
    this.isAtStep = false;
  }

  // ---- what comes ----

  /** Take an event. It is drawn with the next `draw`. */
  take(event) {
    if (event.type === "text") {
      this.said += event.text;
      this.#part("text", () => this.#text()).view.add(event.text);
    } else if (event.type === "reasoning") this.#think(event.text);
    else if (event.tool) this.#tool(event.tool);
    else if (event.type === "step") this.isAtStep = true;
    else if (event.type === "reset") this.#clear();
    else if (event.type === "progress") this.counted = event.progress;
  }

  draw() {
    if (this.counted) this.#count(countsSoFar(this.counted));
    this.counted = null;
    if (this.last?.kind === "text") this.last.view.draw();
  }

  #part(kind, make) {
    if (this.isAtStep) {
      this.isAtStep = false;
      this.steps += 1;
      this.#close();
      this.parts.append(element("p", "step", `Step ${this.steps}`));
    }
    if (this.last?.kind === kind) return this.last;
    this.#close();
    this.last = { kind, ...make() };
    this.parts.append(this.last.element);
    return this.last;
  }

  #close() {
    if (this.last?.kind === "text") this.last.view.end();
    this.last = null;
  }

  #text() {
    const body = element("div", "text");
    return { element: body, view: new MarkdownView(body) };
  }

  #think(text) {
    const { thought } = this.#part("reasoning", () => {
      const details = element("details", "thoughts");
      const body = element("p", "thought");
      details.append(element("summary", "", "Reasoning"), body);
      return { element: details, thought: body };
    });
    thought.append(text);
  }

  #tool(tool) {
    const known = this.calls.get(tool.id);
    if (known) return known.show(tool);
    const view = new ToolView(tool);
    this.calls.set(tool.id, view);
    this.#part("tools", () => ({ element: element("ul", "tools") })).element.append(view.element);
  }

  #count(counts) {
    this.progress.replaceChildren(...counts.map((count) => element("span", "", count)));
  }

  // ---- what is stored ----

  /** Show a message as it is stored, whatever was shown before. */
  show(message) {
    this.#clear();
    for (const part of partsOf(message)) {
      if (part.kind === "text") this.take({ type: "text", text: part.text });
      else if (part.kind === "reasoning") this.#think(part.text);
      else if (part.kind === "tools") part.tools.forEach((tool) => this.#tool(tool));
      else this.isAtStep = true;
    }
  }

  /** The reply has ended: what is stored is what counts. */
  settle(message) {
    this.id = message.id;
    this.createdAt = message.created_at;
    this.message = message;
    const stored = partsOf(message);
    const isWhole = message.truncated || this.said === message.content;
    const calls = stored.flatMap((part) => part.tools ?? []);
    if (!isWhole || calls.some(({ id }) => !this.calls.has(id))) this.show(message);
    else calls.forEach((tool) => this.#tool(tool));
    this.#close();
    this.busy = false;
    this.link.textContent = "";
    this.#count(countsOf(message));
    this.#end(message);
  }

  #end(message) {
    const { status, error, metadata = {} } = message;
    const note = NOTES[status] ?? (status === "failed" || status === "timed_out" ? error?.message || "It failed." : "");
    const advice = status === "cancelled" ? "" : explain({ message: note, type: error?.type ?? status });
    this.#note(status === "cancelled" ? "stopped" : "wrong", note && (advice || note));
    const goesOn = metadata.approvals?.length || metadata.continued_by;
    const canGoOn = status === "interrupted" && metadata.steps && !goesOn;
    this.#show([
      message.content && copyButton("Copy the answer", () => message.content),
      !goesOn && iconButton("retry", "Answer again", () => this.actions.retry(this), "retry"),
      canGoOn && button("Go on", "go-on", () => this.actions.goOn(this)),
    ]);
    if (metadata.approvals?.length && !metadata.continued_by) this.#ask(metadata.approvals);
  }

  /** It cannot be followed, and nobody here knows how it went on. */
  lose(error) {
    this.#close();
    this.busy = false;
    this.link.textContent = "";
    this.#note("wrong", explain(error));
    this.#show([button("Reconnect", "reconnect", () => this.actions.reconnect(this))]);
  }

  begin() {
    this.busy = true;
    this.note?.remove();
    this.note = null;
    this.#show([]);
  }

  #note(kind, text) {
    this.note?.remove();
    this.note = text ? element("p", kind, text) : null;
    if (this.note) this.footer.before(this.note);
  }

  #show(actions) {
    this.tools.replaceChildren(...actions.filter(Boolean));
  }

  /** Calls that wait for a yes or a no; the answer goes on once there is one for each. */
  #ask(waiting) {
    const decisions = {};
    for (const id of waiting) {
      this.calls.get(id)?.ask((isApproved) => {
        decisions[id] = isApproved;
        if (Object.keys(decisions).length === waiting.length) this.actions.decide(this, decisions);
      });
    }
  }
}
