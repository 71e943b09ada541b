"""What must the keys of a configuration be for each other?

Each check reads what it needs and yields a fault for everything that doesn't fit together. It may meet a configuration
with holes, where a value could not be read: asking for such a value raises Unknown, and a check that needs it has
nothing to say, since that value has its own fault already. `cautions` says what is legal but deserves a word at every
start.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import combinations
from urllib.parse import urlsplit

from hubgate.config.faults import Fault, Location, place, shown
from hubgate.config.tables import Config, Hub, Pool, Unknown
from hubgate.config.values import Address, is_ip, is_loopback
from hubgate.core.announcement import Phase
from hubgate.core.colour import GROUNDS, TEXT_CONTRAST, Scheme, contrast, least_contrast, readable
from hubgate.core.site import ASSERTION_HEADER, OWN_PREFIX, Site

_TAKEN_HEADERS = frozenset(
    (
        *("accept", "accept-encoding", "accept-language", "authorization", "connection", "content-encoding"),
        *("content-length", "content-type", "cookie", "date", "expect", "forwarded", "host", "keep-alive", "origin"),
        *("proxy", "proxy-authorization", "range", "referer", "te", "trailer", "transfer-encoding", "upgrade"),
        *("user-agent", "via", "x-real-ip", "x-scheme", "x-xsrftoken"),
    )
)
"""Headers that have another meaning between browser, gateway and hub."""


Check = Callable[[Config], Iterator[Fault]]


def faults(config: Config, further: Iterable[Check] = ()) -> list[Fault]:
    """Everything that doesn't fit together. The configuration may have holes. `further`: checks of somebody else."""
    found: list[Fault] = []
    for check in (*_CHECKS, *further):
        with suppress(Unknown):
            found.extend(check(config))
    return found


def _fault(location: Location, value: object, expected: str) -> Fault:
    return Fault(place(location), shown(value), expected)


