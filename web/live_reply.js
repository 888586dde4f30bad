// Follows a reply to its end and draws it, once a frame at most: a fast provider sends many chunks in one.

import { describeConnection } from "./explain.js";

export class LiveReply {
  #frame = null;

  /**
   * @param {import("./tailrace.js").Reply} reply
   * @param {import("./answer_view.js").AnswerView} view
   * @param {import("./transcript.js").Transcript} transcript
   */
  constructor(reply, view, transcript) {
    this.reply = reply;
    this.view = view;
    this.transcript = transcript;
    view.begin();
    reply.started.then(({ messageId }) => (view.id = messageId), () => {});
    reply.addEventListener("connection", ({ detail }) => this.#connection(detail));
  }

  /** Draw all of it. Return how it ended: "settled", "left", or the error for which it cannot be followed. */
  async run() {
    try {
      for await (const event of this.reply) {
        this.view.take(event);
        this.#frame ??= requestAnimationFrame(() => this.#draw());
      }
    } catch (error) {
      this.#draw();
      return error.type === "closed" ? "left" : error;
    }
    this.#draw();
    if (!this.reply.message) return "left";
    this.transcript.growing(() => this.view.settle(this.reply.message));
    return "settled";
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    this.transcript.growing(() => this.view.draw());
  }

  #connection(link) {
    const text = link.state === "closed" ? "" : describeConnection(link, navigator.onLine);
    if (this.view.link.textContent !== text) this.transcript.growing(() => (this.view.link.textContent = text));
  }
}
