// One call of a tool: its name, its arguments, what became of it, and the question whether it may run.

import { button, element } from "./element.js";

const STATES = {
  called: "…",
  running: "running",
  waiting: "waits for you",
  approved: "allowed",
  denied: "not allowed",
  done: "done",
  failed: "failed",
  unknown: "nobody knows",
};

export class ToolView {
  constructor(tool) {
    this.element = element("li", "tool");
    this.name = element("summary");
    this.given = element("pre", "given");
    this.result = element("pre", "result");
    this.state = element("span", "state");
    const details = element("details");
    details.append(this.name, this.given, this.result);
    this.element.append(details, this.state);
    this.show(tool);
  }

  show(tool) {
    this.id = tool.id;
    this.name.textContent = tool.name || "tool";
    this.given.textContent = pretty(tool.arguments);
    this.result.textContent = pretty(tool.result);
    this.state.textContent = STATES[tool.state] ?? tool.state;
    this.element.dataset.state = tool.state;
    this.element.classList.toggle("failed", tool.state === "failed" || tool.state === "denied");
  }

  /** Ask for a yes or a no; `decide` is called with it, once. */
  ask(decide) {
    this.element.querySelectorAll(".choice").forEach((each) => each.remove());
    this.element.querySelector("details").open = true; // so that it is seen what is asked for
    const choose = (text, isApproved) =>
      button(
        text,
        "choice",
        () => {
          this.element.querySelectorAll(".choice").forEach((each) => each.remove());
          this.state.textContent = STATES[isApproved ? "approved" : "denied"];
          decide(isApproved);
        },
        `${text}: ${this.name.textContent}`,
      );
    this.element.append(choose("Allow", true), choose("Don't", false));
    this.element.querySelector(".choice").classList.add("primary");
  }
}

/** JSON in lines; anything else as it is. */
function pretty(text) {
  if (text === undefined || text === null) return "";
  try {
    const value = JSON.parse(text);
    return typeof value === "string" ? value : JSON.stringify(value, null, 2);
  } catch {
    return String(text);
  }
}
