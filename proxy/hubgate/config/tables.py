"""Which keys does a configuration have, what do they mean, and what holds when they are left out?

One class per table of the TOML file, attributes named like the keys, all of them frozen. The description of a key is
the one that operators read: `config.example.toml` and docs/configuration.md are made from this module. What values mean
for each other is `checks`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictBool

from hubgate.config.secret import Secret
from hubgate.config.values import (
    Cidr,
    Domain,
    Duration,
    DurationOrZero,
    ExistingFile,
    Host,
    HubUrl,
    Language,
    Link,
    Listen,
    LocalProse,
    LocalText,
    LocalWords,
    Mailbox,
    MailUrl,
    Moment,
    Name,
    OptionalColour,
    OptionalDirectory,
    OptionalFile,
    OptionalListen,
    OptionalPicture,
    OptionalUrl,
    Origin,
    Pattern,
    Place,
    PoolPath,
    SigningKey,
    Sink,
    StoreUrl,
    Text,
    Token,
    Url,
    Word,
    authority,
)
from hubgate.core.announcement import Announcement as SiteAnnouncement
from hubgate.core.announcement import Level
from hubgate.core.freshness import Demand
from hubgate.core.identity import DEFAULT_PATTERN, Admission, UsernamePolicy
from hubgate.core.language import in_language
from hubgate.core.session import Limits as SessionLimits
from hubgate.core.site import Disclose, Site
from hubgate.core.site import Pool as SitePool
from hubgate.core.site import Upstream as SiteUpstream


class Unknown(AttributeError):
    """A value that could not be read was asked for; it has a fault of its own."""


class Table(BaseModel):
    """A table of the file. Reading an attribute raises Unknown where the file's value was faulty (see `reading`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise Unknown(name)
            return super().__getattr__(name)


def _key(meaning: str, default: Any = ..., *, example: Any = None, **bounds: Any) -> Any:
    """A key: what it means, its default as it would be written in the file (none: it must be given), an example."""
    return Field(default, description=meaning, examples=None if example is None else [example], **bounds)


def _secret_ref(name: str) -> dict[str, str]:
    return {"env": name}


Count = Annotated[int, Field(strict=True, ge=1, le=1000)]


class Gateway(Table):
    """Where hubgate is reached, and what it signs with."""

    public_url: Origin = _key(
        "what people type; pools hang below it; `http://` is for loopback only", example="https://jupyter.example.org"
    )
    listen: tuple[Listen, ...] = _key("addresses and ports to listen on", ["0.0.0.0:8443"], min_length=1)
    workers: Annotated[int, Field(strict=True, ge=1, le=256)] = _key("processes that serve; about one per core", 1)
    trusted_proxies: tuple[Cidr, ...] = _key("address ranges whose X-Forwarded-For is believed", [])
    secret_keys: tuple[SigningKey, ...] = _key(
        "oldest to newest, each of 32 characters or more (`hubgate new-secret`); the last one signs and seals",
        example=[{"file": "/run/secrets/hubgate-key"}],
        min_length=1,
    )
    admin_groups: tuple[Word, ...] = _key(
        "for a later version: whose members administer the gateway", [], example=["portal-admins"]
    )
    ops_listen: OptionalListen = _key(
        'where /healthz, /readyz and /metrics are served, never on the public port; "": nowhere', "127.0.0.1:9090"
    )
    templates: OptionalDirectory = _key('directory with the site\'s own templates and static files; "": ours alone', "")


class Tls(Table):
    """Serve https. Leave the table out where something in front of hubgate ends TLS."""

    certificate: ExistingFile = _key("PEM file: certificate, then its intermediates", example="/etc/hubgate/tls.pem")
    key: ExistingFile = _key("PEM file: private key, without a passphrase", example="/etc/hubgate/tls-key.pem")


