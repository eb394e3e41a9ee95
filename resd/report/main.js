const PARTS = {
  health: drawHealth, curves: drawCurves, tests: drawTests, trace: drawTrace, playbook: drawPlaybook, edition: drawEdition, attempts: drawAttempts,
};

async function unpacked(letters) {
  const text = atob(letters);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function drawParts() {
  for (const draw of Object.values(PARTS)) draw();
}

function drawAll() {
  readAddress();
  drawParts();
  if (`${shared}`) document.getElementById(looking)?.scrollIntoView({ behavior: "instant" });
}

unpacked(document.getElementById("data").textContent).then((data) => {
  DATA = data;
  drawAll();
  if (document.body.dataset.version) listen();
  addEventListener("hashchange", () => (location.hash.includes("&") ? drawAll() : (readAddress(), writeAddress())));
}, (error) => section("curves").append(
  el("p", { class: "note" }, `Curves, playbook and attempts are not shown: this browser cannot unpack them (${error}). One of 2023 or later can.`)));
