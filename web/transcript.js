// The messages of a conversation on the page: from its end, older ones as one scrolls up, and in view while it grows.

const PAGE = 40;
const NEAR_END = 80; // pixels
const NEAR_TOP = 2500;

export class Transcript {
  #main = document.querySelector("main");
  #list = document.querySelector("#messages");
  #welcome = document.querySelector("#welcome");
  #earlier = document.querySelector("#earlier");
  #latest = document.querySelector("#latest");
  #load = null; // loads a page before a message; null when there is no more
  #loading = false;
  #isAtEnd = true;
  #top = 0;
  #anchor = null;
  #views = []; // in the order of the page

  constructor() {
    this.#main.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#latest.addEventListener("click", () => this.toEnd());
    // After its layout, and so without another one: what grows, and what is drawn the first time and was guessed before.
    const sizes = new ResizeObserver(() => (this.#isAtEnd ? this.toEnd() : this.#hold()));
    for (const each of [this.#main, this.#list]) sizes.observe(each);
  }

  get views() {
    return this.#views;
  }

  /** The message of an id that is on the page. */
  find(id) {
    return this.#views.find((view) => view.id === id);
  }

  clear() {
    this.#views = [];
    this.#load = null;
    this.#list.replaceChildren();
    this.#welcome.hidden = false;
    this.#earlier.hidden = true;
    this.#isAtEnd = true;
    this.#showLatest();
  }

  add(view) {
    this.#welcome.hidden = true;
    this.#views.push(view);
    this.growing(() => this.#list.append(view.item));
  }

  /**
   * Show a message that was heard of, unless it is older than the newest one. A reply is heard of when it begins, which
   * may be before its question is: then that goes before it.
   */
  insert(view) {
    const [before, last] = [this.#views.at(-2), this.#views.at(-1)];
    if (!last?.createdAt || view.createdAt > last.createdAt) return this.add(view);
    if (!view.isQuestion || last.isQuestion || before?.isQuestion) return;
    this.#views.splice(-1, 0, view);
    this.growing(() => last.item.before(view.item));
  }

  remove(view) {
    this.#views = this.#views.filter((each) => each !== view);
    view.item.remove();
    this.#welcome.hidden = this.#views.length > 0;
  }

  /** Take a message and all that come after it off the page. Return them. */
  removeFrom(view) {
    const place = this.#views.indexOf(view);
    const removed = place < 0 ? [] : this.#views.slice(place);
    for (const each of removed) this.remove(each);
    return removed;
  }

  // ---- at the end ----

  /** Change something. Whoever is at the end stays there, which the observer of sizes sees to. */
  growing(change) {
    change();
    this.#showLatest();
  }

  toEnd() {
    this.#isAtEnd = true;
    this.#main.scrollTop = this.#main.scrollHeight;
    this.#showLatest();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#main;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END) this.#isAtEnd = true;
    else if (scrollTop < this.#top) this.#isAtEnd = false; // what grows is no scrolling
    this.#top = scrollTop;
    this.#hold();
    this.#showLatest();
    if (scrollTop < NEAR_TOP) void this.#more();
  }

  #showLatest() {
    this.#latest.hidden = this.#isAtEnd;
  }

  // ---- older ones ----

  /**
   * Show a conversation from its end.
   *
   * @param {(before?: string) => Promise<{messages: object[], next_cursor: string | null}>} read  newest first
   * @param {(message: object) => object | null} view
   */
  async open(read, view) {
    const page = await read();
    if (!page) return;
    this.#prepend(page, view);
    this.#welcome.hidden = this.#views.length > 0;
    this.#keep(page, read, view);
    this.toEnd();
    if (this.#main.scrollHeight <= this.#main.clientHeight + NEAR_TOP) void this.#more();
  }

  #prepend({ messages }, view) {
    for (const { id } of messages) {
      const heard = this.find(id); // before it was read, and so not where it belongs
      if (heard) this.remove(heard);
    }
    const found = messages.toReversed().map(view).filter(Boolean);
    this.#views = [...found, ...this.#views];
    this.#list.prepend(...found.map(({ item }) => item));
  }

  #keep(page, read, view) {
    const oldest = page.messages.at(-1)?.id;
    this.#load = page.next_cursor && oldest ? async () => ({ page: await read(oldest), read, view }) : null;
    this.#earlier.hidden = this.#load === null;
  }

  async #more() {
    const load = this.#load;
    if (!load || this.#loading) return;
    this.#loading = true;
    try {
      const { page, read, view } = await load();
      if (this.#load !== load || !page) return; // another conversation by now
      this.#hold();
      this.#prepend(page, view);
      this.#keep(page, read, view);
      this.#hold();
    } catch {
      // Scrolling tries again.
    } finally {
      this.#loading = false;
    }
    if (this.#main.scrollTop < NEAR_TOP && this.#main.scrollHeight > this.#main.clientHeight) requestAnimationFrame(() => this.#more());
  }

  // ---- where one is ----

  /**
   * The first message whose beginning is seen, and where that stands: what grows above it grows out of sight. The page
   * keeps it there itself, since not all browsers do.
   */
  #seen() {
    const { top, bottom } = this.#main.getBoundingClientRect();
    const topOf = (index) => this.#views[index].item.getBoundingClientRect().top;
    let [first, last] = [0, this.#views.length - 1];
    while (first < last) {
      const middle = (first + last) >> 1;
      if (topOf(middle) >= top) last = middle;
      else first = middle + 1;
    }
    if (first > 0 && topOf(first) >= bottom) first -= 1; // one message fills all there is
    return this.#views[first] ? { item: this.#views[first].item, top: topOf(first) + this.#main.scrollTop } : null;
  }

  /** Whatever moved what is seen, but for scrolling, is taken back by scrolling. */
  #hold() {
    if (this.#anchor?.item.isConnected) {
      const moved = this.#anchor.item.getBoundingClientRect().top + this.#main.scrollTop - this.#anchor.top;
      if (Math.abs(moved) >= 1) this.#main.scrollTop += moved;
    }
    this.#anchor = this.#seen();
  }

  /** Read pages of messages, newest first, which fit `open`. */
  static reader(client, conversation, signal) {
    return async (before) => {
      try {
        return await client.messages(conversation, { limit: PAGE, order: "desc", before, signal });
      } catch (error) {
        if (signal.aborted) return null;
        throw error;
      }
    };
  }
}
