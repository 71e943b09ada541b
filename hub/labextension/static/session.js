// JupyterLab goes on when the session at the gateway ends: what is on its way waits, somebody logs in beside the page,
// and then everything is sent that was held.
//
// The gateway answers a script without a session with 401 and a problem document (RFC 9457), and has then done nothing:
// so the same request may be sent again later, whatever it was. JupyterLab would take that 401 for a dead kernel and a
// failed save. Therefore no answer of this kind gets through to it: the request is held until the same person is logged
// in again. If another one is, nothing of this page is sent any more.
//
// This file is a container of module federation as webpack's loader wants it (`init`, `get`), written by hand: there is
// nothing to build. It wraps `fetch` when it is loaded, since JupyterLab takes hold of that a moment later, and lets
// everything through until its plugin is active.
"use strict";

(() => {
  const PROBLEM = "urn:hubgate:problem:";
  const CHANNEL = "hubgate"; // what /_hubgate/static/renewed.js tells the pages of its origin
  const QUIET = 1500; // milliseconds without input before a dialog may take the keyboard
  const BY_HAND = 2000; // milliseconds within which a request follows what somebody did
  const LOGIN = "/_hubgate/login";
  const GONE = [404, 424]; // said by the hub in place of a server that doesn't run; JupyterLab offers to start it

  // In the gateway's languages; its answer says which one it chose.
  const WORDS = {
    en: {
      ended: "Your session has ended",
      kept:
        "Nothing is lost: what you typed is still here, and kernels go on. Log in again in a small window, and what " +
        "waits to be saved is saved.",
      another: "Somebody else is logged in now",
      stopped:
        "This page was opened by {who}, and nothing of it is saved or run under another name. Log in as {who} to go on.",
      blocked: "Your browser did not let the window open. Allow pop-ups for this page, or log in in another tab.",
      login: "Log in",
      later: "Later",
    },
    de: {
      ended: "Ihre Sitzung ist zu Ende",
      kept:
        "Nichts ist verloren: Was Sie geschrieben haben, ist noch da, und Kernel laufen weiter. Melden Sie sich in einem " +
        "kleinen Fenster wieder an; was auf das Speichern wartet, wird dann gespeichert.",
      another: "Jetzt ist jemand anderes angemeldet",
      stopped:
        "Diese Seite hat {who} geöffnet; unter einem anderen Namen wird von ihr nichts gespeichert oder ausgeführt. " +
        "Melden Sie sich als {who} an, um weiterzuarbeiten.",
      blocked:
        "Ihr Browser hat das Fenster nicht zugelassen. Erlauben Sie Pop-ups für diese Seite, oder melden Sie sich in " +
        "einem anderen Tab an.",
      login: "Anmelden",
      later: "Später",
    },
    fr: {
      ended: "Votre session a pris fin",
      kept:
        "Rien n’est perdu\u202f: ce que vous avez écrit est toujours là, et les noyaux continuent. Reconnectez-vous dans " +
        "une petite fenêtre\u202f; ce qui attend d’être enregistré le sera alors.",
      another: "Une autre personne est connectée à présent",
      stopped:
        "Cette page a été ouverte par {who}\u202f; rien n’y est enregistré ni exécuté sous un autre nom. Connectez-vous " +
        "en tant que {who} pour continuer.",
      blocked:
        "Votre navigateur a bloqué la fenêtre. Autorisez les fenêtres surgissantes pour cette page, ou connectez-vous " +
        "dans un autre onglet.",
      login: "Se connecter",
      later: "Plus tard",
    },
  };

  const plainFetch = window.fetch.bind(window);
  const config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent || "{}");
  const base = new URL(config.baseUrl || "/", location.href).pathname;
  const who = config.hubUser || "";

  let scope; // of shared modules
  let active = null; // the plugin's application, once there is one
  let lab; // @jupyterlab/apputils

  // -- what is held

  let out = null; // while nobody, or somebody else, is logged in: {done, letIn, problem, another}
  let lastInput = 0; // of key or pointer

  async function fetchOrHold(input, init) {
    const url = new URL(input instanceof Request ? input.url : input, location.href);
    if (!active || url.origin !== location.origin || !url.pathname.startsWith(base)) {
      return plainFetch(input, init);
    }
    const request = new Request(input, init);
    for (;;) {
      if (out) {
        await held(request);
      }
      const answer = await plainFetch(request.clone());
      const problem = await problemOf(answer);
      if (!problem) {
        return answer;
      }
      leave({ problem });
    }
  }

  /** The gateway's word that somebody has to log in, or null for every other answer. */
  async function problemOf(answer) {
    const type = answer.headers.get("Content-Type") || "";
    if (answer.status !== 401 || !type.startsWith("application/problem+json")) {
      return null;
    }
    const problem = await answer.clone().json().catch(() => ({}));
    // What runs behind the notebook server answers here as well, and could name a form of its own.
    const login = `${location.origin}${LOGIN}?`;
    if (!String(problem.type).startsWith(PROBLEM) || !String(problem.login_url).startsWith(login)) {
      return null;
    }
    return { ...problem, language: answer.headers.get("Content-Language") };
  }

  /** Wait until the page's person is back; what they do themselves meanwhile asks them to log in once more. */
  async function held(request) {
    const { done } = out;
    const byHand = lastInput > answered && performance.now() - lastInput < BY_HAND; // a save begins with a GET
    if (byHand || request.method !== "GET") {
      look().then(() => out && ask());
    }
    await new Promise((resolve, reject) => {
      request.signal.addEventListener("abort", () => reject(request.signal.reason));
      done.then(resolve);
    });
    // Its cookie changes with a login at the hub.
    const token = xsrf();
    if (token && request.headers.has("X-XSRFToken")) {
      request.headers.set("X-XSRFToken", token);
    }
  }

  function xsrf() {
    return document.cookie.match(/(?:^|;\s*)_xsrf=([^;]*)/)?.[1];
  }

  // -- out and in again

  function leave(why) {
    if (out) {
      const news = why.another && !out.another;
      Object.assign(out, why);
      if (news) {
        ask();
      }
      return;
    }
    let letIn;
    const done = new Promise(resolve => (letIn = resolve));
    out = { done, letIn, ...why };
    ask();
  }

  function enter() {
    if (!out) {
      return;
    }
    const { letIn } = out;
    out = null;
    dialog?.reject();
    lab.Notification.dismiss(notice);
    letIn();
    reconnect(active);
  }

  let looking = null;

  /** See who is logged in now; several at once look once. */
  function look() {
    looking ??= seen().finally(() => (looking = null));
    return looking;
  }

  async function seen() {
    try {
      const headers = { "X-XSRFToken": xsrf() || "" };
      const answer = await plainFetch(`${base}api/me`, { cache: "no-store", headers });
      const problem = await problemOf(answer);
      if (problem) {
        leave({ problem, another: false });
        return;
      }
      const name = answer.ok ? (await answer.json().catch(() => null))?.identity?.username : null;
      if (name && (!who || name === who)) {
        enter(); // the server knows no other cookie than its person's
      } else if (name) {
        leave({ another: true });
      } else if (answer.status < 500) {
        await unknown(answer.status); // a 5xx says nothing about anybody
      }
    } catch {
      // This machine is offline.
    }
  }

  /**
   * The server doesn't know who is logged in, which says nothing about who it is: one that was stopped knows nobody, nor
   * does one whose cookie is missing. The gateway knows.
   */
  async function unknown(status) {
    const address = `/_hubgate/session?was=${encodeURIComponent(who)}`;
    const answer = await plainFetch(address, { cache: "no-store", headers: { Accept: "application/json" } });
    const problem = await problemOf(answer);
    if (problem) {
      leave({ problem, another: false });
    } else if (!answer.ok) {
      return; // it can't tell now
    } else if ((await answer.json()).another !== false) {
      leave({ another: true });
    } else if (GONE.includes(status)) {
      enter();
    } else if (out) {
      out.another = false; // the same person: the popup brings their cookie
    }
  }

  /** Sockets try again by themselves, but ever less often, and then not at all. */
  async function reconnect({ serviceManager, shell }) {
    const { kernels, sessions, terminals } = serviceManager;
    await Promise.allSettled([kernels, sessions, terminals].map(manager => manager.refreshRunning()));
    for (const widget of shell.widgets("main")) {
      const context = widget.sessionContext || widget.context?.sessionContext;
      for (const connection of [context?.session?.kernel, widget.content?.session]) {
        if (connection?.reconnect && !connection.isDisposed && connection.connectionStatus !== "connected") {
          connection.reconnect().catch(error => console.warn("hubgate:", error));
        }
      }
    }
  }

  // -- what somebody sees

  let dialog = null;
  let notice = "";
  let answered = 0; // when the last dialog was

  function words() {
    return WORDS[(out?.problem?.language || document.documentElement.lang).slice(0, 2)] || WORDS.en;
  }

  function told() {
    const { ended, kept, another, stopped } = words();
    if (out.another) {
      return [another, stopped.replaceAll("{who}", who)];
    }
    const { code, title, detail } = out.problem || {};
    return !code || code === "session_required" ? [ended, kept] : [title, detail];
  }

  async function ask(more = "") {
    if (dialog) {
      return;
    }
    const { login, later } = words();
    const [title, body] = told();
    dialog = new lab.Dialog({
      title,
      body: more || body,
      buttons: [lab.Dialog.cancelButton({ label: later }), lab.Dialog.okButton({ label: login })],
    });
    await quiet();
    const { button } = out ? await dialog.launch() : {};
    dialog = null;
    answered = performance.now();
    if (!out) {
      return;
    }
    // Later, or if the window is closed again: it stays to be seen how things are.
    if (!lab.Notification.manager.has(notice)) {
      const actions = [{ label: login, displayType: "accent", callback: openPopup }];
      notice = lab.Notification.warning(title, { autoClose: false, actions });
    }
    if (button?.accept) {
      openPopup();
    }
  }

  /** Nobody's typing shall end up in a dialog. */
  async function quiet() {
    for (let wait; (wait = lastInput + QUIET - performance.now()) > 0; ) {
      await new Promise(resolve => setTimeout(resolve, wait));
    }
  }

  function openPopup() {
    const url = new URL(out?.problem?.login_url || LOGIN, location.origin);
    url.searchParams.set("popup", "1");
    url.searchParams.set("next", base);
    if (who) {
      url.searchParams.set("was", who);
    }
    if (!window.open(url, "hubgate-login", "popup,width=560,height=760") && out) {
      ask(words().blocked);
    }
  }

  // -- JupyterLab's side

  function activate(app) {
    active = app;
    for (const input of ["keydown", "pointerdown"]) {
      document.addEventListener(input, () => (lastInput = performance.now()), { capture: true, passive: true });
    }
    // Somebody has logged in: here, in another window, and maybe somebody else.
    new BroadcastChannel(CHANNEL).addEventListener("message", look);
    window.addEventListener("focus", () => out && look());
    document.addEventListener("visibilitychange", () => out && !document.hidden && look());
    if (who) {
      tellBefore();
    }
  }

  /** The gateway's own script counts the last minutes down; what comes after them is told here. */
  function tellBefore() {
    const script = document.createElement("script");
    script.src = "/_hubgate/static/session.js";
    script.dataset.ended = "elsewhere";
    document.head.append(script);
  }

  const plugin = {
    id: "hubgate-hub:session",
    description: "Keeps the page alive when the session at the gateway has ended.",
    autoStart: true,
    activate,
  };

  async function shared(name) {
    const versions = Object.values(scope[name]);
    const chosen = versions.find(version => version.loaded) || versions[0];
    return (await chosen.get())();
  }

  window.fetch = fetchOrHold;
  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB["hubgate-hub"] = {
    init(shareScope) {
      scope = shareScope;
    },
    async get(module) {
      if (module !== "./extension") {
        throw new Error(`hubgate-hub has no ${module}`);
      }
      lab = await shared("@jupyterlab/apputils");
      return () => ({ __esModule: true, default: plugin });
    },
  };
})();
