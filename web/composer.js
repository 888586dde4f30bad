// Where one types, with what goes with it. It knows whether a reply is being written, and nothing else of it.

import { Attachments } from "./attachments.js";
import { Choices } from "./choices.js";
import { keepDraft, readDraft } from "./drafts.js";

const TYPING_MS = 2000; // how often others are told

export class Composer extends EventTarget {
  #form = document.querySelector("#composer");
  #input = document.querySelector("#input");
  #send = document.querySelector("#send");
  #stop = document.querySelector("#stop");
  #conversation = null;
  #toldAt = -Infinity;
  isSending = false;

  constructor(fetch) {
    super();
    this.choices = new Choices(fetch);
    this.attachments = new Attachments(this.#form);
    this.attachments.addEventListener("change", () => this.#changed());
    this.#input.addEventListener("input", () => this.#changed());
    this.#input.addEventListener("keydown", (event) => this.#pressed(event));
    this.#stop.addEventListener("click", () => this.dispatchEvent(new Event("stop")));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#send.hidden && !this.#send.disabled && this.canSend) this.dispatchEvent(new Event("send"));
    });
    this.#show();
  }

  get text() {
    return this.#input.value;
  }

  get canSend() {
    return this.#input.value.trim() !== "" || this.attachments.length > 0;
  }

  /** Show what was typed in a conversation and not sent. */
  open(conversation) {
    this.#conversation = conversation;
    this.#input.value = readDraft(conversation);
    this.attachments.clear();
    this.#show();
  }

  /** What is typed belongs to a conversation that was just made. */
  move(conversation) {
    keepDraft(this.#conversation, "");
    this.#conversation = conversation;
  }

  clear() {
    this.#input.value = "";
    this.attachments.clear();
    this.#changed();
  }

  put(text) {
    this.#input.value = text;
    this.#changed();
    this.focus();
  }

  focus() {
    this.#input.focus();
  }

  /** While something is being sent, and while replies are being written. */
  show({ isSending, isWriting, canStop }) {
    this.#send.hidden = isWriting;
    this.#stop.hidden = !isWriting;
    this.#stop.disabled = !canStop;
    this.isSending = isSending;
    this.#show();
  }

  #show() {
    this.#send.disabled = this.isSending || !this.canSend;
  }

  #changed() {
    keepDraft(this.#conversation, this.#input.value);
    this.#show();
    if (this.#input.value && performance.now() - this.#toldAt > TYPING_MS) {
      this.#toldAt = performance.now();
      this.dispatchEvent(new Event("typing"));
    }
  }

  #pressed(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#form.requestSubmit();
    } else if (event.key === "ArrowUp" && !this.#input.value) {
      event.preventDefault();
      this.dispatchEvent(new Event("edit-last"));
    }
  }
}
