"use strict";
// Everything that the server says is put in as text, never as HTML.

const at = (id) => document.getElementById(id);
let latest = 0; // of the searches: an answer that comes late is not shown

async function ask(address) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  const said = await response.json().catch(() => ({ error: `the server failed (${response.status})` }));
  if (!response.ok) throw new Error(said.error);
  return said;
}

function made(tag, style, text) {
  const element = document.createElement(tag);
  element.className = style;
  element.textContent = text;
  return element;
}

function fail(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
}

function describe(file) {
  at("about").textContent = `${file.vectors} vectors of ${file.videos} videos, ${file.arch}`;
  at("columns").replaceChildren(...file.columns.map((name) => new Option("", `${name}=`)));
}

async function search(what) {
  const turn = ++latest;
  const file = at("file").value;
  const asked = new URLSearchParams({ file, ...what, where: at("where").value });
  if (at("once").checked) asked.set("one_per_video", "1");
  try {
    const hits = await ask(`search?${asked}`);
    if (turn !== latest) return;
    at("error").hidden = true;
    at("hits").replaceChildren(...hits.map((hit) => card(file, hit)));
    if (!hits.length) fail(new Error("nothing meets the condition"));
  } catch (error) {
    if (turn === latest) fail(error);
  }
}

function card(file, hit) {
  const item = made("li", "hit", "");
  const button = made("button", "play", "");
  button.title = hit.path;
  button.addEventListener("click", () => play(file, hit));
  const image = made("img", "", "");
  image.alt = hit.name;
  image.loading = "lazy";
  image.addEventListener("error", async () => {
    try {
      await ask(image.src);
    } catch (error) {
      button.textContent = error.message;
    }
  });
  image.src = `picture/${file}/${hit.row}`;
  button.append(image);
  const more = made("button", "more", "more like this");
  more.addEventListener("click", () => search({ row: hit.row }));
  const words = [made("b", "times", hit.times), made("span", "similarity", hit.similarity.toFixed(3)), more];
  item.append(button, made("div", "name", hit.name), ...words.flatMap((word) => [word, " "]));
  return item;
}

function play(file, hit) {
  const video = at("video");
  at("player").hidden = false;
  at("playing").textContent = `${hit.path} ${hit.times}`;
  at("error").hidden = true;
  video.onloadedmetadata = () => {
    if (hit.start !== null) video.currentTime = hit.start;
  };
  video.onerror = async () => {
    const address = video.getAttribute("src");
    const response = await fetch(address, { headers: { range: "bytes=0-0" } });
    const why = response.ok ? "this browser cannot play this kind of video" : (await response.json()).error;
    fail(new Error(`${hit.name}: ${why}`));
  };
  video.src = `video/${file}/${hit.row}`;
  video.play().catch(() => {}); // where it may not start by itself, it waits for a click
}

async function start() {
  const files = await ask("files");
  at("file").replaceChildren(...files.map((file, number) => new Option(file.name, number)));
  at("file").hidden = files.length === 1;
  describe(files[0]);
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search({ text: at("text").value });
  });
  at("file").addEventListener("change", () => {
    describe(files[at("file").value]);
    at("hits").replaceChildren();
    if (at("text").value) search({ text: at("text").value });
  });
}

start().catch(fail);
