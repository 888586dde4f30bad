// The page. The conversation that it shows is in its address, behind the #, so that a reload shows it again.

import { Chat } from "./chat.js";
import { Company } from "./company.js";
import { Composer } from "./composer.js";
import { DeveloperPanel } from "./developer_panel.js";
import { button } from "./element.js";
import { explain } from "./explain.js";
import { Sidebar, nameOf } from "./sidebar.js";
import { SigningIn, readSettings } from "./signing_in.js";
import { useShortcuts } from "./shortcuts.js";
import { Tailrace } from "./tailrace.js";
import { Transcript } from "./transcript.js";

const LONGEST_TITLE = 80;
const SUGGESTIONS = ["Tell me a story about a river", "What happens when my connection is cut?", "Write a haiku on water wheels"];

const notice = document.querySelector("#notice");
const title = document.querySelector("#title");
const settings = readSettings();
const signing = new SigningIn(settings);
await signing.begin();
const client = new Tailrace({
  token: signing.token,
  fetch: signing.fetch,
  socketUrl: location.origin.replace(/^http/, "ws") + (settings.socket ?? "/ws"),
});
const composer = new Composer(signing.fetch);
const transcript = new Transcript();
const panel = new DeveloperPanel();
const sidebar = new Sidebar(client);
const company = new Company(client);
const chat = new Chat({ client, transcript, composer, panel });

// ---- which conversation ----

const address = (id) => location.pathname + location.search + (id ? `#${id}` : "");

async function show(id) {
  composer.open(id);
  name(id && sidebar.titleOf(id));
  sidebar.mark(id);
  company.join(id);
  say(null);
  if (!matchMedia("(pointer: coarse)").matches) composer.focus(); // it would open the keyboard of a phone
  try {
    await Promise.all([chat.open(id), id && !sidebar.titleOf(id) && find(id)]);
  } catch (error) {
    if (chat.conversation !== id) return;
    if (error.status !== 404) return say(explain(error));
    history.replaceState(null, "", address(null));
    await show(null);
    say("That conversation is not here (any more). Choose another one, or begin a new one.");
  }
}

async function find(id) {
  const found = await client.conversations.get(id);
  if (chat.conversation === id) name(nameOf(found));
}

function name(text) {
  title.textContent = text ?? "New conversation";
  document.title = text ? `${text} · Tailrace` : "Tailrace";
}

function begin() {
  if (chat.conversation !== null) history.pushState(null, "", address(null));
  sidebar.toggle(false);
  void show(null);
}

window.addEventListener("popstate", () => void show(location.hash.slice(1) || null));
window.addEventListener("online", () => void chat.catchUp().catch(() => {}));

// ---- what is sent ----

let isCreating = false;

async function send() {
  if (isCreating) return;
  const text = composer.text;
  isCreating = true;
  composer.show({ isSending: true, isWriting: false, canStop: false });
  try {
    const images = await composer.attachments.parts();
    if (chat.conversation === null && !(await create(text))) return;
    composer.clear();
    const isTaken = await chat.send(text, images);
    if (!isTaken && !composer.text) composer.put(text);
  } finally {
    isCreating = false;
  }
}

/** Make the conversation that the first message is said in. */
async function create(text) {
  try {
    const made = await client.conversations.create({ title: text.trim().slice(0, LONGEST_TITLE) || "Images" });
    if (chat.conversation !== null) return false; // another one was opened meanwhile
    history.replaceState(null, "", address(made.id));
    composer.move(made.id);
    sidebar.put(made);
    sidebar.mark(made.id);
    name(nameOf(made));
    company.join(made.id);
    chat.conversation = made.id;
    return true;
  } catch (error) {
    say(explain(error));
    composer.show({ isSending: false, isWriting: false, canStop: false });
    return false;
  }
}

function say(text) {
  notice.textContent = text ?? "";
  notice.hidden = !text;
  if (text) transcript.toEnd();
}

composer.addEventListener("send", () => void send());
composer.addEventListener("stop", () => void chat.stop());
composer.addEventListener("typing", () => company.typing());
composer.addEventListener("edit-last", () => chat.editLast());
composer.attachments.addEventListener("refused", ({ detail }) => say(detail));
chat.addEventListener("problem", ({ detail }) => say(detail));
company.addEventListener("event", ({ detail: { event, data } }) => {
  panel.hear(event, data);
  if (event === "MessageCreated") chat.hear(data.message);
});
company.addEventListener("joined", () => void chat.catchUp().catch(() => {}));

// ---- the list, the keyboard ----

sidebar.addEventListener("new", begin);
sidebar.addEventListener("renamed", ({ detail }) => detail.id === chat.conversation && name(nameOf(detail)));
sidebar.addEventListener("deleted", ({ detail }) => {
  if (detail.id !== chat.conversation) return;
  history.replaceState(null, "", address(null));
  void show(null);
});
sidebar.addEventListener("restored", ({ detail }) => {
  history.pushState(null, "", address(detail.id));
  void show(detail.id);
});

document.querySelector("#suggestions").append(...SUGGESTIONS.map((text) => button(text, "suggestion", () => composer.put(text))));

useShortcuts(
  [
    { keys: "Enter", text: "Send" },
    { keys: "Shift Enter", text: "A new line" },
    { keys: "Up", text: "Edit your last message, while nothing is typed" },
    { keys: "Ctrl Shift O", text: "New conversation", run: begin },
    { keys: "Ctrl K", text: "Search conversations", run: () => sidebar.find() },
    { keys: "Ctrl .", text: "Developer panel", run: () => panel.toggle(!panel.isOpen) },
    { keys: "Ctrl /", text: "This list", run: () => document.querySelector("#shortcuts").showModal() },
    { keys: "Esc", text: "Close what is open" },
  ],
  () => {
    if (composer.choices.isOpen) composer.choices.toggle(false);
    else if (sidebar.isOpen) sidebar.toggle(false);
    else if (panel.isOpen) panel.toggle(false);
    else return false;
    return true;
  },
);

void show(location.hash.slice(1) || null);