class Store(Table):
    """Where sessions, logins in progress and bindings are kept."""

    url: StoreUrl = _key(
        "a secret, as it may hold a password; redis://, rediss://, redis+sentinel://…/service/db, memory://",
        "redis://127.0.0.1:6379/0",
    )
    ca: OptionalFile = _key('PEM file with the authority of a rediss:// server; "": the system\'s', "")
    outage_grace: DurationOrZero = _key("how long known sessions go on while the store can't be reached", "2m")


class Oidc(Table):
    """The identity provider: a realm of Keycloak, or another OpenID Connect provider."""

    issuer: Url = _key("exactly as the provider writes it", example="https://id.example.org/realms/site")
    client_id: Word = _key("our name at the provider", example="hubgate")
    client_secret: Secret = _key("our secret at the provider", example=_secret_ref("HUBGATE_CLIENT_SECRET"))
    token_endpoint_auth_method: Literal["client_secret_basic", "client_secret_post"] = _key(
        "how the secret is sent: client_secret_basic or client_secret_post", "client_secret_basic"
    )
    scopes: tuple[Word, ...] = _key("what is asked for", ["openid", "profile", "email"])
    username_claim: Word = _key("claim that becomes the username, see [identity]", "preferred_username")
    groups_claim: Word = _key("claim with the groups", "groups")
    internal_url: OptionalUrl = _key(
        'where hubgate itself reaches the issuer, if not at its public address; "": there', ""
    )
    ca: OptionalFile = _key("PEM file with the authority of the issuer's certificate; \"\": the system's", "")
    idp_hint: Text = _key('identity provider that Keycloak should go on to (kc_idp_hint); "": none', "")
    prompt: Text = _key('prompt sent with a login: "login", "consent", "select_account"; "": none', "")
    allow_groups: tuple[Word, ...] = _key("who may log in: members of one of these groups; empty: everyone", [])
    allow_email_domains: tuple[Domain, ...] = _key(
        "and with a verified address in one of these domains; empty: any", []
    )
    allow_idps: tuple[Word, ...] = _key("and who came from one of these identity providers; empty: any", [])
    idp_claim: Word = _key("claim that names the identity provider somebody came from", "identity_provider")
    clock_skew: DurationOrZero = _key("how far the provider's clock may be off", "30s")


class Keycloak(Table):
    """Optional: a service account for Keycloak's admin API (view-users, manage-users, view-realm, view-clients)."""

    client_id: Word = _key("the client with the service account", example="hubgate")
    client_secret: Secret = _key("its secret", example=_secret_ref("HUBGATE_CLIENT_SECRET"))


class Mfa(Table):
    """The second factor."""

    mode: Literal["keycloak", "gateway", "off"] = _key(
        '"keycloak": asked for and checked in the ID token; "gateway": one-time codes of hubgate\'s own after the '
        'provider\'s login; "off": none, said loudly at start',
        "keycloak",
    )
    acr: Text = _key(
        'the acr that is asked for and must come back, "": not demanded; in mode "gateway" what assertions then say',
        "mfa",
    )
    amr: tuple[Word, ...] = _key("at least one of these must be in the ID token's amr; empty: not demanded", [])
    issuer_label: Text = _key(
        'mode "gateway": what an authenticator app shows; "": portal.title', "", example="Example Lab"
    )
    enrolment: Literal["open", "ticket"] = _key(
        'mode "gateway": who may enrol at the first login; "open": whoever has the password, "ticket": and a ticket '
        "from `hubgate users enrolment-ticket NAME`",
        "open",
    )
    api_tokens_for: Annotated[Duration, Field(ge=60)] = _key(
        "how long after their last second factor somebody's API tokens are good, where pools take them (api_tokens)",
        "36h",
    )


