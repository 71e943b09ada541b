// What follows `#` in an address never reaches a server. This takes it along to the login, as part of `next`, so that a
// link into a notebook still ends at its cell. Without script the link on the page does the same, less the fragment.
"use strict";

const link = document.getElementById("onward");
const onward = new URL(link.href);
const next = onward.searchParams.get("next");
if (next !== null && location.hash.length > 1 && !next.includes("#")) {
  onward.searchParams.set("next", next + location.hash);
  link.href = onward.href;
}
location.replace(link.href);
