"""People and pools for the tests of web/."""

from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.core.session import Limits
from hubgate.core.site import Pool, Upstream

KEYRING = Keyring([b"k" * 32])
LIMITS = Limits(idle=1800.0, max=43200.0)
HOST = "jupyter.example.org"
POOL_HOST = "htc.example.org"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def person(name: str = "alice", *, subject: str = "") -> Identity:
    return Identity("https://id.example.org", subject or f"subject-{name}", name, groups=("atlas",))


PROOF = Proof("mfa", ("pwd", "otp"), 1_700_000_000)


def pool(*names: str, host: str | None = None) -> Pool:
    return Pool(
        "htc",
        "/htc/",
        tuple(Upstream(name, f"http://127.0.0.1:{9000 + i}", "htc") for i, name in enumerate(names)),
        host=host,
    )
