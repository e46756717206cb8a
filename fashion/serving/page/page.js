// Sends a picture to the server that this page came from, and shows what its models answer.

const THUMBNAILS = 12;
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

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

async function ask(address, options, given) {
  waiting?.abort();
  const question = (waiting = new AbortController());
  $("result").ariaBusy = "true";
  try {
    const response = await fetch(address, { ...options, signal: question.signal });
    const answer = await response.json();
    if (!response.ok) return refuse(answer.error);
    show(answer, given);
  } catch (error) {
    if (question.signal.aborted) return;
    refuse(error instanceof TypeError ? "The server does not answer: is `fashion demo` still running?" : String(error));
  } finally {
    if (waiting === question) $("result").ariaBusy = "false";
  }
}

function askPicture(picture) {
  last = picture;
  if (picture.size > maxBytes) {
    return refuse(`This file has ${picture.size.toLocaleString("en")} bytes; at most ${maxBytes.toLocaleString("en")} are read: make it smaller.`);
  }
  const background = $("background").value;
  ask(background ? `answer?background=${background}` : "answer", { method: "POST", body: picture }, picture);
}

function askTestImage(index) {
  last = null;
  $("index").value = index;
  ask(`test/${index}`);
}

function refuse(reason) {
  $("problem").textContent = reason;
  $("problem").hidden = false;
  $("result").hidden = true;
}

function show(answer, given) {
  $("problem").hidden = true;
  URL.revokeObjectURL($("given").src);
  $("given-figure").hidden = !given;
  if (given) $("given").src = URL.createObjectURL(given);
  $("seen").src = answer.seen;
  $("actual").replaceChildren(...(answer.actual ? ["It is: ", element("strong", { textContent: answer.actual })] : []));
  $("models").replaceChildren(...answer.models.map((model) => card(model, answer)));
  $("result").hidden = false;
  if ($("result").getBoundingClientRect().top > innerHeight - 200) $("result").scrollIntoView({ block: "start" });
}

function card(model, { classes, actual }) {
  const made = $("model").content.cloneNode(true);
  const first = model.probabilities.indexOf(Math.max(...model.probabilities));
  const verdict = actual && (classes[first] === actual ? ["good", " ✓ right"] : ["bad", " ✗ wrong"]);
  made.querySelector("h3").textContent = model.name;
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
  if (files.length) askPicture(files[0]);
  else refuse("That holds no picture file; save the picture and choose the file.");
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
  if (!event.buttons && event.type === "pointermove") return;
  const { left, top, width } = canvas.getBoundingClientRect();
  const scale = canvas.width / width;
  const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
  if (event.type === "pointerdown") {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(pen, { lineWidth: $("brush").value, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    pen.beginPath();
    pen.moveTo(x, y);
  }
  pen.lineTo(x, y);
  pen.stroke();
}

canvas.addEventListener("pointerdown", draw);
canvas.addEventListener("pointermove", draw);
canvas.addEventListener("pointerup", () => canvas.toBlob(askPicture));
$("clear").addEventListener("click", clear);

// A test image: one of a few at random, or by its number.

function offer() {
  const indices = Array.from({ length: THUMBNAILS }, () => Math.floor(Math.random() * testImages));
  $("thumbnails").replaceChildren(...indices.map((index) => {
    const button = element("button", { type: "button" }, element("img", { src: `test/${index}.png`, alt: `test image ${index}` }));
    button.addEventListener("click", () => askTestImage(index));
    return button;
  }));
}

$("pick").addEventListener("submit", (event) => { event.preventDefault(); askTestImage($("index").valueAsNumber); });
$("others").addEventListener("click", offer);

clear();
offer();