def _public_url(config: Config) -> Iterator[Fault]:
    parts = urlsplit(config.gateway.public_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield _fault(
            ("gateway", "public_url"),
            config.gateway.public_url,
            "https:// (the site may end TLS in front of hubgate); http:// is for loopback, such as http://127.0.0.1:8080",
        )


def _listeners(config: Config) -> Iterator[Fault]:
    listen = config.gateway.listen
    for (_, first), (index, second) in combinations(enumerate(listen), 2):
        if first == second and first.port:
            yield _fault(("gateway", "listen", index), str(second), "each address once")
    with suppress(Unknown):
        ops = config.gateway.ops_listen
        if ops is not None and any(_collides(ops, public) for public in listen):
            yield _fault(
                ("gateway", "ops_listen"),
                str(ops),
                "another address than gateway.listen: metrics are not for the public",
            )


def _collides(one: Address, other: Address) -> bool:
    anywhere = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
    return one.port == other.port != 0 and (one.host == other.host or one.host in anywhere or other.host in anywhere)


def _secret_keys(config: Config) -> Iterator[Fault]:
    keys = config.keys
    for index, key in enumerate(keys):
        if key in keys[:index]:
            location = place(("gateway", "secret_keys", index))
            yield Fault(location, "the same key a second time", "each key once, oldest to newest")


def _workers(config: Config) -> Iterator[Fault]:
    if config.gateway.workers > 1 and config.store.url.reveal().startswith("memory:"):
        yield _fault(
            ("gateway", "workers"),
            config.gateway.workers,
            "1 with a memory:// store, or a store that workers share (redis://)",
        )


def _provider(config: Config) -> Iterator[Fault]:
    with suppress(Unknown):
        if "openid" not in config.oidc.scopes:
            yield _fault(("oidc", "scopes"), list(config.oidc.scopes), 'a list with "openid" in it')
    with suppress(Unknown):
        prompts = config.oidc.prompt.split()
        if not set(prompts) <= {"login", "consent", "select_account"}:
            # "none" never shows a form: nobody could ever log in (OpenID Connect Core 1.0, 3.1.2.1).
            yield _fault(("oidc", "prompt"), config.oidc.prompt, '"login", "consent", "select_account", or "" for none')
    with suppress(Unknown):
        if config.keycloak is not None and "/realms/" not in config.oidc.issuer:
            yield _fault(
                ("oidc", "issuer"),
                config.oidc.issuer,
                "an address with /realms/NAME where [keycloak] is set, as Keycloak's have",
            )


def _second_factor(config: Config) -> Iterator[Fault]:
    mfa = config.mfa
    if mfa.mode == "keycloak" and not mfa.acr and not mfa.amr:
        yield _fault(("mfa", "acr"), mfa.acr, 'an acr or an amr that proves the second factor; or mode = "off"')


def _step_ups(config: Config) -> Iterator[Fault]:
    if config.mfa.mode == "off":
        for location, pool in _pools(config):
            with suppress(Unknown):
                if pool.step_up:
                    yield _fault((*location, "step_up"), list(pool.step_up), 'nothing: mfa.mode is "off"')


def _api_tokens(config: Config) -> Iterator[Fault]:
    for location, pool in _pools(config):
        with suppress(Unknown):
            if pool.api_tokens and pool.disclose == "all":
                # Whoever answers there is no hub, and would be asked whose a token is.
                yield _fault((*location, "api_tokens"), pool.api_tokens, 'false where disclose is "all": no hubs')


def _mail(config: Config) -> Iterator[Fault]:
    mail = config.mail
    if mail is None:
        return
    with suppress(Unknown):
        if mail.ca and (why := _authority_fault(mail.ca)):
            yield Fault("mail.ca", f"{mail.ca}: {why}", "a PEM file with certificates")
    with suppress(Unknown):
        if bool(mail.user) != (mail.password is not None):
            yield Fault("mail.password" if mail.user else "mail.user", "nothing", "user and password together")
    with suppress(Unknown):
        if mail.password is not None and mail.smtp.startswith("smtp://"):
            yield _fault(
                ("mail", "smtp"), mail.smtp, "smtps:// or smtp+starttls://, so that nobody else gets the password"
            )


def _limits(config: Config) -> Iterator[Fault]:
    longest = config.session.max
    limits: list[tuple[Location, float | None]] = []
    with suppress(Unknown):
        limits.append((("session", "idle"), config.session.idle))
    for location, pool in _pools(config):
        with suppress(Unknown):
            limits.append(((*location, "idle"), pool.idle))
    for location, idle in limits:
        if idle is not None and idle > longest:
            yield Fault(place(location), f"{idle:g} seconds", f"session.max ({longest:g} seconds) at most")


def _identity_header(config: Config) -> Iterator[Fault]:
    # Compared as backends do that fold "-" and "_" (CGI, WSGI): see core.headers.
    folded = config.identity.header.lower().replace("_", "-")
    if folded in _TAKEN_HEADERS or folded.startswith(("x-forwarded-", "sec-", "access-control-")):
        yield _fault(
            ("identity", "header"), config.identity.header, 'a header with no other meaning, such as "REMOTE_USER"'
        )
    elif folded == ASSERTION_HEADER.lower():
        yield _fault(("identity", "header"), config.identity.header, "another header than the assertion's own")


def _usernames(config: Config) -> Iterator[Fault]:
    for claim, name in config.identity.map.items():
        if not re.fullmatch(config.identity.pattern, name.lower() if config.identity.lowercase else name):
            yield _fault(
                ("identity", "map", claim), name, f"a username that matches identity.pattern, {config.identity.pattern}"
            )


def _names(config: Config) -> Iterator[Fault]:
    pools: dict[str, Location] = {}
    hubs: dict[str, Location] = {}
    for location, pool in _pools(config):
        with suppress(Unknown):
            first = pools.setdefault(pool.name, location)
            if first != location:
                yield _fault((*location, "name"), pool.name, f"a name of its own; {place(first)} has this one")
        for where, hub in _hubs(location, pool):
            with suppress(Unknown):
                first = hubs.setdefault(hub.name, where)
                if first != where:
                    yield _fault((*where, "name"), hub.name, f"a name of its own; {place(first)} has this one")


def _pool_places(config: Config) -> Iterator[Fault]:
    portal = urlsplit(config.gateway.public_url).netloc
    taken: list[tuple[Location, str, str]] = []
    for location, pool in _pools(config):
        with suppress(Unknown):
            host, path = config.pool_host(pool) or portal, pool.path
            if path == "/" and host == portal:
                yield _fault(
                    (*location, "path"), path, 'a path such as "/htc/" (the portal itself is at "/"), or a host'
                )
                continue
            if path.startswith(OWN_PREFIX):
                yield _fault((*location, "path"), path, f"a path outside of {OWN_PREFIX}, which is hubgate's own")
            for other, its_host, its_path in taken:
                if host == its_host and (path.startswith(its_path) or its_path.startswith(path)):
                    yield _fault(
                        (*location, "path"), path, f"a path apart from that of {place(other)}, {shown(its_path)}"
                    )
            taken.append((location, host, path))


def _hub_tls(config: Config) -> Iterator[Fault]:
    for location, pool in _pools(config):
        for where, hub in _hubs(location, pool):
            with suppress(Unknown):
                if hub.url.startswith("http:"):
                    for key in ("ca", "certificate", "key"):
                        if getattr(hub, key) is not None:
                            yield _fault((*where, key), getattr(hub, key), "nothing here: this hub's url is http://")
                    continue
            with suppress(Unknown):
                if hub.ca is not None and (why := _authority_fault(hub.ca)):
                    yield Fault(place((*where, "ca")), f"{hub.ca}: {why}", "a PEM file with certificates")
            with suppress(Unknown):
                yield from _pair_faults(where, hub.certificate, hub.key)


def _own_tls(config: Config) -> Iterator[Fault]:
    if config.tls is not None:
        yield from _pair_faults(("tls",), config.tls.certificate, config.tls.key)


def _other_authorities(config: Config) -> Iterator[Fault]:
    with suppress(Unknown):
        if config.oidc.ca and (why := _authority_fault(config.oidc.ca)):
            yield Fault("oidc.ca", f"{config.oidc.ca}: {why}", "a PEM file with certificates")
    with suppress(Unknown):
        if config.store.ca and (why := _authority_fault(config.store.ca)):
            yield Fault("store.ca", f"{config.store.ca}: {why}", "a PEM file with certificates")


def _look(config: Config) -> Iterator[Fault]:
    portal = config.portal
    with suppress(Unknown):
        if portal.logo_dark and not portal.logo:
            yield _fault(("portal", "logo_dark"), portal.logo_dark, "a logo, for light pages, beside it")
    with suppress(Unknown):
        yield from _colour_faults("accent", portal.accent, "light")
    with suppress(Unknown):
        yield from _colour_faults("accent_dark", portal.accent_dark, "dark")


def _colour_faults(key: str, colour: str, scheme: Scheme) -> Iterator[Fault]:
    if not colour or least_contrast(colour, scheme) >= TEXT_CONTRAST:
        return
    ground = min(GROUNDS[scheme], key=lambda each: contrast(colour, each))
    # Rounded down: 4.49 is not 4.5.
    yield Fault(
        place(("portal", key)),
        f'"{colour}", with a contrast of {int(contrast(colour, ground) * 100) / 100} to the {scheme} pages\' {ground}',
        f"a contrast of {TEXT_CONTRAST} or more, else people can't read it (WCAG 2.2, 1.4.3); "
        f'the nearest of this hue is "{readable(colour, scheme)}"',
    )


def _announcements(config: Config) -> Iterator[Fault]:
    for index, announcement in enumerate(config.announcements):
        location: Location = ("announcements", index)
        with suppress(Unknown):
            begins, ends = announcement.from_, announcement.until
            if begins is not None and ends is not None and ends <= begins:
                yield Fault(place((*location, "until")), "a time that is not after from", "a later time than from")
        with suppress(Unknown):
            if announcement.level == "maintenance" and announcement.from_ is None:
                yield _fault((*location, "from"), None, "when the maintenance begins")
        with suppress(Unknown):
            names = [pool.name for pool in config.pools]
            for number, name in enumerate(announcement.pools):
                if name not in names:
                    yield _fault((*location, "pools", number), name, f"the name of a pool: {', '.join(names)}")


_CHECKS: tuple[Check, ...] = (
    _public_url,
    _listeners,
    _secret_keys,
    _workers,
    _own_tls,
    _provider,
    _other_authorities,
    _second_factor,
    _step_ups,
    _api_tokens,
    _mail,
    _limits,
    _identity_header,
    _usernames,
    _names,
    _pool_places,
    _hub_tls,
    _look,
    _announcements,
)


def _pools(config: Config) -> Iterator[tuple[Location, Pool]]:
    for index, pool in enumerate(config.pools):
        yield ("pools", index), pool


def _hubs(location: Location, pool: Pool) -> Iterator[tuple[Location, Hub]]:
    with suppress(Unknown):
        for index, hub in enumerate(pool.hubs):
            yield (*location, "hubs", index), hub


def _authority_fault(path: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        return _reason(error)
    return ""


def _pair_faults(where: Location, certificate: str | None, key: str | None) -> Iterator[Fault]:
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        lacking = "certificate" if certificate is None else "key"
        yield Fault(place((*where, lacking)), "nothing", "certificate and key together")
        return
    try:
        # The password is never asked for: without it OpenSSL would ask on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "-")
    except (ssl.SSLError, OSError) as error:
        yield Fault(
            place((*where, "certificate")),
            f"{certificate} with the key {key}: {_reason(error)}",
            "PEM files of a certificate and of its own private key, without a passphrase",
        )


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return str(reason).lower().replace("_", " ")


# -- cautions


def cautions(config: Config) -> Iterator[str]:
    """What an operator should know about a configuration without faults: one sentence each, with what to do."""
    site = config.site()
    yield from _open_doors(config, site)
    yield from _proxies(config, site)
    if config.store.url.reveal().startswith("memory:"):
        yield "store.url is memory://: sessions end with hubgate, and only one process can serve; a site needs redis://"
        if config.mfa.mode == "gateway":
            yield (
                "enrolled second factors are kept in memory: after a restart whoever knows a password can enrol anew; "
                "a site needs redis:// with appendonly yes and maxmemory-policy noeviction"
            )
    if config.mail is not None and config.mfa.mode != "gateway":
        yield '[mail] is set, but mfa.mode is not "gateway": there is nothing that hubgate would write about'
    for key, url in (("oidc.issuer", config.oidc.issuer), ("oidc.internal_url", config.oidc.internal_url)):
        if url.startswith("http://") and not is_loopback(urlsplit(url).hostname or ""):
            yield f"{key} is http://: the client secret and tokens travel in plain text; use https://"
    for index, announcement in enumerate(config.told()):
        if announcement.phase(time.time()) is Phase.OVER:
            yield f"announcements[{index}] is over: nobody sees it any more, it can be taken out"
    by_url: dict[str, str] = {}
    for pool in site.pools:
        for upstream in pool.upstreams:
            first = by_url.setdefault(upstream.url, upstream.name)
            if first != upstream.name:
                yield f"the hubs {first} and {upstream.name} have the same address {upstream.url}: is one a copy?"


def _open_doors(config: Config, site: Site) -> Iterator[str]:
    if config.mfa.mode == "off":
        yield 'mfa.mode is "off": a password alone is enough; set "keycloak" to demand a second factor'
    if not site.secure:
        yield "gateway.public_url is http://: cookies go without Secure and __Host-; only for trials on this machine"
    for pool in config.pools:
        if pool.disclose == "all":
            yield (
                f'the pool {pool.name} has disclose = "all": every process behind it, notebooks too, learns who its '
                'visitors are and gets their assertions; "hub" is for JupyterHubs'
            )


def _proxies(config: Config, site: Site) -> Iterator[str]:
    if any(network.prefixlen == 0 for network in config.gateway.trusted_proxies):
        yield "gateway.trusted_proxies holds every address: anybody can claim any address; name the proxies alone"
    if site.secure and config.tls is None and not config.gateway.trusted_proxies:
        yield (
            "gateway.public_url is https:// without [tls]: something in front must end TLS; name it in "
            "gateway.trusted_proxies, else it is taken for the client of every request"
        )
    if not site.secure and config.tls is not None:
        yield "[tls] is set, but gateway.public_url is http://: people will type an address that does not answer"
    host = urlsplit(site.public_url).hostname or ""
    if site.secure and is_ip(host) and not is_loopback(host):
        yield f"gateway.public_url names the bare address {host}: certificates and people prefer names"
