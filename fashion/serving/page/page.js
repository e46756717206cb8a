// Sends a picture to the server that this page came from, and shows what its models answer.

const THUMBNAILS = 12;
const KINDS = { cnn: "looks for patterns, wherever they are", dnn: "looks at every pixel in its place" };
const $ = (id) => document.getElementById(id);
const testImages = Number(document.body.dataset.testImages);
const maxBytes = Number(document.body.dataset.maxBytes);
let last = null; // the picture that was sent, to be asked again when its background is told
let waiting = null; // what aborts the question that is not answered yet

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const top = ({ probabilities }) => probabilities.indexOf(Math.max(...probabilities));
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

async function ask(address, options, given) {
  waiting?.abort();
  const question = (waiting = new AbortController());
  $("result").ariaBusy = "true";
  let response, answer;
  try {
    response = await fetch(address, { ...options, signal: question.signal });
    answer = await response.json().catch(() => ({ error: "the server failed; its terminal says why" }));
  } catch {
    if (!question.signal.aborted) refuse("The server does not answer: is `fashion demo` still running?");
    return;
  }
  if (question.signal.aborted) return;
  if (response.ok) show(answer, given);
  else refuse(given ? `${given.name ?? "The drawing"}: ${answer.error}` : answer.error);
}

function askPicture(picture, background = $("background").value) {
  last = picture;
  mark(null);
  if (picture.size > maxBytes) {
    return refuse(`${picture.name}: ${picture.size.toLocaleString("en")} bytes; at most ${maxBytes.toLocaleString("en")} are read: make it smaller`);
  }
  ask(`answer?background=${background}`, { method: "POST", body: picture }, picture);
}

function askTestImage(index) {
  last = null;
  $("index").value = index;
  mark(index);
  ask(`test/${index}`);
}

function mark(index) {
  for (const button of $("thumbnails").children) button.ariaPressed = String(button.value === String(index));
}

function forget() {
  waiting?.abort();
  mark(null);
  $("problem").hidden = $("result").hidden = true;
  $("said").textContent = "";
}

function refuse(reason) {
  forget();
  $("problem").textContent = reason;
  $("problem").hidden = false;
  $("problem").scrollIntoView({ block: "nearest" });
}

function show(answer, given) {
  $("result").ariaBusy = "false";
  $("problem").hidden = true;
  URL.revokeObjectURL($("given").src);
  $("given-figure").hidden = !given;
  if (given) $("given").src = URL.createObjectURL(given);
  $("seen").src = answer.seen;
  $("actual").replaceChildren(...(answer.actual ? ["It is: ", element("strong", { textContent: answer.actual })] : []));
  $("models").replaceChildren(...answer.models.map((model) => card(model, answer)));
  $("said").textContent = answer.models.map((model) => said(model, answer.classes)).join("; ");
  $("result").hidden = false;
  const verdict = $("models").querySelector(".label").getBoundingClientRect();
  if (verdict.bottom > innerHeight) $("result").scrollIntoView({ block: "start" });
}

function said(model, classes) {
  const first = top(model);
  return `${model.name}: ${classes[first]}, ${percent(model.probabilities[first])}${model.familiar ? "" : ", not sure"}`;
}

function card(model, { classes, actual }) {
  const made = $("model").content.cloneNode(true);
  const first = top(model);
  const verdict = actual && (classes[first] === actual ? ["good", " ✓ right"] : ["bad", " ✗ wrong"]);
  made.querySelector("h3").append(model.name, ...(KINDS[model.name] ? [element("small", { textContent: KINDS[model.name] })] : []));
  made.querySelector("article").classList.toggle("doubtful", !model.familiar);
  made.querySelector(".label").append(
    classes[first], " ", element("small", { textContent: percent(model.probabilities[first]) }),
    ...(verdict ? [element("small", { className: verdict[0], textContent: verdict[1] })] : []),
  );
  made.querySelector(".unsure").hidden = model.familiar;
  made.querySelector(".bars").append(...classes.map((name, i) => bar(name, model.probabilities[i], i === first)));
  made.querySelector(".nearest").append(
    ...model.nearest.map(({ image, label }) => element("li", {}, element("img", { src: image, alt: "" }), label)),
  );
  return made;
}

function bar(name, share, first) {
  const filled = element("div", { className: "bar" });
  filled.style.width = `${100 * share}%`;
  return element("tr", { className: first ? "first" : "" },
    element("th", { scope: "row", textContent: name }), element("td", {}, filled), element("td", { textContent: percent(share) }));
}

// A picture: chosen, dropped or pasted.

function take(files) {
  last = null;
  if (files.length === 1) askPicture(files[0]);
  else refuse(files.length ? `One picture at a time; these are ${files.length} files.` : "That holds no picture file; save the picture and choose the file.");
}

$("file").addEventListener("change", () => { take($("file").files); $("file").value = ""; });
$("background").addEventListener("change", () => last && askPicture(last));
addEventListener("paste", (event) => { if (!event.target.matches("input[type=number]")) take(event.clipboardData.files); });
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files); });

// A drawing, white on black as the data set is.

const canvas = $("canvas");
const pen = canvas.getContext("2d");

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function draw(event) {
  if (!event.isPrimary) return;
  if (event.type === "pointerdown" ? event.button : !(event.buttons & 1 && canvas.hasPointerCapture(event.pointerId))) return;
  const { left, top, width } = canvas.getBoundingClientRect();
  const scale = canvas.width / width;
  const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
  if (event.type === "pointerdown") {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(pen, { lineWidth: $("brush").value, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    pen.beginPath();
    pen.moveTo(x, y);
  }
  pen.lineTo(x + 0.1, y); // a line of no length would not be drawn, and a dot is one
  pen.stroke();
}

canvas.addEventListener("pointerdown", draw);
canvas.addEventListener("pointermove", draw);
canvas.addEventListener("lostpointercapture", () => {
  waiting?.abort();
  const question = (waiting = new AbortController());
  $("result").ariaBusy = "true";
  canvas.toBlob((drawing) => {
    if (question.signal.aborted) return;
    askPicture(drawing, "dark");
    last = null;
  });
});
$("clear").addEventListener("click", () => { clear(); forget(); last = null; });

// A test image: one of a few at random, or by its number.

function offer() {
  const indices = Array.from({ length: THUMBNAILS }, () => Math.floor(Math.random() * testImages));
  $("thumbnails").replaceChildren(...indices.map((index) => {
    const button = element("button", { type: "button", value: index, ariaPressed: "false" }, element("img", { src: `test/${index}.png`, alt: `test image ${index}` }));
    button.addEventListener("click", () => askTestImage(index));
    return button;
  }));
}

$("pick").addEventListener("submit", (event) => { event.preventDefault(); askTestImage($("index").valueAsNumber); });
$("others").addEventListener("click", offer);

clear();
offer();
