// Tells people that their session is about to end because nobody seems to be there, and lets them say that they are.
// Asking never prolongs the session. A site's own pages can load it: <script src="/_hubgate/static/session.js" defer>.
// With data-into="ID" what is left is written into that element as well; with data-ended="elsewhere" the page itself says
// that the session has ended.
"use strict";

(() => {
  if (window.hubgateTells) return; // a page, and an extension in it, may both load this
  window.hubgateTells = true;
  const address = "/_hubgate/session";
  const { into, ended: toldOf } = document.currentScript.dataset;
  let timer;
  let bar;

  function show(text, action) {
    if (!bar) {
      bar = document.body.appendChild(document.createElement("div"));
      bar.id = "hubgate-session";
      bar.setAttribute("role", "alert");
      // By script, which any Content-Security-Policy allows: a hub's page has a style sheet of its own.
      bar.style.cssText =
        "position:fixed;inset:auto 1rem 1rem auto;z-index:2147483647;max-width:26rem;padding:1rem;display:flex;gap:1rem;" +
        "align-items:center;border-radius:.5rem;background:#1d2733;color:#fff;font:1rem/1.4 system-ui,sans-serif;" +
        "box-shadow:0 .25rem 1.5rem rgb(0 0 0 / .4)";
      bar.append(document.createElement("span"));
    }
    bar.firstChild.textContent = text;
    if (bar.lastChild.dataset?.said !== action.textContent) {
      if (bar.lastChild !== bar.firstChild) bar.lastChild.remove();
      action.dataset.said = action.textContent;
      action.style.cssText =
        "flex:none;padding:.5rem 1rem;border:0;border-radius:.375rem;background:#fff;color:#1d2733;font:inherit;" +
        "font-weight:600;text-decoration:none;cursor:pointer";
      bar.append(action);
    }
  }

  function hide() {
    bar?.remove();
    bar = undefined;
  }

  function told(state) {
    if (into) document.getElementById(into).textContent = state.left;
    if (!state.near) {
      hide();
      return;
    }
    const button = document.createElement(state.by_idling ? "button" : "span");
    button.textContent = state.by_idling ? state.stay : "";
    button.hidden = !state.by_idling;
    if (state.by_idling) button.addEventListener("click", () => look("POST"));
    show(state.left, button);
  }

  function ended(problem) {
    if (toldOf === "elsewhere") {
      hide();
      return;
    }
    const link = document.createElement("a");
    const login = new URL(problem.login_url);
    login.searchParams.set("next", "/_hubgate/account");
    link.href = login.href;
    link.target = "_blank";
    link.rel = "noopener";
    link.textContent = problem.title;
    if (into) document.getElementById(into).textContent = problem.detail;
    show(problem.detail, link);
  }

  async function look(method) {
    clearTimeout(timer);
    let wait = 60;
    try {
      const answer = await fetch(address, { method, headers: { Accept: "application/json" }, cache: "no-store" });
      const found = await answer.json();
      if (answer.ok) {
        told(found);
        wait = found.look_again;
      } else if (answer.status === 401) {
        ended(found);
      }
    } catch {
      // Offline, or hubgate is being restarted: nothing is known, so nothing is said.
    }
    clearTimeout(timer);
    timer = setTimeout(look, 1000 * wait, "GET");
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look("GET"); // a machine that slept has missed its time
  });
  look("GET");
})();
