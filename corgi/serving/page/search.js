// Search over the run's own pictures. Everything a data set wrote is set as text, never as HTML.
const by = (id) => document.getElementById(id);
const make = (tag, values = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...inside);
  return node;
};

function headers(more = {}) {
  const token = by("token").value;
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

function say(text, isError = false) {
  by("status").textContent = text;
  by("status").classList.toggle("error", isError);
}

async function told(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401) by("token-row").hidden = false;
  throw new Error(body.error?.message ?? `the server answered ${response.status}`);
}

const get = async (path) => told(await fetch(path, { headers: headers() }));
const post = async (path, body) =>
  told(await fetch(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body) }));

function filters() {
  const found = { number: Number(by("number").value) || 24 };
  for (const name of ["split", "reason", "domain"]) if (by(name).value.trim()) found[name] = by(name).value.trim();
  if (by("keep").value) found.keep = by("keep").value === "true";
  return found;
}

async function find(question) {
  try {
    say("Searching");
    show(await post("/corgi/search", { ...question, ...filters() }));
  } catch (error) {
    say(error.message, true);
  }
}

async function findAlike(file) {
  const form = new FormData();
  form.append("image", file, "picture");
  form.append("number", by("number").value || "24");
  try {
    say("Searching");
    show(await told(await fetch("/corgi/search/picture", { method: "POST", headers: headers(), body: form })));
  } catch (error) {
    say(error.message, true);
  }
}

function show(answer) {
  say(`${answer.hits.length} pictures, ${Math.round(answer.seconds * 1000)} ms`);
  by("results").replaceChildren(make("ul", { className: "pictures" }, ...answer.hits.map((hit) => make("li", {}, figure(hit)))));
}

function figure(hit) {
  const button = make("button", { type: "button", className: "plain" }, image(hit.uid, "picture of the run"));
  button.setAttribute("aria-label", `History of picture ${hit.uid}, similarity ${hit.similarity.toFixed(2)}`);
  button.addEventListener("click", () => history(hit.uid));
  const alike = make("button", { type: "button", textContent: "Like this" });
  alike.setAttribute("aria-label", `Pictures like ${hit.uid}`);
  alike.addEventListener("click", () => find({ uid: hit.uid }));
  const words = [`similarity ${hit.similarity.toFixed(2)}`, hit.split, hit.keep ? "kept" : `dropped: ${hit.reason}`, hit.domain ?? ""];
  return make("figure", {}, button, make("figcaption", { textContent: words.filter(Boolean).join(", ") }), make("div", { className: "actions" }, alike));
}

function image(uid, alt) {
  const node = make("img", { alt });
  fetch(`/corgi/pictures/${uid}`, { headers: headers() })
    .then((response) => response.blob())
    .then((blob) => { node.src = URL.createObjectURL(blob); });
  return node;
}

async function history(uid) {
  try {
    const row = await get(`/corgi/rows/${uid}`);
    const lines = [
      ...row.captions.map((text) => ["caption", text]),
      ...Object.entries(row.facts),
      ...row.lists.map((one) => ["list row", `${one.row} of ${one.source}`]),
      ["use", row.keep ? "kept" : `dropped: ${row.reason}`],
      ["take down", row.take_down],
    ];
    by("row").hidden = false;
    by("row").replaceChildren(
      make("h2", { textContent: `Picture ${uid}` }),
      image(uid, row.captions[0] ?? "picture without a caption"),
      make("dl", {}, ...lines.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text ?? "" })])),
    );
    by("row").scrollIntoView();
  } catch (error) {
    say(error.message, true);
  }
}

async function begin() {
  try {
    by("run").textContent = (await get("/corgi/about")).run;
    by("clusters").replaceChildren();
    await moreClusters();
  } catch (error) {
    say(error.message, true);
  }
}

async function moreClusters() {
  const shown = by("clusters").querySelectorAll(".cluster").length;
  const { clusters, total } = await get(`/corgi/clusters?first=${shown}`);
  by("clusters").append(...clusters.map(cluster));
  by("more").hidden = shown + clusters.length >= total;
}

function cluster({ cluster: number, count, nearest }) {
  const button = make("button", { type: "button", textContent: `Cluster ${number}, ${count} pictures` });
  button.addEventListener("click", () => { find({ cluster: number }); by("status").scrollIntoView(); });
  return make("div", { className: "cluster" }, button, make("div", { className: "sheet" }, ...nearest.map((uid) => image(uid, `picture of cluster ${number}`))));
}

by("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (by("text").value.trim()) find({ text: by("text").value });
  else say("Type a text or choose a picture first.", true);
});
by("file").addEventListener("change", () => { if (by("file").files[0]) findAlike(by("file").files[0]); });
by("token").addEventListener("change", begin);
by("more").addEventListener("click", () => moreClusters().catch((error) => say(error.message, true)));
for (const name of ["dragover", "dragleave", "drop"]) {
  by("drop").addEventListener(name, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) findAlike(event.dataTransfer.files[0]);
  });
}
begin();
