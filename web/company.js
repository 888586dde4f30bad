// Who else has the conversation open, and what happens in it there.

const TYPING_MS = 4000;

export class Company extends EventTarget {
  #client;
  #here = document.querySelector("#here");
  #typing = document.querySelector("#typing");
  #conversation = null;
  #channels = [];
  #members = new Map();
  #timer = null;

  constructor(client) {
    super();
    this.#client = client;
  }

  /** Be with those who have this conversation open, and with nobody else. */
  join(conversation) {
    if (conversation === this.#conversation) return;
    const before = this.#channels;
    this.#conversation = conversation;
    this.#channels = conversation === null ? [] : this.#join(conversation);
    for (const each of before) each.leave(); // after that, so that the connection has always somebody who wants it
    this.#members.clear();
    this.#count();
    this.#show("");
  }

  #join(conversation) {
    const tell = (event) => (data) => this.dispatchEvent(new CustomEvent("event", { detail: { event, data } }));
    const messages = this.#client.channel(`conversation.${conversation}`);
    for (const event of ["MessageCreated", "MessageChunkReceived", "MessageCompleted", "MessageFailed"]) {
      messages.listen(event, tell(event));
    }
    messages.subscribed(() => this.dispatchEvent(new Event("joined")));
    const presence = this.#client.channel(`presence-conversation.${conversation}`);
    presence.here((members) => {
      this.#members = new Map(members.map((each) => [each.user_id, each]));
      this.#count();
    });
    presence.joining((member) => {
      this.#members.set(member.user_id, member);
      this.#count();
    });
    presence.leaving((member) => {
      this.#members.delete(member.user_id);
      this.#count();
    });
    presence.listenForWhisper("typing", () => this.#show("Somebody else is typing…"));
    return [messages, presence];
  }

  typing() {
    this.#channels[1]?.whisper("typing", {});
  }

  #count() {
    this.#here.textContent = this.#members.size > 1 ? `${this.#members.size} here` : "";
  }

  #show(text) {
    clearTimeout(this.#timer);
    this.#typing.textContent = text;
    if (text) this.#timer = setTimeout(() => this.#show(""), TYPING_MS);
  }
}
