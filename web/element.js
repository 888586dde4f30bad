// Elements, made one by one: nothing on this page is ever made of HTML.

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function button(text, className, onClick, label = "") {
  const made = element("button", className, text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", onClick);
  return made;
}

/** A link to an address that was found safe. */
export function link(address, text = "") {
  const made = element("a", "", text);
  made.href = address;
  made.target = "_blank";
  made.rel = "noopener noreferrer";
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing that is in the page's document: `<symbol id="icon-copy">`. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", "icon");
  drawing.append(use);
  return drawing;
}

/** A button that is an icon, with its name for those who do not see it or wonder. */
export function iconButton(name, label, onClick, className = "") {
  const made = button("", `icon-button ${className}`.trim(), onClick, label);
  made.title = label;
  made.append(icon(name));
  return made;
}
