// The playground. Everything a client or a data set wrote is set as text, never as HTML.
const by = (id) => document.getElementById(id);
const make = (tag, values = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...inside);
  return node;
};
let picture = null;
let about = null;

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

async function begin() {
  try {
    about = await told(await fetch("/corgi/about", { headers: headers() }));
  } catch (error) {
    say(error.message, true);
    return;
  }
  by("token-row").hidden = by("token").value === "";
  by("run").textContent = about.run;
  by("credit").textContent = about.credit;
  by("to-search").hidden = !about.has_search;
  by("nearest-row").hidden = !about.has_nearest;
  by("steps").placeholder = about.manner.steps;
  by("prior").placeholder = about.manner.prior_steps;
  by("guidance").placeholder = about.manner.guidance;
  by("examples").replaceChildren(...about.examples.map((text) => {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => { by("prompt").value = text; by("ask").requestSubmit(); });
    return button;
  }));
  say("");
}

const number = (id) => (by(id).value === "" ? undefined : Number(by(id).value));

function seed() {
  if (by("random").checked) by("seed").value = Math.floor(Math.random() * 2 ** 31);
  return number("seed") ?? 0;
}

function asked(ticket) {
  const second = by("second").value.trim();
  const corgi = { ticket, prior_steps: number("prior"), nearest: by("nearest").checked ? 3 : 0 };
  if (second) corgi.mix = { prompt: second, share: Number(by("share").value) };
  else Object.assign(corgi, { candidates: number("candidates") ?? 1, strip: by("strip").checked });
  return {
    prompt: by("prompt").value, n: number("n") ?? 1, seed: seed(), response_format: "b64_json",
    num_inference_steps: number("steps"), guidance_scale: number("guidance"), corgi,
  };
}

function generate(ticket) {
  const body = JSON.stringify(asked(ticket));
  return fetch("/v1/images/generations", { method: "POST", headers: headers({ "Content-Type": "application/json" }), body });
}

function vary(ticket) {
  const form = new FormData();
  const values = {
    prompt: by("prompt").value, prompt_share: by("share").value, n: number("n") ?? 1, seed: seed(), ticket,
    nearest: by("nearest").checked ? 3 : 0, num_inference_steps: number("steps"), guidance_scale: number("guidance"),
  };
  form.append("image", picture, "picture");
  for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== "") form.append(name, value);
  return fetch("/v1/images/edits", { method: "POST", headers: headers(), body: form });
}

function watch(ticket) {
  const started = Date.now();
  const timer = setInterval(async () => {
    try {
      const line = await told(await fetch(`/corgi/queue/${ticket}`, { headers: headers() }));
      const seconds = Math.round((Date.now() - started) / 1000);
      if (line.position === 0) say(`Painting, ${seconds} s`);
      else if (line.position !== null) say(`Number ${line.position} of ${line.waiting} in line, about ${line.seconds} s`);
    } catch { /* the request itself says what is wrong */ }
  }, 500);
  return () => clearInterval(timer);
}

async function paint(event) {
  event.preventDefault();
  if (!picture && by("prompt").value.trim() === "") {
    say("Type a caption or choose a picture first.", true);
    by("prompt").focus();
    return;
  }
  if (about === null) await begin();
  const ticket = Array.from(crypto.getRandomValues(new Uint8Array(12)), (one) => one.toString(16).padStart(2, "0")).join("");
  const caption = by("prompt").value.trim() || "variations of a picture";
  by("paint").disabled = true;
  say("Asked");
  const stop = watch(ticket);
  try {
    const answer = await told(await (picture ? vary(ticket) : generate(ticket)));
    show(caption, answer);
    say(`${answer.data.length} pictures, ${answer.size} px`);
  } catch (error) {
    say(error.message, true);
  } finally {
    stop();
    by("paint").disabled = false;
  }
}

function show(caption, answer) {
  const list = make("ul", { className: "pictures" }, ...answer.data.map((one) => make("li", {}, figure(caption, answer, one))));
  by("results").prepend(make("article", {}, make("h2", { textContent: caption }), list));
}

function figure(caption, answer, one) {
  const source = `data:image/${answer.output_format};base64,${one.b64_json}`;
  const { seed, manner, strip = [], nearest = [] } = one.corgi;
  const words = `seed ${seed}, prior ${manner.prior_steps} steps, decoder ${manner.steps} steps, guidance ${manner.guidance}`;
  const node = make("figure", {},
    make("img", { src: source, alt: `${caption}, seed ${seed}` }),
    make("figcaption", { textContent: words }));
  if (strip.length) {
    node.append(make("div", { className: "strip" },
      ...strip.map((step, at) => make("img", { src: `data:image/png;base64,${step}`, alt: `after step ${at + 1}`, title: `after step ${at + 1}` }))));
  }
  if (nearest.length) node.append(neighbours(nearest));
  const again = make("button", { type: "button", textContent: "Vary" });
  again.setAttribute("aria-label", `Vary the picture with seed ${seed}`);
  again.addEventListener("click", () => choose(blobOf(one.b64_json, answer.output_format)));
  const save = make("a", { href: source, download: `corgi-${seed}.${answer.output_format}`, textContent: "Save" });
  save.setAttribute("aria-label", `Save the picture with seed ${seed}`);
  node.append(make("div", { className: "actions" }, again, save));
  return node;
}

function blobOf(base64, format) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: `image/${format}` });
}

function neighbours(nearest) {
  const near = make("div", { className: "near" });
  for (const { uid, similarity } of nearest) {
    const image = make("img", { alt: `training picture, similarity ${similarity.toFixed(2)}`, title: `${uid}, similarity ${similarity.toFixed(2)}` });
    near.append(image);
    fetch(`/corgi/pictures/${uid}`, { headers: headers() }).then((response) => response.blob()).then((blob) => { image.src = URL.createObjectURL(blob); });
  }
  return near;
}

function choose(blob) {
  picture = blob;
  const shown = by("chosen");
  if (shown.src) URL.revokeObjectURL(shown.src);
  shown.hidden = by("clear").hidden = !blob;
  if (blob) {
    shown.src = URL.createObjectURL(blob);
    shown.alt = "the chosen picture";
  } else {
    by("file").value = "";
  }
}

by("ask").addEventListener("submit", paint);
by("file").addEventListener("change", () => choose(by("file").files[0] ?? null));
by("clear").addEventListener("click", () => choose(null));
by("token").addEventListener("change", begin);
for (const name of ["dragover", "dragleave", "drop"]) {
  by("drop").addEventListener(name, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
}
begin();
