// The conversations, newest first: open, find, rename where they stand, delete and take that back.

import { element, iconButton } from "./element.js";
import { explain } from "./explain.js";
import { toast } from "./toast.js";

const PAGE = 40;
const AGAIN_MS = 5000; // after a list that could not be had
const ENOUGH = 15; // that are found, before more are looked for
const narrow = matchMedia("(max-width: 60rem)");

export class Sidebar extends EventTarget {
  #client;
  #element = document.querySelector("#sidebar");
  #frame = document.querySelector("#conversations-frame");
  #list = document.querySelector("#conversations");
  #note = document.querySelector("#conversations-note");
  #search = document.querySelector("#search");
  #menu = document.querySelector("#menu");
  #scrim = document.querySelector("#scrim");
  #items = new Map(); // by id: {conversation, item, link}
  #cursor = "";
  #loading = false;
  #current = null;

  constructor(client) {
    super();
    this.#client = client;
    this.#menu.addEventListener("click", () => this.toggle(true));
    this.#scrim.addEventListener("click", () => this.toggle(false));
    document.querySelector("#close-sidebar").addEventListener("click", () => this.toggle(false));
    document.querySelector("#new").addEventListener("click", () => this.dispatchEvent(new Event("new")));
    this.#search.addEventListener("input", () => this.#filter());
    this.#frame.addEventListener("scroll", () => this.#wantsMore(), { passive: true });
    narrow.addEventListener("change", () => this.toggle(false));
    this.toggle(false);
    void this.more();
  }

  // ---- the drawer of a phone ----

  get isOpen() {
    return narrow.matches && this.#element.classList.contains("open");
  }

  toggle(isOpen) {
    const wasOpen = this.isOpen;
    this.#element.classList.toggle("open", isOpen);
    this.#element.inert = narrow.matches && !isOpen;
    document.querySelector("#chat").inert = narrow.matches && isOpen;
    this.#scrim.hidden = !(narrow.matches && isOpen);
    this.#menu.setAttribute("aria-expanded", String(isOpen));
    if (narrow.matches && isOpen) document.querySelector("#close-sidebar").focus();
    else if (wasOpen) this.#menu.focus();
  }

  find() {
    if (narrow.matches) this.toggle(true);
    this.#search.focus();
    this.#search.select();
  }

  // ---- the list ----

  async more() {
    if (this.#loading || this.#cursor === null) return;
    this.#loading = true;
    try {
      const page = await this.#client.conversations.list({ limit: PAGE, cursor: this.#cursor || undefined });
      this.#cursor = page.next_cursor;
      for (const each of page.conversations) if (!this.#items.has(each.id)) this.#list.append(this.#made(each));
      this.mark(this.#current);
      this.#filter();
    } catch (error) {
      this.#say(explain(error));
      if (error.status !== 401) setTimeout(() => this.#wantsMore(), AGAIN_MS); // after that, another page is loaded
      return;
    } finally {
      this.#loading = false;
    }
    this.#wantsMore();
  }

  #wantsMore() {
    const { scrollHeight, scrollTop, clientHeight } = this.#frame;
    const isShort = this.#search.value && this.#matching().length < ENOUGH;
    if (scrollHeight - scrollTop - clientHeight < 200 || isShort) void this.more();
  }

  #matching() {
    const asked = this.#search.value.trim().toLocaleLowerCase();
    return [...this.#items.values()].filter(({ conversation }) => nameOf(conversation).toLocaleLowerCase().includes(asked));
  }

  #filter() {
    const shown = new Set(this.#matching().map(({ item }) => item));
    for (const { item } of this.#items.values()) item.hidden = !shown.has(item);
    if (this.#items.size === 0) this.#say("Nothing yet.");
    else this.#say(shown.size || this.#cursor !== null ? "" : "No title has that in it.");
    if (this.#search.value) this.#wantsMore();
  }

  #say(text) {
    this.#note.textContent = text;
  }

  /** A conversation that was just made, or was heard of, comes first. */
  put(conversation) {
    const known = this.#items.get(conversation.id);
    if (known) this.#name(known, conversation);
    else this.#list.prepend(this.#made(conversation));
    this.#filter();
    this.mark(this.#current);
  }

  mark(id) {
    this.#current = id;
    for (const [each, { link }] of this.#items) {
      if (each === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  titleOf(id) {
    const known = this.#items.get(id);
    return known ? nameOf(known.conversation) : null;
  }

  #made(conversation) {
    const item = element("li");
    const link = element("a");
    link.href = `#${conversation.id}`;
    link.addEventListener("click", () => this.toggle(false));
    const row = { conversation, item, link };
    item.append(
      link,
      iconButton("edit", "Rename", () => this.#rename(row)),
      iconButton("bin", "Delete", () => this.#delete(row)),
    );
    this.#items.set(conversation.id, row);
    this.#name(row, conversation);
    return item;
  }

  #name(row, conversation) {
    row.conversation = conversation;
    row.link.textContent = nameOf(conversation);
    row.link.title = nameOf(conversation);
    const [rename, remove] = row.item.querySelectorAll("button");
    rename.setAttribute("aria-label", `Rename ${nameOf(conversation)}`);
    remove.setAttribute("aria-label", `Delete ${nameOf(conversation)}`);
  }

  // ---- changes ----

  #rename(row) {
    const field = element("input");
    field.value = nameOf(row.conversation);
    field.maxLength = 200;
    field.setAttribute("aria-label", "New title");
    let isOver = false;
    const close = async (isKept) => {
      if (isOver) return;
      isOver = true;
      const title = field.value.trim();
      field.replaceWith(row.link);
      row.item.classList.remove("renaming");
      row.item.querySelector("button").focus();
      if (!isKept || !title || title === nameOf(row.conversation)) return;
      try {
        this.#name(row, await this.#client.conversations.rename(row.conversation.id, title));
        this.dispatchEvent(new CustomEvent("renamed", { detail: row.conversation }));
      } catch (error) {
        toast(explain(error));
      }
    };
    field.addEventListener("blur", () => void close(true));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      void close(event.key === "Enter");
    });
    row.item.classList.add("renaming");
    row.link.replaceWith(field);
    field.select();
  }

  async #delete(row) {
    const { id } = row.conversation;
    const next = row.item.nextElementSibling;
    try {
      await this.#client.conversations.delete(id);
    } catch (error) {
      if (error.status !== 404) return toast(explain(error));
    }
    row.item.remove();
    this.#items.delete(id);
    this.#filter();
    (next?.querySelector("a") ?? document.querySelector("#new")).focus();
    this.dispatchEvent(new CustomEvent("deleted", { detail: row.conversation }));
    toast(`“${nameOf(row.conversation)}” is deleted.`, "Undo", async () => {
      try {
        const restored = await this.#client.conversations.restore(id);
        const made = this.#made(restored);
        if (next?.isConnected) next.before(made);
        else this.#list.append(made);
        this.#filter();
        this.dispatchEvent(new CustomEvent("restored", { detail: restored }));
      } catch (error) {
        toast(explain(error));
      }
    });
  }
}

export const nameOf = ({ title }) => title?.trim() || "Untitled";
