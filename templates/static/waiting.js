// Looks quietly whether the hub is back, and only then loads the page anew: nobody who reads it, or has it read aloud, is
// interrupted before there is news. Without script the page reloads itself (a <noscript> in waiting.html).
"use strict";

const { every, reload } = document.currentScript.dataset;

async function stillWaiting() {
  try {
    const answer = await fetch(location.href, {
      method: "HEAD",
      headers: { Accept: "application/problem+json" },
      cache: "no-store",
      redirect: "manual",
    });
    // Ours says so in its type; any other answer, a redirect included, comes from a hub that is back.
    const type = answer.headers.get("Content-Type") || "";
    return answer.status === 503 && type.startsWith("application/problem+json");
  } catch {
    return true; // this machine itself is offline
  }
}

let timer;

async function look() {
  clearTimeout(timer);
  if (!document.hidden && !(await stillWaiting())) {
    location.reload();
    return;
  }
  clearTimeout(timer);
  timer = setTimeout(look, 1000 * every);
}

timer = setTimeout(look, 1000 * every);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
if (reload) {
  setTimeout(() => location.reload(), 1000 * reload);
}
