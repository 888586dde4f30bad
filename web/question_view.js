// What the user said, as it was typed, with its images; it can be edited and sent again.

import { copyButton } from "./copy.js";
import { button, element, iconButton, link } from "./element.js";
import { safeAddress } from "./markdown_address.js";

const IMAGE = /^image\/(png|jpeg|gif|webp)$/;

export class QuestionView {
  /** @param actions  {edit(question, text)} */
  constructor(text, images, actions) {
    this.id = null;
    this.createdAt = null;
    this.isQuestion = true;
    this.content = text;
    this.images = images;
    this.actions = actions;
    this.item = element("li", "message user");
    this.body = element("p", "text", text);
    this.pictures = element("div", "pictures");
    this.pictures.append(...images.map(picture).filter(Boolean));
    this.footer = element("div", "actions");
    this.footer.append(
      copyButton("Copy the message", () => this.content),
      iconButton("edit", "Edit and send again", () => this.edit(), "edit"),
    );
    this.item.append(element("h2", "unseen", "You said"), this.pictures, this.body, this.footer);
    this.body.hidden = !text;
  }

  edit() {
    if (this.editor) return this.editor.querySelector("textarea").focus();
    this.editor = element("form", "editor");
    const field = element("textarea");
    field.value = this.content;
    field.setAttribute("aria-label", "Edit your message");
    const send = element("button", "primary", "Send again");
    send.type = "submit";
    const row = element("div", "row");
    row.append(button("Cancel", "", () => this.#close()), send);
    this.editor.append(field, row);
    this.editor.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!field.value.trim() && !this.images.length) return;
      this.#close();
      this.actions.edit(this, field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#close();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.editor.requestSubmit();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.body.hidden = this.footer.hidden = true;
    this.item.classList.add("editing");
    this.item.append(this.editor);
    field.focus();
  }

  #close() {
    this.editor?.remove();
    this.editor = null;
    this.item.classList.remove("editing");
    this.body.hidden = !this.content;
    this.footer.hidden = false;
    this.footer.querySelector(".edit").focus();
  }
}

/** An image that was given is shown from memory; one that is elsewhere is a link, and is never fetched. */
function picture({ type, media_type: kind, data, url, name }) {
  if (data && IMAGE.test(kind)) {
    const image = element("img", "picture");
    image.src = `data:${kind};base64,${data}`;
    image.alt = name || "Image that you sent";
    return image;
  }
  const address = url && safeAddress(url);
  return address ? link(address, `${type === "image" ? "Image" : "File"}: ${name || address}`) : element("span", "file", name || kind || "File");
}
