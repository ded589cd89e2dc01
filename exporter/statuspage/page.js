"use strict";
(() => {
  const root = document.documentElement;
  const every = Number(root.dataset.refresh) * 1000;
  const patience = 5000;
  let lostAt = null;
  let paused = false;

  // Make a node look like a fresh one, and touch nothing that already does: focus, selection and
  // the place on the page stay.
  function patch(old, fresh) {
    if (old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old.hasAttribute("data-own")) return;
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((node, place) => {
      if (place < before.length) patch(before[place], node);
      else old.append(document.importNode(node, true));
    });
    before.slice(after.length).forEach((node) => node.remove());
  }

  function show(page) {
    const fresh = new DOMParser().parseFromString(page, "text/html");
    if (fresh.documentElement.dataset.build !== root.dataset.build) {
      location.reload(); // another exporter, with other styles or another script
      return;
    }
    document.title = fresh.title;
    patch(document.querySelector("link[rel=icon]"), fresh.querySelector("link[rel=icon]"));
    patch(document.body, fresh.body);
  }

  function tellLost() {
    const seconds = Math.round((Date.now() - lostAt) / 1000);
    const notice = document.getElementById("lost");
    notice.hidden = false;
    notice.textContent =
      `The exporter has not answered for ${seconds} s: what stands here is from before.`;
    document.querySelector("main").classList.add("old");
    document.title = `No answer – ${root.dataset.node}`;
  }

  async function refresh() {
    try {
      const signal = AbortSignal.timeout(patience);
      const answer = await fetch(location.href, { cache: "no-store", signal });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const page = await answer.text();
      lostAt = null;
      if (!paused) show(page);
    } catch {
      lostAt ??= Date.now() - every;
      tellLost();
    }
  }

  async function run() {
    if (!paused && !document.hidden) await refresh();
    setTimeout(run, every);
  }

  const button = document.getElementById("pause");
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    button.setAttribute("aria-pressed", String(paused));
    if (!paused) refresh();
  });
  document.addEventListener("visibilitychange", () => {
    if (!paused && !document.hidden) refresh();
  });
  setTimeout(run, every);
})();
