"use strict";

const NOT_A_CELL = -1;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");
const state = { facts: null, images: [], notes: [], current: null, cell: null, undo: [], hidden: new Set() };
let saved = Promise.resolve();
const view = { grey: null, classes: null, base: null, overlay: null, scale: 1, x: 0, y: 0 };

// The token comes after # in the link; sessionStorage belongs to this tab and this port.
if (location.hash.length > 1) {
  sessionStorage.setItem("token", location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

async function ask(path, options = {}) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` };
  if (options.body) headers["content-type"] = "application/octet-stream";
  const answer = await fetch(path, { ...options, headers }).catch(() => { throw new Error("hep2jax view has ended"); });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function swatch(colour) {
  const svg = document.createElementNS(SVG, "svg"), box = document.createElementNS(SVG, "rect");
  svg.classList.add("swatch");
  svg.setAttribute("aria-hidden", "true");
  for (const [key, value] of Object.entries({ width: "100%", height: "100%", fill: colour })) box.setAttribute(key, value);
  svg.append(box);
  return svg;
}

function stripe(parts) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  let left = 0;
  for (const [share, colour] of parts) {
    const box = document.createElementNS(SVG, "rect");
    const values = { x: `${100 * left}%`, width: `${100 * share}%`, height: "100%", fill: colour };
    for (const [key, value] of Object.entries(values)) box.setAttribute(key, value);
    svg.append(box);
    left += share;
  }
  return svg;
}

const nameOf = (pattern) => (pattern === NOT_A_CELL ? "not a cell" : state.facts.classes[pattern].name.replaceAll("_", " "));
const percent = (share) => `${Math.round(100 * share)} %`;

function bars(shares) {
  return shares.flatMap((share, index) => {
    if (share === null || share < 0.005) return [];
    const { colour } = state.facts.classes[index];
    const label = make("span", {}, swatch(colour), nameOf(index));
    return [make("div", { className: "bar" }, label, stripe([[share, colour]]), make("span", {}, percent(share)))];
  });
}

// What a cell counts as, after corrections and thresholds: an index, "undecided", or "left out".
function decided(image, cell) {
  const correction = image.corrections[cell.label];
  if (correction !== undefined) return correction === NOT_A_CELL ? "left out" : correction;
  if (image.unit === "cell" && cell.area < Number($("area").value)) return "left out";
  if (cell.pattern === NOT_A_CELL) return "undecided";
  return image.unit === "cell" && cell.shares[cell.pattern] < Number($("share").value) ? "undecided" : cell.pattern;
}

function showCounts(images, stack, words) {
  const all = images.flatMap((image) => image.cells.map((cell) => decided(image, cell))).filter((value) => value !== "left out");
  const kinds = [...state.facts.classes.keys(), "undecided"];
  const counts = kinds.map((kind) => [kind, all.filter((value) => value === kind).length]).filter(([, count]) => count);
  const colour = (kind) => (kind === "undecided" ? "#8a8a8a" : state.facts.classes[kind].colour);
  $(stack).replaceChildren(stripe(counts.map(([kind, count]) => [count / all.length, colour(kind)])));
  const parts = counts.map(([kind, count]) => `${count} ${kind === "undecided" ? kind : nameOf(kind)}`);
  $(words).textContent = parts.join(", ") || "no cell";
}

const objects = ({ confidence, verdict }) => confidence !== "" && verdict !== "";

function showImages() {
  const focused = [...$("images").querySelectorAll("button")].indexOf(document.activeElement);
  $("images").replaceChildren(...state.images.map((image) => {
    const corrected = Object.keys(image.corrections).length;
    const words = make("span", {}, make("b", { title: image.name }, image.name), make("span", {}, image.pattern.replaceAll("_", " ")),
      ...(objects(image) ? [make("span", { className: "objection" }, image.verdict)] : []),
      ...(corrected ? [make("span", { className: "muted" }, `${corrected} corrected`)] : []));
    const open = make("button", { type: "button", className: "open", onclick: () => openImage(image).then(() => canvas.focus()) },
      make("img", { src: image.thumbnail, alt: "" }), words);
    open.setAttribute("aria-current", image === state.current);
    const drop = make("button", { type: "button", className: "drop", onclick: () => removeImage(image) }, "×");
    drop.setAttribute("aria-label", `Remove ${image.name}`);
    return make("li", {}, open, drop);
  }));
  $("images").querySelectorAll("button")[focused]?.focus();
  $("empty").hidden = state.images.length > 0;
  $("images").hidden = !state.images.length;
}

function show() {
  const { current: image, facts } = state;
  showImages();
  $("viewer").hidden = $("side").hidden = !image;
  const count = state.images.reduce((sum, each) => sum + Object.keys(each.corrections).length, 0);
  $("corrected").textContent = count === 1 ? "1 correction" : `${count} corrections`;
  $("save-fields").disabled = $("save-cells").disabled = !count;
  $("undo").disabled = !state.undo.length;
  if (!image) return;
  for (const element of document.querySelectorAll(".fields")) element.hidden = image.unit !== "cell" || !image.has_mask;
  $("name").textContent = image.name;
  $("reading").textContent = [image.pattern.replaceAll("_", " "), image.icap, image.intensity].filter(Boolean).join(" · ");
  $("image-bars").replaceChildren(...bars(image.probabilities));
  $("counts").hidden = !facts.has_one_pattern;
  const { confidence, novelty, verdict } = image;
  const figures = confidence === "" ? [] : [`confidence ${percent(confidence)}`, `novelty ${novelty.toFixed(2)}`];
  $("verdict").textContent = [verdict, ...figures].filter(Boolean).join(" · ");
  $("verdict").classList.toggle("objection", objects(image));
  $("notes").textContent = state.notes.join(" ");
  $("share-value").textContent = percent(Number($("share").value));
  showCounts([image], "stack-one", "words-one");
  showCounts(state.images, "stack-all", "words-all");
  canvas.setAttribute("aria-label", `${image.name}: ${image.pattern}, ${image.cells.length} ${image.unit === "cell" ? "cells" : "image"}. Arrow keys choose a cell, number keys correct it.`);
  showCell();
  draw();
}

function showCell() {
  const { current: image, cell, facts } = state;
  $("cell").hidden = !facts.has_one_pattern;
  $("no-cell").hidden = Boolean(cell);
  $("cell-body").hidden = !cell;
  if (!cell) return;
  const correction = image.corrections[cell.label];
  const size = image.unit === "cell" ? `${cell.area} px` : `${image.width} × ${image.height} px`;
  const read = cell.pattern === NOT_A_CELL ? "no pattern" : nameOf(cell.pattern);
  const code = cell.pattern === NOT_A_CELL ? "" : facts.classes[cell.pattern].icap;
  $("cell-title").textContent = image.unit === "cell" ? `Cell ${cell.label}` : "Whole image";
  const words = [`Read as ${read}`, code, size, correction === undefined ? "" : correction === cell.pattern ? "confirmed" : `corrected: ${nameOf(correction)}`];
  $("cell-words").textContent = words.filter(Boolean).join("; ");
  $("cell-bars").replaceChildren(...bars(cell.shares));
  for (const button of $("choices").children) button.setAttribute("aria-pressed", String(Number(button.dataset.pattern) === correction));
  drawCrop(cell);
  showNearest(image, cell);
}

// Asks once for each cell; the answer is kept with it.
async function showNearest(image, cell) {
  if (($("compared").hidden = !state.facts.has_cells)) return;
  if (cell.nearest === undefined) {
    cell.nearest = [];
    cell.said = "The training cells are being measured …";
    ask(`api/images/${image.key}/cells/${cell.label}/nearest`).then((answer) => answer.json()).then((found) => {
      cell.nearest = found;
      cell.said = "Of up to 2,000 cells of the training split those with the nearest grey levels and texture, measured without the network. In brackets the distance.";
    }).catch((error) => { cell.said = error.message; }).finally(() => { if (state.cell === cell) showNearest(image, cell); });
  }
  $("nearest-words").textContent = cell.said;
  $("nearest").replaceChildren(...cell.nearest.map(({ pattern, specimen, distance, picture }) => {
    const words = make("figcaption", {}, swatch(state.facts.classes[pattern].colour), `${nameOf(pattern)} (${distance.toFixed(2)})`);
    return make("figure", { title: specimen && `specimen ${specimen}` }, make("img", { src: picture, alt: "" }), words);
  }));
}

// The cell with its own contrast, as the training cells have theirs.
function drawCrop(cell) {
  const crop = $("crop"), context = crop.getContext("2d"), [top, left, bottom, right] = cell.box;
  context.clearRect(0, 0, crop.width, crop.height);
  if (!view.grey) return;
  const side = Math.ceil(1.3 * Math.max(bottom - top, right - left)), image = state.current;
  const x = Math.round((left + right - side) / 2), y = Math.round((top + bottom - side) / 2);
  const [x0, y0] = [Math.max(x, 0), Math.max(y, 0)];
  const width = Math.min(x + side, image.width) - x0, height = Math.min(y + side, image.height) - y0;
  const values = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const start = (y0 + row) * image.width + x0;
    values.set(view.grey.subarray(start, start + width), row * width);
  }
  const zoom = crop.width / side;
  context.drawImage(paint(values, greys(values), width, height), (x0 - x) * zoom, (y0 - y) * zoom, width * zoom, height * zoom);
}

// Pixels

async function pixelsOf(path) {
  const picture = await createImageBitmap(await (await ask(path)).blob(), { colorSpaceConversion: "none" });
  const sheet = new OffscreenCanvas(picture.width, picture.height).getContext("2d", { willReadFrequently: true });
  sheet.drawImage(picture, 0, 0);
  const { data } = sheet.getImageData(0, 0, picture.width, picture.height);
  const values = new Uint8Array(data.length / 4);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return values;
}

function percentile(values, share) {
  const counts = new Uint32Array(256);
  for (const value of values) counts[value]++;
  let sum = 0;
  for (let level = 0; level < 256; level++) if ((sum += counts[level]) >= share * values.length) return level;
  return 255;
}

function paint(values, colours, width = state.current.width, height = state.current.height) {
  const sheet = new OffscreenCanvas(width, height), context = sheet.getContext("2d");
  const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[values[i]];
  context.putImageData(image, 0, 0);
  return sheet;
}

// The colour of each grey level, for the contrast that these pixels need.
function greys(values) {
  const low = percentile(values, 0.01), span = Math.max(percentile(values, 0.998) - low, 1) / Number($("contrast").value);
  return Uint32Array.from({ length: 256 }, (_, level) => {
    const grey = Math.round(255 * Math.min(Math.max((level - low) / span, 0), 1) ** 0.8);
    return (255 << 24) | (grey << 16) | (grey << 8) | grey;
  });
}

function makeBase() {
  view.base = paint(view.grey, greys(view.grey));
}

function makeOverlay() {
  const colours = new Uint32Array(256);
  state.facts.classes.forEach(({ colour }, index) => {
    const value = parseInt(colour.slice(1), 16);
    if (!state.hidden.has(index)) colours[index + 1] = (255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16);
  });
  view.overlay = view.classes && paint(view.classes, colours);
}

// Drawing

function pathOf(cell) {
  if (!cell.path) {
    cell.path = new Path2D();
    for (let i = 0; i < cell.outline.length; i += 2) cell.path.lineTo(cell.outline[i] + 0.5, cell.outline[i + 1] + 0.5);
    cell.path.closePath();
  }
  return cell.path;
}

function visible(image, cell) {
  const kind = decided(image, cell);
  if (image.corrections[cell.label] !== undefined) return true;
  return kind !== "left out" && !state.hidden.has(cell.pattern);
}

function draw() {
  const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas, image = state.current;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!image || !view.base) return;
  pen.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
  pen.imageSmoothingEnabled = view.scale < 3;
  pen.drawImage(view.base, 0, 0);
  pen.globalAlpha = Number($("opacity").value);
  if (view.overlay) pen.drawImage(view.overlay, 0, 0);
  pen.globalAlpha = 1;
  if (image.unit === "image" || !state.facts.has_one_pattern) return;
  for (const cell of image.cells) if (visible(image, cell) && cell !== state.cell) outline(image, cell, 1.6);
  if (state.cell) outline(image, state.cell, 3.5);
}

function outline(image, cell, thick) {
  const correction = image.corrections[cell.label], kind = decided(image, cell);
  const grey = typeof kind !== "number";
  pen.setLineDash(correction === undefined ? [] : [6 / view.scale, 4 / view.scale]);
  if (cell === state.cell) {
    pen.lineWidth = (thick + 2.5) / view.scale;
    pen.strokeStyle = "#fff";
    pen.stroke(pathOf(cell));
  }
  pen.lineWidth = thick / view.scale;
  pen.strokeStyle = grey ? "#a8a8a8" : state.facts.classes[kind].colour;
  pen.stroke(pathOf(cell));
}

function fit() {
  const { current: image } = state;
  if (!image) return;
  view.scale = Math.min(canvas.clientWidth / image.width, canvas.clientHeight / image.height);
  view.x = (canvas.clientWidth - image.width * view.scale) / 2;
  view.y = (canvas.clientHeight - image.height * view.scale) / 2;
  draw();
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * factor, 0.02), 40);
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  draw();
}

function move(x, y) {
  view.x += x;
  view.y += y;
  draw();
}

// Images

async function openImage(image) {
  Object.assign(state, { current: image, cell: null });
  Object.assign(view, { grey: null, base: null, overlay: null });
  show();
  try {
    const paths = [`api/images/${image.key}/grey.png`, ...(image.has_mask ? [`api/images/${image.key}/classes.png`] : [])];
    const [grey, classes] = await Promise.all(paths.map(pixelsOf));
    if (state.current !== image) return;
    Object.assign(view, { grey, classes: classes ?? null });
    canvas.style.aspectRatio = `${image.width} / ${image.height}`;
    makeBase();
    makeOverlay();
    if (image.unit === "image") state.cell = image.cells[0];
    fit();
    show();
    if (document.activeElement === document.body) canvas.focus({ preventScroll: true });
  } catch (error) {
    say(error.message, true);
  }
}

async function removeImage(image) {
  if (Object.keys(image.corrections).length && !confirm(`Remove ${image.name} with its corrections?`)) return;
  try {
    await ask(`api/images/${image.key}`, { method: "DELETE" });
  } catch (error) {
    return say(error.message, true);
  }
  const place = state.images.indexOf(image);
  state.images.splice(place, 1);
  state.undo = state.undo.filter((step) => step.image !== image);
  if (state.current === image) state.current = state.cell = null;
  const next = state.images[Math.min(place, state.images.length - 1)];
  if (!state.current && next) await openImage(next);
  else show();
}

const byName = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true });
const stem = (file) => file.name.replace(/\.[^.]*$/, "");
const isMask = (file) => /_mask$/i.test(stem(file));

async function upload(files) {
  const masks = new Map(files.filter(isMask).map((file) => [stem(file).slice(0, -5), file]));
  const waiting = files.filter((file) => !isMask(file)), total = waiting.length, refused = [];
  if (!total) return say("No image among these files", true);
  let done = 0;
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      try {
        const mask = state.facts.takes_masks ? masks.get(stem(file)) : undefined;
        if (file.size + (mask?.size ?? 0) > state.facts.max_bytes) throw new Error(`${file.name}: more than ${state.facts.max_bytes / 1e6} MB`);
        const before = new Set(state.images);
        const query = new URLSearchParams({ name: file.name, image_bytes: file.size });
        const answer = await ask(`api/images?${query}`, { method: "POST", body: new Blob(mask ? [file, mask] : [file]) });
        const { images, present, notes } = await answer.json();
        state.notes = notes;
        // An answer that was overtaken by another does not know the images of that one.
        const kept = state.images.filter((image) => present.includes(image.key) || !before.has(image));
        state.images = [...kept, ...images].sort(byName);
        if (!state.images.includes(state.current)) await openImage(state.images.at(-images.length));
      } catch (error) {
        refused.push(error.message);
      }
      done++;
      say(`${done} of ${total} read`);
      show();
    }
  };
  say(`Reading ${total === 1 ? waiting[0].name : `${total} images`}. The first takes longest, because the network is compiled.`);
  await Promise.all(Array.from({ length: Math.min(4, total) }, work));
  say(refused.length ? refused.join("; ") : `${total === 1 ? "1 image" : `${total} images`} read`, refused.length > 0);
}

// Cells

function select(cell) {
  state.cell = cell;
  if (cell) {
    const x = cell.centre[0] * view.scale + view.x, y = cell.centre[1] * view.scale + view.y;
    if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) move(canvas.clientWidth / 2 - x, canvas.clientHeight / 2 - y);
    const share = cell.shares[cell.pattern];
    if (state.current.unit === "cell") say(`Cell ${cell.label}: ${nameOf(cell.pattern)}${share === null ? "" : `, ${percent(share)}`}`);
  }
  showCell();
  draw();
}

function cellAt(x, y) {
  const image = state.current, here = [(x - view.x) / view.scale, (y - view.y) / view.scale];
  if (!image || image.unit !== "cell") return image?.cells[0] ?? null;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  return image.cells.find((cell) => visible(image, cell) && pen.isPointInPath(pathOf(cell), ...here)) ?? null;
}

function towards(dx, dy) {
  const image = state.current, cells = image.cells.filter((cell) => visible(image, cell));
  if (!state.cell) return select(cells[0] ?? null);
  const [x0, y0] = state.cell.centre;
  const cost = (cell) => {
    const [x, y] = [cell.centre[0] - x0, cell.centre[1] - y0], along = x * dx + y * dy;
    return along > 1 ? along + 2 * Math.abs(x * dy - y * dx) : Infinity;
  };
  const best = cells.reduce((a, b) => (cost(b) < (a ? cost(a) : Infinity) ? b : a), null);
  if (best) select(best);
}

function step(by) {
  const image = state.current, cells = image.cells.filter((cell) => visible(image, cell));
  if (!cells.length) return;
  const from = state.cell ? cells.indexOf(state.cell) : by > 0 ? -1 : cells.length;
  select(cells[(from + by + cells.length) % cells.length]);
}

async function correct(image, cell, pattern, remembers = true) {
  if (remembers) state.undo.push({ image, cell, before: image.corrections[cell.label] });
  if (pattern === undefined) delete image.corrections[cell.label];
  else image.corrections[cell.label] = pattern;
  say(pattern === undefined ? `Correction of cell ${cell.label} undone` : `${image.unit === "cell" ? `Cell ${cell.label}` : image.name}: ${nameOf(pattern)}`);
  show();
  const body = JSON.stringify(image.corrections);  // sent one after another, so that the last one stays
  saved = saved.then(() => ask(`api/images/${image.key}/corrections`, { method: "PUT", body }))
    .catch((error) => say(`The correction was not saved: ${error.message}`, true));
  await saved;
}

async function undo() {
  const last = state.undo.pop();
  if (!last) return;
  if (last.image !== state.current) await openImage(last.image);
  state.cell = last.cell;
  await correct(last.image, last.cell, last.before, false);
}

async function save(path, name) {
  try {
    const address = URL.createObjectURL(await (await ask(path)).blob());
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    say(`${name} is downloaded`);
  } catch (error) {
    say(error.message, true);
  }
}

// Keys and pointers

const KEYS = {
  ArrowLeft: () => towards(-1, 0), ArrowRight: () => towards(1, 0), ArrowUp: () => towards(0, -1), ArrowDown: () => towards(0, 1),
  n: () => step(1), p: () => step(-1), u: undo, f: fit, "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8),
  "[": () => neighbour(-1), "]": () => neighbour(1), Escape: () => select(null),
};
const SHIFTED = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

function neighbour(by) {
  const next = state.images[state.images.indexOf(state.current) + by];
  if (next) openImage(next);
}

function onKey(event) {
  if (!state.current || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, summary")) return;
  if (/^[0-9]$/.test(event.key)) {
    const pattern = Number(event.key) - 1;
    if (state.cell && state.facts.has_one_pattern && pattern < state.facts.classes.length) correct(state.current, state.cell, pattern);
  } else if (event.shiftKey && SHIFTED[event.key]) move(...SHIFTED[event.key]);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

function connect() {
  for (const part of [$("viewer"), $("cell")]) part.addEventListener("keydown", onKey);
  let start = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = { x: event.offsetX, y: event.offsetY, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) {
      const cell = state.current?.unit === "cell" ? cellAt(event.offsetX, event.offsetY) : null;
      canvas.title = cell ? `Cell ${cell.label}: ${nameOf(state.current.corrections[cell.label] ?? cell.pattern)}` : "";
      return;
    }
    start.moved ||= Math.hypot(event.offsetX - start.x, event.offsetY - start.y) > 4;
    if (start.moved) move(event.movementX, event.movementY);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (start && !start.moved) select(cellAt(event.offsetX, event.offsetY));
    start = null;
  });
  canvas.addEventListener("pointercancel", () => { start = null; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
  new ResizeObserver(fit).observe(canvas);
  $("in").onclick = () => zoom(1.25);
  $("out").onclick = () => zoom(0.8);
  $("fit").onclick = fit;
  $("undo").onclick = undo;
  $("contrast").oninput = () => { makeBase(); showCell(); draw(); };
  $("opacity").oninput = draw;
  $("share").oninput = $("area").oninput = show;
  $("save-results").onclick = () => save("api/results.zip", "results.zip");
  $("save-fields").onclick = () => save("api/corrections-fields.zip", "corrections-fields.zip");
  $("save-cells").onclick = () => save("api/corrections-cells.zip", "corrections-cells.zip");
  $("files").onchange = async () => {
    const files = [...$("files").files];
    $("files").value = "";
    await upload(files);
  };
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.body.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop" && state.facts) upload([...event.dataTransfer.files]);
    });
  }
}

function addPatterns() {
  state.facts.classes.forEach(({ colour, icap }, index) => {
    const box = make("input", { type: "checkbox", checked: true, onchange: () => {
      if (box.checked) state.hidden.delete(index); else state.hidden.add(index);
      makeOverlay();
      draw();
    } });
    $("classes").append(make("label", { title: icap }, box, make("span", {}, swatch(colour), nameOf(index))));
  });
  for (const pattern of [...state.facts.classes.keys(), NOT_A_CELL]) {
    const key = pattern < 9 ? [make("kbd", {}, String(pattern + 1))] : [];
    const button = make("button", { type: "button", title: nameOf(pattern), onclick: () => correct(state.current, state.cell, pattern) }, ...key, nameOf(pattern));
    button.dataset.pattern = pattern;
    $("choices").append(button);
  }
}

// Images that the command was started with appear as they are read.
async function refresh() {
  const { images, notes, expected } = await (await ask("api/state")).json();
  const known = new Set(state.images.map((image) => image.key)), added = images.filter((image) => !known.has(image.key));
  state.images = [...state.images, ...added].sort(byName);
  state.notes = notes;
  say(expected ? `${expected} more to be read` : "Ready");
  if (added.length && !state.current) await openImage(state.images[0]);
  show();
  if (expected) setTimeout(refresh, 1500);
}

async function begin() {
  connect();
  try {
    state.facts = await (await ask("api/facts")).json();
    $("network").textContent = [...new Set([state.facts.network, state.facts.title])].filter(Boolean).join(" · ");
    $("origin").textContent = state.facts.origin;
    addPatterns();
    await refresh();
  } catch (error) {
    say(error.message, true);
  }
}

begin();
