// What is looked at (searches, filters, what is open) stands in the address, so that it can be shared: #tests&tests.run=1.
let looking = "", shared = new URLSearchParams(), writing;

function readAddress() {
  const [where, ...rest] = location.hash.slice(1).split("&");
  looking = where;
  if (rest.length || !where) shared = new URLSearchParams(rest.join("&"));
}

function writeAddress() {
  clearTimeout(writing); // a browser takes only so many changes a second
  writing = setTimeout(() => history.replaceState(null, "", `#${looking}${`${shared}` && `&${shared}`}`), 200);
}

// The state of a part of the page: what the address says, else `defaults`. `choices` are the values that a key may have.
function view(where, defaults, choices = {}) {
  const state = { ...defaults };
  for (const [key, value] of Object.entries(defaults)) {
    const said = shared.get(`${where}.${key}`);
    const found = typeof value === "number" ? Number(said) : said;
    if (said !== null && !Number.isNaN(found) && (!choices[key] || choices[key].includes(found))) state[key] = found;
  }
  return new Proxy(state, { set(_, key, value) {
    state[key] = value;
    looking = where;
    if (value === defaults[key]) shared.delete(`${where}.${key}`);
    else shared.set(`${where}.${key}`, value);
    writeAddress();
    return true;
  } });
}

function forget(where) {
  for (const key of [...shared.keys()]) if (key.startsWith(`${where}.`)) shared.delete(key);
}

// Go to a part of the page, with nothing but `values` set in it.
function show(where, values) {
  forget(where);
  for (const [key, value] of Object.entries(values)) shared.set(`${where}.${key}`, value);
  looking = where;
  writeAddress();
  PARTS[where]();
  document.getElementById(where).scrollIntoView({ behavior: "instant" });
}