class Mail(Table):
    """Tell people by mail when their second factor changes (mfa.mode "gateway")."""

    smtp: MailUrl = _key(
        "the mail server: smtps:// or smtp+starttls:// (encrypted, the certificate is checked), or smtp:// (encrypted "
        "where the server offers it, not checked); without a port 465, 587, 25",
        example="smtp+starttls://mail.example.org",
    )
    sender: Mailbox = _key("who the letters are from", example="Example Lab <jupyter@example.org>")
    user: Text = _key('our name at the server; "": it asks for none', "", example="hubgate")
    password: Secret | None = _key("our password there", None, example=_secret_ref("HUBGATE_MAIL_PASSWORD"))
    ca: OptionalFile = _key("PEM file with the authority of the server's certificate; \"\": the system's", "")


class Session(Table):
    """How long a login lives."""

    idle: Duration = _key("without a sign of a person", "30m")
    max: Duration = _key("since the login, whatever happens", "12h")
    stop_servers: StrictBool = _key(
        "when somebody's last session is ended (Log Out, an administrator), stop their servers; needs api_token",
        False,
    )


class Identity(Table):
    """Who somebody is for the hubs."""

    header: Token = _key("header that tells hubs the username", "REMOTE_USER")
    lowercase: StrictBool = _key("usernames are turned into lower case", True)
    strip_domains: tuple[Domain, ...] = _key("of name@domain, these domains are cut off", [])
    map: dict[Word, Word] = _key("usernames of people whose claim doesn't fit: claim = username", {})
    pattern: Pattern = _key("what a username must match as a whole; others are refused", DEFAULT_PATTERN)
    profile: StrictBool = _key("name and e-mail address go into the assertion, too", False)


class Health(Table):
    """How hubs are watched."""

    interval: Duration = _key("between two probes of a hub that is well; else every second", "5s")
    timeout: Duration = _key("for the answer to a probe", "3s")
    rise: Count = _key("good probes in a row until a hub is up again", 2)
    fall: Count = _key("bad ones until it is down", 3)
    move_after: DurationOrZero = _key("how long a hub must be down before its users may choose to move", "2m")


class Affinity(Table):
    """How users stay with their hub."""

    lifetime: Duration = _key("how long a binding of a user to a hub is kept without use", "7d")


class Limits(Table):
    """Patience."""

    header_timeout: Duration = _key("for a client to send the head of a request", "10s")
    connect_timeout: Duration = _key("for a connection to a hub", "5s")
    idle_timeout: DurationOrZero = _key('for a hub to send something while a request waits; "0s": no limit', "0s")
    stop_notice: DurationOrZero = _key(
        'for which /readyz says no and all else goes on, before the end: two checks of the balancer; "0s": not at all',
        "0s",
    )
    stop_grace: DurationOrZero = _key("for requests in flight when hubgate is stopped; then they are cut", "20s")


class Log(Table):
    """What is written down. Logs go to standard error, access and audit lines to standard output."""

    level: Literal["debug", "info", "warning", "error"] = _key("debug, info, warning or error", "info")
    access: StrictBool = _key("one line for each request", True)
    audit: Sink = _key('where security events go: "-" for standard output, or a file to append to', "-")


class Portal(Table):
    """How the pages look, and what they say about the site. docs/pages.md shows it."""

    title: Text = _key("the site's name", "Jupyter")
    welcome: LocalText = _key(
        'a line below the landing page\'s heading, or { en = "…", de = "…" }; "": hubgate\'s own', ""
    )
    help_url: Link = _key('where people find help, also mailto:; "": no link', "")
    help_text: LocalProse = _key("what to do when something doesn't work, or one text for each language", "")
    privacy_url: Link = _key('link in the footer; "": none', "")
    imprint_url: Link = _key('link in the footer; "": none', "")
    accessibility_url: Link = _key('link in the footer to the accessibility statement; "": none', "")
    logo: OptionalPicture = _key('picture instead of hubgate\'s mark: .svg, .png, .webp or .jpg; "": the mark', "")
    logo_dark: OptionalPicture = _key('the same for dark pages; "": the same picture', "")
    accent: OptionalColour = _key('colour of links and buttons, as "#0b6374"; "": hubgate\'s own', "")
    accent_dark: OptionalColour = _key('the same on dark pages; "": as light a shade of accent as they need', "")
    languages: tuple[Language, ...] = _key(
        "languages that pages speak, the site's own first; empty: all that there are, English first", []
    )


