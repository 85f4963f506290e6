// Ask each second whether anything is new, and if so put the new content of this page in place of the old.
// Without scripts the page works the same, with a link to refresh it.
"use strict";

(() => {
  const EVERY = 1000;
  const live = document.getElementById("live");

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(live.dataset.newsUrl, { credentials: "same-origin" });
        const { news } = await answer.json();
        if (news !== live.dataset.news) await renew();
        document.documentElement.classList.remove("cut-off");
      } catch {
        document.documentElement.classList.add("cut-off"); // the demo has stopped, or is starting anew
      }
    }
    setTimeout(look, EVERY);
  }

  async function renew() {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const renewed = page.getElementById("live");
    if (!renewed || answer.redirected) return location.reload(); // signed out elsewhere
    const focused = placeOf(document.activeElement);
    const scrolled = [...live.querySelectorAll("[id]")].map((part) => [part.id, part.scrollLeft]);
    live.replaceChildren(...renewed.childNodes);
    live.dataset.news = renewed.dataset.news;
    if (focused) live.querySelector(focused)?.focus({ preventScroll: true });
    for (const [id, left] of scrolled) if (left) document.getElementById(id)?.scrollTo({ left });
  }

  // A selector that finds the same control in the new content.
  function placeOf(element) {
    if (!live.contains(element)) return null;
    if (element.id) return `#${CSS.escape(element.id)}`;
    if (element.name) return `[name="${CSS.escape(element.name)}"][value="${CSS.escape(element.value)}"]`;
    const href = element.getAttribute("href");
    return href ? `[href="${CSS.escape(href)}"]` : null;
  }

  document.documentElement.classList.add("is-live");
  setTimeout(look, EVERY);
})();
