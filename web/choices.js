// Who answers, and how it comes: what the stack has, and what was chosen last. The page's address may say it too:
// ?provider=mine&model=large&tools=weather,mail

import { element } from "./element.js";
import { remember, remembered } from "./drafts.js";

const SCRIPTED = ["story", "fast", "long", "echo", "stall", "error", "break"];
const query = () => new URLSearchParams(location.search); // which a sign-in puts back
const DELIVERIES = { chunk: {}, sentence: { by: "sentence" }, interval: { interval_ms: 500 } };

export class Choices {
  #panel = document.querySelector("#choices");
  #opener = document.querySelector("#show-choices");
  #provider = document.querySelector("#provider");
  #model = document.querySelector("#model");
  #models = document.querySelector("#models");
  #delivery = document.querySelector("#delivery");
  #chosen = document.querySelector("#chosen");
  #found = []; // {provider, model}; the first is the stack's own

  constructor(fetch) {
    this.#opener.addEventListener("click", () => this.toggle(this.#panel.hidden));
    for (const each of [this.#provider, this.#model, this.#delivery]) each.addEventListener("change", () => this.#changed(each));
    this.#delivery.value = remembered("delivery") in DELIVERIES ? remembered("delivery") : "chunk";
    this.#offer([query().get("provider") ?? ""]);
    this.#model.value = query().get("model") ?? "";
    this.#show();
    void this.#read(fetch);
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  toggle(isOpen) {
    this.#panel.hidden = !isOpen;
    this.#opener.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.#provider.focus();
    else if (document.activeElement === document.body) this.#opener.focus();
  }

  /** What each start says beside what the user says. */
  get asked() {
    const [provider, model] = [this.#provider.value, this.#model.value.trim()];
    const tools = (query().get("tools") ?? "").split(",").filter(Boolean);
    return {
      ...(provider && { provider }),
      ...(model && { model }),
      ...(tools.length && { options: { tools } }),
      delivery: this.delivery,
    };
  }

  get delivery() {
    return { ...DELIVERIES[this.#delivery.value], progress: true, parts: true };
  }

  /** The stack tells what it has in the words of OpenAI's clients: `provider` or `provider/model`. */
  async #read(fetch) {
    try {
      const response = await fetch("/v1/models");
      if (!response.ok) return;
      const { data } = await response.json();
      this.#found = data.map(({ id, owned_by: provider }) => ({ provider, model: id.slice(provider.length + 1) }));
    } catch {
      return; // what is sent says what is wrong
    }
    this.#offer([this.#found[0]?.provider, ...this.#found.map(({ provider }) => provider), this.#provider.value].filter(Boolean));
    if (!query().has("provider") && !query().has("model")) this.#recall();
    this.#show();
  }

  #offer(names) {
    const chosen = this.#provider.value || (query().get("provider") ?? "");
    const options = [...new Set(names)].filter((name) => name !== undefined);
    this.#provider.replaceChildren(
      ...options.map((name) => {
        const option = element("option", "", name || "the stack's own");
        option.value = name;
        return option;
      }),
    );
    this.#provider.value = options.includes(chosen) && chosen ? chosen : options[0];
  }

  #recall() {
    const provider = remembered("provider");
    if (!this.#found.some((each) => each.provider === provider)) return;
    this.#provider.value = provider;
    this.#model.value = remembered("model") ?? "";
  }

  #changed(field) {
    if (field === this.#provider) this.#model.value = "";
    for (const each of [this.#provider, this.#model, this.#delivery]) remember(each.id, each.value);
    this.#show();
  }

  #show() {
    const provider = this.#provider.value;
    const known = this.#found.filter((each) => each.provider === provider && each.model).map(({ model }) => model);
    const models = provider === "scripted" || provider === "" ? [...known, ...SCRIPTED] : known;
    this.#models.replaceChildren(
      ...models.map((name) => {
        const option = element("option");
        option.value = name;
        return option;
      }),
    );
    this.#model.placeholder = known[0] ?? (provider === "scripted" ? "story" : "its default");
    const delivery = this.#delivery.value === "chunk" ? "" : this.#delivery.selectedOptions[0].textContent;
    this.#chosen.textContent = [provider || "Model", this.#model.value.trim(), delivery].filter(Boolean).join(" · ");
  }
}
