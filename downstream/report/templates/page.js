"use strict";
// Videos that play in the page, tables that sort, and fields that leave what holds their words.

const dialog = document.querySelector("dialog");
const video = dialog.querySelector("video");
const words = dialog.querySelector("p");

function play(address, name) {
  words.textContent = name;
  video.hidden = false;
  video.src = address; // with the seconds of a window, #t=4,8, at whose end it stops
  dialog.showModal();
  video.play().catch(() => {}); // what is wrong the event says
}

video.addEventListener("error", () => {
  if (!dialog.open) return;
  const file = decodeURI(new URL(video.getAttribute("src"), location).pathname);
  words.textContent = `${file} is not there any more, or is of a kind that this browser cannot play`;
  video.hidden = true;
});
dialog.addEventListener("close", () => {
  video.removeAttribute("src");
  video.load();
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.picture");
  const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey; // a tab or window of its own
  if (!link || elsewhere || /^https?:/.test(link.getAttribute("href"))) return;
  event.preventDefault();
  play(link.getAttribute("href"), link.getAttribute("aria-label").replace(/^play /, ""));
});

for (const field of document.querySelectorAll("[data-filter]")) {
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/);
    for (const element of document.querySelectorAll(field.dataset.filter)) {
      const text = element.textContent.toLowerCase();
      element.hidden = !wanted.every((word) => text.includes(word));
    }
  });
}

const collator = new Intl.Collator("en", { numeric: true });
for (const head of document.querySelectorAll("table.sorted th")) {
  if (!head.textContent) continue;
  const button = document.createElement("button");
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const upwards = head.ariaSort !== "ascending";
    for (const other of head.parentElement.children) other.ariaSort = null;
    head.ariaSort = upwards ? "ascending" : "descending";
    const rows = [...head.closest("table").tBodies[0].rows].filter((row) => row.querySelector("td"));
    const of = (row) => row.cells[head.cellIndex].textContent;
    rows.sort((a, b) => collator.compare(of(a), of(b)) * (upwards ? 1 : -1));
    head.closest("table").tBodies[0].append(...rows);
  });
}
