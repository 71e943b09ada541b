// The end of a login beside a page that waits: pass by the hub's login and the person's server, so that their cookies
// are good again, then tell every page of this origin, and close the window. What passes there is neither shown nor run.
// Without script the page says that the window can be closed.
"use strict";

const { through } = document.currentScript.dataset;

function tellAndClose() {
  const others = new BroadcastChannel("hubgate");
  others.postMessage("logged-in");
  others.close();
  window.close();
}

if (through) {
  const frame = document.createElement("iframe");
  frame.hidden = true;
  frame.sandbox = "allow-same-origin";
  frame.addEventListener("load", tellAndClose);
  frame.src = through;
  document.body.append(frame);
} else {
  tellAndClose();
}