class Announcement(Table):
    """Something to tell people on the landing page, and while they wait for one of its pools."""

    text: LocalWords = _key(
        "what is said, or one text for each language",
        example={"en": "Storage is slower than usual today.", "de": "Heute ist der Speicher langsamer als sonst."},
    )
    level: Literal["info", "warning", "maintenance"] = _key(
        'how it is shown; "maintenance": planned work that lasts from `from` until `until`, told before', "info"
    )
    from_: Moment | None = _key(
        "not before; for a maintenance, when it begins",
        None,
        alias="from",
        example=datetime.fromisoformat("2026-11-24T08:00:00+01:00"),
    )
    until: Moment | None = _key(
        "not after; none: until it is taken out here",
        None,
        example=datetime.fromisoformat("2026-11-24T10:00:00+01:00"),
    )
    notice: DurationOrZero = _key("how long before it begins a maintenance is told", "7d")
    pools: tuple[Name, ...] = _key("names of the pools that it is about; empty: the site", [], example=["htc"])


class Hub(Table):
    """One JupyterHub: the address of its proxy."""

    name: Name = _key("unique over all pools; also the audience of its assertions", example="htc01")
    url: HubUrl = _key("its proxy's address without a path", example="http://10.0.0.11:8000")
    weight: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] = _key(
        "share of the pool's users", 1.0
    )
    ca: ExistingFile | None = _key("https: PEM file with the authority of its certificate", None, example="hub-ca.pem")
    certificate: ExistingFile | None = _key("mutual TLS: PEM file with our certificate", None, example="hub-client.pem")
    key: ExistingFile | None = _key("mutual TLS: PEM file with its key", None, example="hub-client-key.pem")
    api_token: Secret | None = _key(
        "a service's token at the hub (scopes tokens, read:servers, delete:servers), to end there what ends here",
        None,
        example=_secret_ref("HTC01_TOKEN"),
    )


class Pool(Table):
    """Hubs that are alike. Any of them serves any user."""

    name: Name = _key("short and unique", example="htc")
    title: LocalText = _key(
        'what the landing page calls it, or { en = "…", de = "…" }', "", example="High-throughput computing"
    )
    description: LocalText = _key("one sentence below the title", "", example="Batch farm, HTCondor")
    path: PoolPath = _key('the hubs\' base_url; "/" for a pool with a host of its own', "/", example="/htc/")
    host: Host | None = _key("host of its own", None, example="htc.example.org")
    section: LocalText = _key("heading on the landing page", "", example="HTC")
    groups: tuple[Word, ...] = _key("who may use it; empty: everyone who logged in", [])
    idle: Duration | None = _key(
        "session.idle of whoever has been here; of several pools' limits, the shortest holds", None, example="10m"
    )
    disclose: Literal["hub", "login", "all"] = _key(
        'which paths learn who the user is: "hub", "login", or "all" for backends that are no hubs (said loudly)', "hub"
    )
    step_up: tuple[Place, ...] = _key(
        'where a second factor must have been shown lately: "start" (servers), "admin", "tokens", "share", "all", or '
        'paths below the pool\'s, as "user/*/lab" (with all below; "*" is one segment, "$" at the end: nothing below)',
        [],
    )
    step_up_max_age: Annotated[Duration, Field(ge=60)] = _key("how lately, a minute or more", "15m")
    api_tokens: StrictBool = _key(
        "programs get to hub/api and user/*/api with the hubs' own API tokens (Authorization: token …), while their "
        "owner's second factor is younger than mfa.api_tokens_for",
        False,
    )
    help: LocalText = _key(
        "what somebody without access can do", "", example="Ask your group leader for an allocation."
    )
    hubs: tuple[Hub, ...] = Field(min_length=1, description="its hubs")


