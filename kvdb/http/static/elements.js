// What all parts of the page make things with, and how they say numbers.

export function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function button(label, action, attributes = {}) {
  const made = element("button", label, { type: "button", ...attributes });
  made.addEventListener("click", () => action(made));
  return made;
}

export const duration = seconds => {
  const whole = Math.round(seconds);
  for (const [unit, size, smaller, part] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole >= size) {
      const rest = Math.floor(whole % size / part);
      return `${Math.floor(whole / size).toLocaleString("en")} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
    }
  }
  return `${whole} s`;
};

export const size = bytes => `${bytes.toLocaleString("en")} ${bytes === 1 ? "byte" : "bytes"}`;

// Sends a request to our server; raises an Error with what it says if it refuses.
export async function ask(path, options = {}) {
  // With the origin, because an address that holds a password is refused.
  const answer = await fetch(`${location.origin}${path}`, options);
  if (answer.ok) return answer;
  const text = (await answer.text()).trim();
  throw Object.assign(new Error(text || `error ${answer.status}`), { status: answer.status });
}
