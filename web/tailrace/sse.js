// Server-sent events from bytes of any cut (https://html.spec.whatwg.org/multipage/server-sent-events.html). Pure.

/** Feed it bytes; it returns the events that are whole. What comes after the last blank line is never an event. */
export class EventDecoder {
  #decoder = new TextDecoder();
  #tail = "";
  #id = "";
  /** @type {string[]} */
  #data = [];
  #afterCarriageReturn = false;

  /**
   * @param {Uint8Array} bytes
   * @returns {{id: string, data: string}[]}
   */
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#afterCarriageReturn && text.startsWith("\n")) text = text.slice(1);
    this.#afterCarriageReturn = text.endsWith("\r") || (text === "" && this.#afterCarriageReturn);
    const lines = (this.#tail + text).split(/\r\n|\r|\n/);
    this.#tail = /** @type {string} */ (lines.pop());
    return lines.flatMap((line) => this.#line(line));
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      const data = this.#data.splice(0);
      return data.length ? [{ id: this.#id, data: data.join("\n") }] : [];
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    return [];
  }
}
