// Images that go with the next message: chosen, pasted or dropped; made smaller where they are too large to be kept.

import { element, iconButton } from "./element.js";

const KINDS = /^image\/(png|jpeg|gif|webp)$/;
const MOST_BYTES = 200_000; // of all of them: in base64 a message may have 300,000 bytes
const WIDTHS = [1600, 1200, 900, 640, 480, 320];

export class Attachments extends EventTarget {
  #list = document.querySelector("#attachments");
  #files = document.querySelector("#files");
  #images = []; // {blob, name, item, url}

  constructor(dropZone) {
    super();
    document.querySelector("#attach").addEventListener("click", () => this.#files.click());
    this.#files.addEventListener("change", () => {
      void this.add(this.#files.files);
      this.#files.value = "";
    });
    dropZone.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) void this.add(event.clipboardData.files);
    });
    dropZone.addEventListener("dragover", (event) => event.preventDefault());
    dropZone.addEventListener("drop", (event) => {
      event.preventDefault();
      void this.add(event.dataTransfer.files);
    });
  }

  get length() {
    return this.#images.length;
  }

  async add(given) {
    const files = [...given]; // the list is the browser's, and empties itself
    for (const file of files) {
      if (!KINDS.test(file.type)) this.#refuse(`${file.name} is no image that can be sent: PNG, JPEG, GIF and WebP can.`);
      else await this.#addImage(file);
    }
  }

  async #addImage(file) {
    const room = MOST_BYTES - this.#images.reduce((sum, { blob }) => sum + blob.size, 0);
    const blob = await fitting(file, room).catch(() => null);
    if (!blob) return this.#refuse(`${file.name} cannot be read, or there is no room for it beside the others.`);
    const url = URL.createObjectURL(blob);
    const image = element("img", "picture");
    image.src = url;
    image.alt = file.name;
    const item = element("li");
    const kept = { blob, name: file.name, item, url };
    item.append(image, iconButton("cross", `Remove ${file.name}`, () => this.#remove(kept)));
    this.#images.push(kept);
    this.#list.append(item);
    this.dispatchEvent(new Event("change"));
  }

  #refuse(message) {
    this.dispatchEvent(new CustomEvent("refused", { detail: message }));
  }

  #remove(kept) {
    this.#images = this.#images.filter((each) => each !== kept);
    kept.item.remove();
    URL.revokeObjectURL(kept.url);
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    for (const each of [...this.#images]) this.#remove(each);
  }

  /** The images as a start takes them. */
  async parts() {
    return Promise.all(
      this.#images.map(async ({ blob }) => ({ type: "image", media_type: blob.type, data: await base64(blob) })),
    );
  }
}

/** The image itself if there is room for it, otherwise as large a copy as there is room for. */
async function fitting(file, room) {
  if (file.size <= room) return file;
  const bitmap = await createImageBitmap(file);
  for (const width of WIDTHS) {
    const scale = Math.min(1, width / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const copy = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
    if (copy && copy.size <= room) return copy;
  }
  return null;
}

async function base64(blob) {
  const address = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return address.slice(address.indexOf(",") + 1);
}
