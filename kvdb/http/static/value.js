// Shows one value as text, indented JSON or hexadecimal digits. Everything is text, never HTML.

import { button, element, size } from "./elements.js";

// What nobody would see, or what turns the direction of writing, becomes its code.
const visible = text => text.replace(/[^\P{C}\n\t]|[\p{Zl}\p{Zp}]/gu, character => {
  const code = character.codePointAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
});

function hexadecimal(bytes) {
  const lines = [];
  for (let start = 0; start < bytes.length; start += 16) {
    const row = [...bytes.subarray(start, start + 16)];
    const digits = row.map(byte => byte.toString(16).padStart(2, "0")).join(" ");
    const text = row.map(byte => byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·").join("");
    lines.push(`${start.toString(16).padStart(6, "0")}  ${digits.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

// Indents JSON, or returns undefined. Only the white space is changed: to parse it and write it anew
// would round large numbers, and leave out a name that comes twice.
function indented(text) {
  try {
    const value = JSON.parse(text);
    if (typeof value !== "object" || value === null) return undefined;
  } catch {
    return undefined;
  }
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gs);
  return tokens.map((token, place) => {
    if (token === "{" || token === "[") {
      depth += 1;
      return "}]".includes(tokens[place + 1]) ? token : token + line();
    }
    if (token === "}" || token === "]") {
      depth -= 1;
      return "{[".includes(tokens[place - 1]) ? token : line() + token;
    }
    return token === "," ? token + line() : token === ":" ? ": " : token;
  }).join("");
}

// Returns the forms in which a value can be shown, the best one first: label and text of each.
function forms(value) {
  if (value.base64 !== undefined) {
    return [["Hex", hexadecimal(Uint8Array.from(atob(value.base64), c => c.charCodeAt(0)))]];
  }
  const found = [["Text", value.text]];
  const json = value.is_cut ? undefined : indented(value.text);
  if (json !== undefined) found.unshift(["JSON", json]);
  return [...found, ["Hex", hexadecimal(new TextEncoder().encode(value.text))]];
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over http, browsers have a clipboard for localhost only; this older way works everywhere.
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("the browser refused");
}

// Fills a panel with a value. `more()` fetches more of it; `link` leads to all of it.
export function showValue(panel, value, more, link) {
  const bar = element("div", undefined, { class: "bar" });
  const text = element("pre", undefined, { tabindex: "0" });
  const choices = forms(value);
  let shown;
  const choose = number => {
    shown = choices[number][1];
    text.className = choices[number][0].toLowerCase();
    text.textContent = choices[number][0] === "Hex" ? shown : visible(shown);
    text.setAttribute("aria-label", `Value as ${choices[number][0]}`);
    buttons.forEach((each, n) => each.setAttribute("aria-pressed", n === number));
  };
  const buttons = choices.map(([label], number) => button(label, () => choose(number)));
  const choice = element("div", undefined, { class: "choice", role: "group", "aria-label": "Show as" });
  choice.append(...buttons);
  const said = element("small", "", { role: "status" });
  bar.append(choice, button("Copy", async () => {
    try {
      await copy(shown);
      said.textContent = value.is_cut ? "Copied what is shown" : "Copied";
    } catch {
      said.textContent = "The browser did not allow it";
    }
  }), said);
  choose(0);
  const parts = [bar, text];
  if (value.is_cut) {
    const cut = element("p");
    const bytes = value.base64 !== undefined ? atob(value.base64).length : new TextEncoder().encode(value.text).length;
    cut.append(`The first ${size(bytes)} of ${value.size.toLocaleString("en")} are shown. `);
    if (more) {
      cut.append(button("Show the whole", more));
    } else {
      cut.append(element("a", "Download the whole", { href: link, download: "value" }));
    }
    parts.push(cut);
  }
  panel.replaceChildren(...parts);
}
