"""Who is it, and may they come in at all?

The username is decided here, once, from the provider's claims; hub, notebook and assertion carry that same value. A
person is the pair of issuer and subject, which never changes and is never given to somebody else (OpenID Connect Core
1.0, 2 and 5.7); the username is only what the hubs call them. Whether a name is already taken by another person is a
question for the store, and which pools somebody may use is `access`: neither is known here.

A username ends up in paths, headers, cookie names and Unix accounts. So a name that would have to be bent to fit is
refused rather than bent: two people who look alike must never become one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hubgate.errors import ClientFault

DEFAULT_PATTERN = r"[a-z_][a-z0-9._@-]{0,63}"
"""What a username may look like when a site says nothing: a Unix account name, with room for `name@domain`."""

_LONGEST = 255
# Separators of paths, header lists, cookies and URLs: no pattern of a site makes them safe.
_NEVER = frozenset("/\\%?#,;:\"'<>|`$&*()[]{}=+~^!")


@dataclass(frozen=True, slots=True)
class Identity:
    """One person as the provider knows them. `issuer` and `subject` together are the stable key."""

    issuer: str
    subject: str
    username: str
    name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store; `from_record` reads it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"groups": list(self.groups)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Identity:
        """The identity that `as_record` wrote. KeyError or TypeError: it was not written by it."""
        return cls(
            issuer=record["issuer"],
            subject=record["subject"],
            username=record["username"],
            name=record["name"],
            email=record["email"],
            groups=tuple(record["groups"]),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """How the login was proved: the checked `acr`, `amr` (RFC 8176) and `auth_time` (seconds since the epoch) of the
    ID token. An `acr` of "" and an `auth_time` of 0 mean that the provider did not say.
    """

    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_time: int = 0

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store; `from_record` reads it."""
        return {"acr": self.acr, "amr": list(self.amr), "auth_time": self.auth_time}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Proof:
        """The proof that `as_record` wrote. KeyError or TypeError: it was not written by it."""
        return cls(acr=record["acr"], amr=tuple(record["amr"]), auth_time=record["auth_time"])


@dataclass(frozen=True, slots=True)
class UsernamePolicy:
    """How a claim becomes a username.

    `mapping`: claim value as it arrives -> username. `strip_domains`: of `name@domain`, these domains are cut off, in
    any case. `pattern`: a regular expression that the whole result must match.
    """

    claim: str = "preferred_username"
    lowercase: bool = True
    strip_domains: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    pattern: str = DEFAULT_PATTERN


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may log in. Each list that is not empty must be met; all of them empty: everyone.

    `idps`: values of the claim `idp_claim`, by which a brokering provider says where it got the person from.
    """

    groups: tuple[str, ...] = ()
    email_domains: tuple[str, ...] = ()
    idps: tuple[str, ...] = ()
    idp_claim: str = "identity_provider"


def identity_from_claims(claims: Mapping[str, object], *, usernames: UsernamePolicy, groups_claim: str) -> Identity:
    """The person that checked claims of an ID token speak of.

    `groups_claim`: the claim's name, or a path with dots into nested claims, such as `realm_access.roles`.

    Raises ClientFault, status 403: `username_refused` when no usable name comes out, `claims_malformed` when a claim
    is of another type than OpenID Connect Core 1.0, 5.1 gives it.
    """
    return Identity(
        issuer=_text(claims, "iss"),
        subject=_text(claims, "sub"),
        username=_username(claims, usernames),
        name=_text(claims, "name").strip(),
        email=_text(claims, "email").strip(),
        groups=_groups(claims, groups_claim),
    )


def admit(identity: Identity, claims: Mapping[str, object], admission: Admission) -> None:
    """Return if this person may log in at all, else raise ClientFault `login_not_allowed`, status 403.

    An address counts only when the provider has verified it: anybody can type another's.
    """
    if admission.groups and set(admission.groups).isdisjoint(identity.groups):
        raise _not_allowed("in none of the admitted groups", "allow_groups")
    if admission.email_domains:
        local, at, domain = identity.email.rpartition("@")
        # `is True`: some providers send the text "false".
        if claims.get("email_verified") is not True:
            raise _not_allowed("the e-mail address is not verified", "allow_email_domains")
        if not local or not at or "@" in local or domain.lower() not in _lowered(admission.email_domains):
            raise _not_allowed("the e-mail address is of another domain", "allow_email_domains")
    if admission.idps and claims.get(admission.idp_claim) not in admission.idps:
        raise _not_allowed("came from another identity provider", "allow_idps")


def _username(claims: Mapping[str, object], policy: UsernamePolicy) -> str:
    raw = _text(claims, policy.claim)
    name = policy.mapping[raw] if raw in policy.mapping else _without_domain(raw, policy.strip_domains)
    # Compatibility forms ("ａｌｉｃｅ", "ﬁona", the sign for kelvin) turn into somebody else's name when a later reader
    # normalises them; whoever has one is asked to get another name or an entry in the mapping.
    if name != unicodedata.normalize("NFKC", name):
        raise _refused("has characters that look like others (not in the normal form NFKC)")
    if policy.lowercase:
        # Not casefold(): it turns "ß" into "ss", which is a different person's name.
        name = name.lower()
    if not name:
        raise _refused(f"the claim {policy.claim} is missing or empty")
    if len(name) > _LONGEST:
        raise _refused(f"longer than {_LONGEST} characters")
    if not name.isprintable() or any(c.isspace() or c in _NEVER for c in name) or ".." in name or name == ".":
        raise _refused("has characters that can't be part of a path or a header")
    if not re.fullmatch(policy.pattern, name):
        raise _refused("does not match the pattern of usernames")
    return name


def _without_domain(raw: str, domains: Iterable[str]) -> str:
    local, at, domain = raw.rpartition("@")
    return local if at and domain.lower() in _lowered(domains) else raw


def _groups(claims: Mapping[str, object], path: str) -> tuple[str, ...]:
    value = claims.get(path, _at(claims, path))
    if value is None:
        return ()
    # ADFS and some brokers send a single group as a plain text.
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(g, str) and g and g.isprintable() for g in found):
        raise _malformed(path)
    return tuple(dict.fromkeys(found))


def _at(claims: Mapping[str, object], path: str) -> object:
    found: object = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(claims: Mapping[str, object], claim: str) -> str:
    value = claims.get(claim)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(claim)
    return value


def _lowered(domains: Iterable[str]) -> set[str]:
    return {domain.lower() for domain in domains}


def _refused(why: str) -> ClientFault:
    return ClientFault("username_refused", f"no username for this site: {why}", status=403, evidence={"reason": why})


def _malformed(claim: str) -> ClientFault:
    return ClientFault(
        "claims_malformed",
        f"the claim {claim} has an unexpected type or content",
        status=403,
        evidence={"claim": claim},
    )


def _not_allowed(why: str, key: str) -> ClientFault:
    return ClientFault("login_not_allowed", why, status=403, evidence={"reason": why, "key": key})