class Config(Table):
    """A configuration without a fault. `cautions`: what is legal, but must be said at every start."""

    gateway: Gateway
    tls: Tls | None = None
    store: Store = Field(default_factory=Store)
    oidc: Oidc
    keycloak: Keycloak | None = None
    mfa: Mfa = Field(default_factory=Mfa)
    mail: Mail | None = None
    session: Session = Field(default_factory=Session)
    identity: Identity = Field(default_factory=Identity)
    health: Health = Field(default_factory=Health)
    affinity: Affinity = Field(default_factory=Affinity)
    limits: Limits = Field(default_factory=Limits)
    log: Log = Field(default_factory=Log)
    portal: Portal = Field(default_factory=Portal)
    announcements: tuple[Announcement, ...] = ()
    pools: tuple[Pool, ...] = Field(min_length=1)

    _cautions: tuple[str, ...] = PrivateAttr(default=())

    @property
    def cautions(self) -> tuple[str, ...]:
        """One sentence each, for check-config and the log."""
        return self._cautions

    @property
    def keys(self) -> tuple[bytes, ...]:
        """`gateway.secret_keys` as the keyring takes them, oldest to newest."""
        return tuple(secret.reveal().encode() for secret in self.gateway.secret_keys)

    def site(self, language: str = "") -> Site:
        """The site as core knows it, with its texts in a language, by default in the one that it wrote first."""
        return Site(
            public_url=self.gateway.public_url,
            pools=tuple(self._pool(pool, language) for pool in self.pools),
            admin_groups=self.gateway.admin_groups,
        )

    def session_limits(self) -> SessionLimits:
        """How long sessions live, as core knows it."""
        idle_by_hub = {hub.name: pool.idle for pool in self.pools if pool.idle is not None for hub in pool.hubs}
        return SessionLimits(idle=self.session.idle, max=self.session.max, idle_by_hub=idle_by_hub)

    def told(self) -> tuple[SiteAnnouncement, ...]:
        """The announcements as core knows them."""
        return tuple(
            SiteAnnouncement(each.text, Level(each.level), each.from_, each.until, each.pools, each.notice)
            for each in self.announcements
        )

    def usernames(self) -> UsernamePolicy:
        """How a claim becomes a username."""
        return UsernamePolicy(
            claim=self.oidc.username_claim,
            lowercase=self.identity.lowercase,
            strip_domains=self.identity.strip_domains,
            mapping=self.identity.map,
            pattern=self.identity.pattern,
        )

    def admission(self) -> Admission:
        """Who may log in at all."""
        return Admission(
            groups=self.oidc.allow_groups,
            email_domains=self.oidc.allow_email_domains,
            idps=self.oidc.allow_idps,
            idp_claim=self.oidc.idp_claim,
        )

    def pool_host(self, pool: Pool) -> str | None:
        """The host of a pool as browsers send it, None for the portal's. It shares the port of `public_url` unless it
        names one: both come in through the same listeners.
        """
        if pool.host is None:
            return None
        portal = urlsplit(self.gateway.public_url)
        named = urlsplit(f"//{pool.host}")
        host = authority(
            named.hostname or "",
            portal.port if named.port is None else named.port,
            secure=portal.scheme == "https",
        )
        return None if host == portal.netloc else host

    def _pool(self, pool: Pool, language: str) -> SitePool:
        return SitePool(
            name=pool.name,
            path=pool.path,
            upstreams=tuple(
                SiteUpstream(hub.name, hub.url, pool.name, hub.weight, hub.ca, hub.certificate, hub.key)
                for hub in pool.hubs
            ),
            title=in_language(pool.title, language) or pool.name,
            description=in_language(pool.description, language),
            section=in_language(pool.section, language),
            help=in_language(pool.help, language),
            host=self.pool_host(pool),
            groups=pool.groups,
            disclose=Disclose(pool.disclose),
            step_up=Demand(pool.step_up, pool.step_up_max_age, self.mfa.acr) if pool.step_up else None,
            api_tokens=pool.api_tokens,
        )
