"use strict";
// The map of features: its part that is seen, which pictures have room in it, and the colours of its points.

const map = document.getElementById("map");
const label = document.getElementById("label");
const points = [...map.querySelectorAll(".point")];
const pictures = [...map.querySelectorAll(".thumbnail")];
const columns = JSON.parse(document.getElementById("columns").textContent);
const whole = { x: 0, y: 0, width: map.viewBox.baseVal.width, height: map.viewBox.baseVal.height };
const SMALLEST = 1 / 200; // part of the map that can fill it
let seen = { ...whole };
let column = columns[0];

const unit = () => 1 / map.getScreenCTM().a; // of the map, in a pixel of the screen
const place = (p) => [p.cx.baseVal.value, p.cy.baseVal.value];

function show(view) {
  seen = view;
  map.setAttribute("viewBox", `${seen.x} ${seen.y} ${seen.width} ${seen.height}`);
  const size = unit();
  map.style.setProperty("--unit", size);
  const scale = size * Math.max(0.6, Math.min(1, map.clientWidth / 800)); // smaller on a phone
  const taken = [];
  for (const picture of pictures) {
    const [x, y] = place(points[picture.dataset.row]);
    const free = taken.every(([a, b]) => Math.abs(a - x) > 92 * scale || Math.abs(b - y) > 70 * scale);
    picture.toggleAttribute("hidden", !free);
    if (!free) continue;
    taken.push([x, y]);
    picture.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
  }
}

function zoom(factor, clientX, clientY) {
  const width = Math.min(whole.width, Math.max(whole.width * SMALLEST, seen.width / factor));
  if (width === whole.width) return show({ ...whole });
  const at = new DOMPoint(clientX, clientY).matrixTransform(map.getScreenCTM().inverse());
  const share = width / seen.width;
  const height = seen.height * share;
  show({ x: at.x - (at.x - seen.x) * share, y: at.y - (at.y - seen.y) * share, width, height });
}

function zoomAtMiddle(factor) {
  const box = map.getBoundingClientRect();
  zoom(factor, box.x + box.width / 2, box.y + box.height / 2);
}

function move(x, y) {
  show({ ...seen, x: seen.x - x * unit(), y: seen.y - y * unit() });
}

map.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), event.clientX, event.clientY);
}, { passive: false });
map.addEventListener("dblclick", () => show({ ...whole }));
map.addEventListener("dragstart", (event) => event.preventDefault());
map.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
  const factor = { "+": 1.3, "=": 1.3, "-": 1 / 1.3 }[event.key];
  if (step) move(...step);
  else if (factor) zoomAtMiddle(factor);
  else if (event.key === "0") show({ ...whole });
  else return;
  event.preventDefault();
});
document.getElementById("nearer").addEventListener("click", () => zoomAtMiddle(1.5));
document.getElementById("farther").addEventListener("click", () => zoomAtMiddle(1 / 1.5));
document.getElementById("whole").addEventListener("click", () => show({ ...whole }));
addEventListener("resize", () => show(seen));

// One finger or the mouse drags, two fingers zoom. What was a drag is no click on a video.
const fingers = new Map();
let dragged = 0;
map.addEventListener("pointerdown", (event) => {
  if (!fingers.size) dragged = 0;
  fingers.set(event.pointerId, event);
});
addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
  dragged += Math.abs(x) + Math.abs(y);
  const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, finger]) => finger);
  if (other) {
    const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
    zoom(apart(event) / Math.max(1, apart(before)), other.clientX, other.clientY);
  } else if (dragged > 4) move(x, y);
  fingers.set(event.pointerId, event);
});
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, (event) => fingers.delete(event.pointerId));
}
map.addEventListener("click", (event) => {
  if (dragged > 4) {
    event.preventDefault();
    event.stopPropagation();
  } else if (event.target.dataset.link) play(event.target.dataset.link, event.target.dataset.label);
}, { capture: true });

function tell(element, x, y) {
  const row = element.closest(".thumbnail")?.dataset.row ?? points.indexOf(element);
  label.hidden = !points[row];
  if (label.hidden) return;
  label.textContent = `${points[row].dataset.label}\n${column.name}: ${column.values[row]}`;
  label.style.left = `${Math.min(x + 12, innerWidth - label.offsetWidth - 8)}px`;
  label.style.top = `${Math.min(y + 12, innerHeight - label.offsetHeight - 8)}px`;
}
map.addEventListener("pointermove", (event) => tell(event.target, event.clientX, event.clientY));
map.addEventListener("pointerleave", () => { label.hidden = true; });
map.addEventListener("focusin", (event) => {
  const box = event.target.getBoundingClientRect();
  tell(event.target, box.x, box.bottom);
});
map.addEventListener("focusout", () => { label.hidden = true; });

function colour() {
  column = columns[document.getElementById("colour").selectedIndex];
  const of = (row) => column.legend[column.entries[row]].colour;
  points.forEach((point, row) => point.setAttribute("fill", of(row)));
  for (const picture of pictures) picture.querySelector("rect").setAttribute("stroke", of(picture.dataset.row));
  const entries = column.legend.map(({ name, count, colour }) => {
    const dot = document.createElement("span");
    dot.style.color = colour;
    dot.textContent = "●";
    return [dot, ` ${name} (${count})\u2002`];
  });
  document.getElementById("legend").replaceChildren(...entries.flat());
}
document.getElementById("colour").addEventListener("change", colour);

// Points stand out whose file, or any column of it, holds the words.
document.getElementById("words").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase().split(/\s+/);
  points.forEach((point, row) => {
    const texts = [point.dataset.label, ...columns.map((each) => each.values[row])].join(" ").toLowerCase();
    point.classList.toggle("other", !wanted.every((word) => texts.includes(word)));
  });
  for (const picture of pictures) {
    picture.classList.toggle("other", points[picture.dataset.row].classList.contains("other"));
  }
});

colour();
show(seen);
