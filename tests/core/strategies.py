"""A site to decide about, and strangers' ways to spell things."""

from __future__ import annotations

from hypothesis import strategies as st

from hubgate.core.identity import Identity, Proof
from hubgate.core.session import Session
from hubgate.core.site import Pool, Site, Upstream

PORTAL = "jupyter.example.org"


def pool(name: str, path: str, *, host: str | None = None, groups: tuple[str, ...] = (), hubs: int = 2) -> Pool:
    upstreams = tuple(Upstream(f"{name}{n:02}", f"http://127.0.0.1:{8000 + n}", name) for n in range(1, hubs + 1))
    return Pool(name, path, upstreams, host=host, groups=groups)


SITE = Site(
    f"https://{PORTAL}",
    (
        pool("htc", "/htc/"),
        pool("hpc", "/hpc/", groups=("hpc-users", "staff")),
        pool("outer", "/lab/"),
        pool("inner", "/lab/deep/"),
        pool("gpu", "/", host="gpu.example.org"),
        pool("dev", "/dev/", host="dev.example.org:8443"),
    ),
)
HOSTS = tuple(dict.fromkeys((PORTAL, "gpu.example.org", "dev.example.org:8443")))


def session(*, created: float = 1000.0, last_seen: float = 1000.0, groups: tuple[str, ...] = ()) -> Session:
    return Session(
        handle="s-1",
        identity=Identity("https://id.example.org", "42", "alice", groups=groups),
        proof=Proof("mfa", ("pwd", "otp"), 1000),
        created=created,
        last_seen=last_seen,
        csrf="c",
        id_token="a secret",
    )


_PIECES = (
    *("htc", "hpc", "lab", "deep", "hub", "login", "user", "alice", "files", ".hidden", "htcx", "_hubgate", "callback"),
    *(".", "..", "...", "/", "//", "\\", ";", ";x", "..;", ".;x=1", "%2f", "%2F", "%5c", "%2e", "%2e%2e", "%252e%252e"),
    *(
        "%252f",
        "%25",
        "%2500",
        "%00",
        "%0a",
        "%3b",
        "%20",
        "%c3%a9",
        "%c0%ae",
        "%5f",
        "%68",
        "%2568",
        "é",
        "|",
        "~",
        "@",
    ),
)

paths = st.one_of(
    st.lists(st.sampled_from(_PIECES), max_size=10).map(lambda parts: "/" + "".join(parts)),
    st.lists(st.sampled_from(_PIECES), max_size=8).map(lambda parts: "/" + "/".join(parts)),
    st.text(st.sampled_from("/htcub.%2eEfF5;\\_\x00 #?"), max_size=20).map("/".__add__),
    st.text(max_size=12).map("/htc/".__add__),
)
"""Paths that were made to be misread, and some that weren't."""


@st.composite
def respelled(draw: st.DrawFn, path: str) -> str:
    """`path` with any of its characters percent-encoded, once or twice."""
    spelled = []
    for character in path:
        once = "".join(f"%{byte:02X}" for byte in character.encode())
        spelled.append(
            draw(st.sampled_from((character, character, character, once, once.lower(), once.replace("%", "%25"))))
        )
    return "".join(spelled)
