// Sends images to the server that served this page, and shows the predictions.

const THUMBNAILS = 12;
const $ = (id) => document.getElementById(id);
const testImages = Number(document.body.dataset.testImages);
const maxBytes = Number(document.body.dataset.maxBytes);
let uploaded = null; // the last uploaded image, to be sent again when another background is selected
let pending = null; // the AbortController of the current request

function element(name, properties = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}

const top = ({ probabilities }) => probabilities.indexOf(Math.max(...probabilities));
const percent = (fraction) => `${(100 * fraction).toFixed(1)}%`;

function startRequest() {
  pending?.abort();
  $("result").ariaBusy = "true";
  return (pending = new AbortController()).signal;
}

async function request(url, options, original) {
  const signal = startRequest();
  let response, result;
  try {
    response = await fetch(url, { ...options, signal });
    result = await response.json().catch(() => ({ error: "server error; see the terminal that runs `fashion demo`" }));
  } catch {
    if (!signal.aborted) showError("The server does not respond; check that `fashion demo` is running.");
    return;
  }
  if (signal.aborted) return;
  if (response.ok) showResult(result, original);
  else showError(original ? `${original.name ?? "Drawing"}: ${result.error}` : result.error);
}

function predict(image, background = $("background").value) {
  uploaded = image;
  selectThumbnail(null);
  if (image.size > maxBytes) {
    return showError(`${image.name}: ${image.size.toLocaleString("en")} bytes; the limit is ${maxBytes.toLocaleString("en")}: use a smaller file`);
  }
  request(`predict?background=${background}`, { method: "POST", body: image }, image);
}

function predictTestImage(index) {
  uploaded = null;
  $("index").value = index;
  selectThumbnail(index);
  request(`test/${index}`);
}

function selectThumbnail(index) {
  for (const button of $("thumbnails").children) button.ariaPressed = String(button.value === String(index));
}

function reset() {
  pending?.abort();
  selectThumbnail(null);
  $("error").hidden = $("result").hidden = true;
  $("status").textContent = "";
}

function showError(message) {
  reset();
  $("error").textContent = message;
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

function showResult(result, original) {
  $("result").ariaBusy = "false";
  $("error").hidden = true;
  URL.revokeObjectURL($("original").src);
  $("original-figure").hidden = !original;
  if (original) $("original").src = URL.createObjectURL(original);
  $("input").src = result.input;
  $("actual").replaceChildren(...(result.actual ? ["Actual: ", element("strong", { textContent: result.actual })] : []));
  $("models").replaceChildren(...result.models.map((model) => card(model, result)));
  $("status").textContent = result.models.map((model) => summary(model, result.classes)).join("; ");
  $("result").hidden = false;
  const label = $("models").querySelector(".label").getBoundingClientRect();
  if (label.bottom > innerHeight) $("result").scrollIntoView({ block: "start" });
}

function summary(model, classes) {
  const first = top(model);
  const warning = model.in_distribution ? "" : ", out of distribution";
  return `${model.name}: ${classes[first]}, ${percent(model.probabilities[first])}${warning}`;
}

function card(model, { classes, actual }) {
  const created = $("model").content.cloneNode(true);
  const first = top(model);
  const verdict = actual && (classes[first] === actual ? ["correct", " ✓ correct"] : ["wrong", " ✗ wrong"]);
  created.querySelector("h3").textContent = model.name;
  created.querySelector("article").classList.toggle("out-of-distribution", !model.in_distribution);
  created.querySelector(".label").append(
    classes[first], " ", element("small", { textContent: percent(model.probabilities[first]) }),
    ...(verdict ? [element("small", { className: verdict[0], textContent: verdict[1] })] : []),
  );
  created.querySelector(".ood-warning").hidden = model.in_distribution;
  created.querySelector(".bars").append(...classes.map((name, i) => bar(name, model.probabilities[i], i === first)));
  created.querySelector(".nearest").append(
    ...model.nearest.map(({ image, label }) => element("li", {}, element("img", { src: image, alt: "" }), label)),
  );
  return created;
}

function bar(name, probability, first) {
  const filled = element("div", { className: "bar" });
  filled.style.width = `${100 * probability}%`;
  return element("tr", { className: first ? "first" : "" },
    element("th", { scope: "row", textContent: name }), element("td", {}, filled), element("td", { textContent: percent(probability) }));
}

// Uploads: an image that is chosen, dropped or pasted.

function upload(files) {
  uploaded = null;
  if (files.length === 1) predict(files[0]);
  else showError(files.length ? `${files.length} files; choose one at a time.` : "No image file found; save the image and choose the file.");
}

$("file").addEventListener("change", () => { upload($("file").files); $("file").value = ""; });
$("background").addEventListener("change", () => uploaded && predict(uploaded));
addEventListener("paste", (event) => { if (!event.target.matches("input[type=number]")) upload(event.clipboardData.files); });
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); upload(event.dataTransfer.files); });

// The drawing, white on black like the data set.

const canvas = $("canvas");
const context = canvas.getContext("2d");

function clear() {
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
}

function draw(event) {
  if (!event.isPrimary) return;
  if (event.type === "pointerdown" ? event.button : !(event.buttons & 1 && canvas.hasPointerCapture(event.pointerId))) return;
  const { left, top, width } = canvas.getBoundingClientRect();
  const scale = canvas.width / width;
  const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
  if (event.type === "pointerdown") {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(context, { lineWidth: $("brush").value, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    context.beginPath();
    context.moveTo(x, y);
  }
  context.lineTo(x + 0.1, y); // a line without length, as from a click, would not be drawn
  context.stroke();
}

canvas.addEventListener("pointerdown", draw);
canvas.addEventListener("pointermove", draw);
canvas.addEventListener("lostpointercapture", () => {
  const signal = startRequest();
  canvas.toBlob((drawing) => {
    if (signal.aborted) return;
    predict(drawing, document.body.dataset.preprocessing === "resize" ? "" : "dark");
    uploaded = null;
  });
});
$("clear").addEventListener("click", () => { clear(); reset(); uploaded = null; });

// Test images: a random sample, or one by its index.

function shuffle() {
  const indices = new Set();
  while (indices.size < Math.min(THUMBNAILS, testImages)) indices.add(Math.floor(Math.random() * testImages));
  $("thumbnails").replaceChildren(...[...indices].map((index) => {
    const button = element("button", { type: "button", value: index, ariaPressed: "false" }, element("img", { src: `test/${index}.png`, alt: `test image ${index}` }));
    button.addEventListener("click", () => predictTestImage(index));
    return button;
  }));
}

$("pick").addEventListener("submit", (event) => { event.preventDefault(); predictTestImage($("index").valueAsNumber); });
$("shuffle").addEventListener("click", shuffle);

clear();
shuffle();
