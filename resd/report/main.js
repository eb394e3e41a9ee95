async function unpacked(id) {
  const letters = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

unpacked("data").then((data) => {
  DATA = data;
  for (const draw of [drawCurves, drawTrace, drawPlaybook, drawAttempts]) draw();
}).catch((error) => section("curves").append(
  el("p", { class: "note" }, `Curves, playbook and attempts are not shown: this browser cannot unpack them (${error}). One of 2023 or later can.`)));
