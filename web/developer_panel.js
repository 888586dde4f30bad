// What comes from the server, as it comes: for whoever wants to build on it.

import { copyButton } from "./copy.js";
import { button, element, iconButton } from "./element.js";
import { remember, remembered } from "./drafts.js";

const MOST = 300; // events that are kept
const LONGEST = 2000; // characters of one that are shown

export class DeveloperPanel {
  #panel = document.querySelector("#developer");
  #opener = document.querySelector("#show-developer");
  #facts = element("dl", "facts");
  #log = element("ol", "events");
  #cut = button("Cut the connection", "cut", () => this.#reply?.disconnect());
  #curl = element("pre", "curl");
  #reply = null;
  #events = []; // what waits to be drawn
  #frame = null;
  #counts = { events: 0, connections: 0 };
  #segment = null;

  constructor() {
    this.#opener.addEventListener("click", () => this.toggle(!this.isOpen));
    const head = element("div", "head");
    head.append(element("h2", "", "Developer panel"), iconButton("cross", "Close the developer panel", () => this.toggle(false)));
    this.#log.tabIndex = 0;
    this.#log.setAttribute("role", "list");
    this.#log.setAttribute("aria-label", "Events as they came");
    this.#curl.tabIndex = 0;
    this.#curl.setAttribute("role", "group");
    this.#curl.setAttribute("aria-label", "The same with curl");
    const same = element("div", "same");
    same.append(element("h3", "", "The same with curl"), copyButton("Copy the command", () => this.#curl.textContent));
    this.#panel.append(head, this.#facts, this.#cut, same, this.#curl, element("h3", "", "Events"), this.#log);
    this.#show();
    this.toggle(remembered("developer") === "open");
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  toggle(isOpen) {
    const hadFocus = this.#panel.contains(document.activeElement);
    this.#panel.hidden = !isOpen;
    document.body.classList.toggle("developing", isOpen);
    this.#opener.setAttribute("aria-pressed", String(isOpen));
    remember("developer", isOpen ? "open" : "closed");
    if (isOpen) this.#draw();
    else if (hadFocus) this.#opener.focus();
  }

  /** Watch a reply from now on; the latest one is the one whose connection can be cut. */
  watch(reply, curl) {
    this.#reply = reply;
    this.#counts = { events: 0, connections: 0 };
    this.#curl.textContent = curl;
    this.#segment = null;
    reply.addEventListener("raw", ({ detail }) => {
      this.#counts.events += 1;
      this.#add({ id: detail.id, transport: detail.transport, data: detail.data });
    });
    reply.addEventListener("connection", ({ detail }) => {
      if (detail.state === "open") this.#counts.connections += 1;
      const about = detail.state === "waiting" && detail.retryIn !== null ? `, again in ${Math.round(detail.retryIn)} ms` : "";
      this.#add({ transport: detail.transport, about: `connection ${detail.state}${about}` });
    });
    this.#show();
  }

  /** A frame of a channel. A chunk's says which entries of the log it stands for: a segment, as it is stored. */
  hear(event, data) {
    if (data?.first_seq !== undefined) this.#segment = `${data.first_seq} to ${data.seq}`;
    this.#add({ id: data?.seq === undefined ? null : `${data.message_id}:${data.seq}`, transport: "websocket", about: event, data });
  }

  #add(event) {
    this.#events.push(event);
    if (this.#events.length > MOST) this.#events.shift();
    if (this.isOpen) this.#frame ??= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const isAtEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
    this.#log.append(...this.#events.splice(0).map(row));
    while (this.#log.children.length > MOST) this.#log.firstChild.remove();
    if (isAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
    this.#show();
  }

  #show() {
    const reply = this.#reply;
    const link = reply?.connection;
    const facts = {
      reply: reply?.messageId ?? "none yet",
      status: reply?.status ?? "–",
      cursor: reply?.cursor?.split(":").at(-1) ?? "–",
      transport: link ? `${link.transport ?? "–"}, ${link.state}` : "–",
      connections: String(this.#counts.connections),
      events: String(this.#counts.events),
      "segment heard": this.#segment ?? "–",
    };
    this.#facts.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
    this.#cut.disabled = link?.state !== "open";
  }
}

function row({ id, transport, about, data }) {
  const item = element("li", about && !data ? "told" : "");
  const [body, text] = [element("code"), [about, data && JSON.stringify(data)].filter(Boolean).join(" ")];
  body.append(element("span", "transport", `${transport ?? ""} `), text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
  item.append(element("span", "seq", id?.split(":").at(-1) ?? ""), body);
  return item;
}

/** A line for a shell that does what the page did. */
export function curlLine(path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const address = quoted(location.origin + path);
  if (!body) return `curl -N ${address}`;
  return `curl -N ${address} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`;
}
