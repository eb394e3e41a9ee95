// Draws what a running run has written since: the server says when, and this page is asked for once more.
let asked = 0;

async function drawAgain() {
  const mine = ++asked;
  const answer = await fetch(location.pathname, { cache: "no-store" });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const data = await unpacked(page.getElementById("data").textContent);
  if (mine !== asked) return; // a newer one is on its way
  const [place, restore] = [scrollY, focusKept()];
  DATA = data;
  for (const part of page.querySelectorAll("main > section")) {
    const old = document.getElementById(part.id);
    part.querySelectorAll("details").forEach((each, i) => { each.open = old?.querySelectorAll("details")[i]?.open; });
    if (!old) document.querySelector("main").insertBefore(document.importNode(part, true), document.getElementById("attempts"));
    else if (!PARTS[part.id]) old.replaceWith(document.importNode(part, true));
  }
  drawParts();
  scrollTo({ top: place, behavior: "instant" });
  restore();
}

// Gives the focus back to the field that has it now, once its part was drawn again.
function focusKept() {
  const fields = (id) => [...document.getElementById(id).querySelectorAll("input, select, button, [tabindex]")];
  const [field, part] = [document.activeElement, document.activeElement?.closest("section")?.id];
  if (!part) return () => {};
  const [number, { selectionStart: start, selectionEnd: end }] = [fields(part).indexOf(field), field];
  return () => {
    const again = fields(part)[number];
    again?.focus({ preventScroll: true });
    if (typeof start === "number") again?.setSelectionRange?.(start, end);
  };
}

function listen() {
  const footer = document.querySelector("footer");
  const events = new EventSource(`events/${document.body.dataset.version}`);
  events.onmessage = drawAgain;
  events.onerror = () => {
    events.close();
    footer.textContent = "No longer live: the server has ended, or cannot be reached. Load the page again to try.";
  };
}
