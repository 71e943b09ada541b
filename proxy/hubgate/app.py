"""The composition root: the only module that knows all others.

Everything here is put together once per process, in the order in which it depends on each other, and taken apart in
reverse. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from hubgate.audit import Audit
from hubgate.config import Config, Mail, Mfa
from hubgate.core.assertion import Signer
from hubgate.core.cookies import HubCookieTags
from hubgate.core.headers import HeaderRules
from hubgate.core.health import Condition, Health
from hubgate.core.keyring import Keyring
from hubgate.core.plain import PlainRequests
from hubgate.core.routing import Router
from hubgate.core.site import admitted
from hubgate.errors import HubgateFault
from hubgate.idp import keycloak
from hubgate.idp.client import OIDCClient
from hubgate.idp.keycloak import KeycloakAdmin
from hubgate.metrics import Metrics
from hubgate.store import open_store
from hubgate.store.base import Store
from hubgate.upstream.connection import tls_context
from hubgate.upstream.http import ConnectionPool, Timeouts
from hubgate.upstream.hubapi import HubAccess, HubApis
from hubgate.upstream.outbox import Outbox
from hubgate.upstream.prober import Prober
from hubgate.upstream.registry import Registry, UpstreamState
from hubgate.upstream.whose import TokenOwners
from hubgate.web.account import AccountPages
from hubgate.web.affinity import Bindings
from hubgate.web.backchannel import BackchannelLogout
from hubgate.web.clearing import Clearing
from hubgate.web.disclosure import Disclosure
from hubgate.web.endings import Endings
from hubgate.web.entrance import Entrance
from hubgate.web.express import Express
from hubgate.web.gateway import Gateway
from hubgate.web.handover import HandoverPages
from hubgate.web.live import LiveSessions
from hubgate.web.login import Entry, LoginPages
from hubgate.web.logout import LogoutPages
from hubgate.web.popup import PopupPages
from hubgate.web.portal import PortalPages, own_pages
from hubgate.web.presence import SessionPage
from hubgate.web.programs import Programs
from hubgate.web.render import Pages
from hubgate.web.renewals import Renewals
from hubgate.web.sessions import Sessions
from hubgate.web.standings import Standings
from hubgate.web.stepup import Freshness
from hubgate.web.usernames import Usernames
from hubgate.web.visit import AccessLine

if TYPE_CHECKING:
    from hubgate.web.letters import Letters

log = logging.getLogger(__name__)

_TAG_PURPOSE = "hub-cookie"
_ADVICE_PAUSE = 5.0  # seconds until what was away at the start is looked at again


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that is put together. `front` sees every request that `shortcut` leaves, and asks `pages` for what is
    not forwarded."""

    front: Gateway
    shortcut: Express
    pages: web.Application
    live: LiveSessions
    registry: Registry[ConnectionPool]
    provider: OIDCClient

    def ready(self) -> dict[str, str]:
        """What is missing, part by part; empty when this process can take on anybody.

        Hubs don't count: a gateway whose hubs are all down still has to say so to people.
        """
        missing = {}
        if not self.live.subscribed:
            missing["store"] = "no subscription in place: the store is out of reach, or ended sessions go unnoticed"
        if not self.provider.available:
            missing["oidc"] = "the provider's metadata could not be read: nobody can log in"
        return missing

    def count_tunnels(self) -> int:
        """How many sockets and streams are open: their connections are no longer the listener's."""
        return self.live.count_open() + (self.front.programs.count_open() if self.front.programs else 0)

    def obey(self, rules: Mapping[str, tuple[str, ...]]) -> int:
        """Those who have come instead go by other rules, each pool's `groups`: who may use a pool no longer has nothing
        open in it here, either. How many connections that closed. A pool that is gone closes nothing."""
        admits = _admits(rules)
        return self.live.judge_by(admits) + (self.front.programs.judge_by(admits) if self.front.programs else 0)

    def close_tunnels(self) -> None:
        """The end of a graceful stop: sockets and streams have no natural end."""
        self.live.close_open()
        if self.front.programs is not None:
            self.front.programs.close_open()


@asynccontextmanager
async def gateway(
    config: Config,
    *,
    metrics: Metrics,
    audit: Audit,
    access_log: AccessLine | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Served]:
    """Put a gateway together for this event loop, and keep it alive while entered.

    `clock`: seconds since the epoch, for all that people and sessions meet; a test lets a day pass in a minute.

    Neither store, provider nor hubs need to be there yet: each says in its own way that it is missing.
    """
    site = config.site()
    keyring = Keyring(config.keys)
    limits = config.session_limits()
    async with AsyncExitStack() as stack:
        store = open_store(config.store.url.reveal(), ca=str(config.store.ca) if config.store.ca else None)
        stack.push_async_callback(store.close)
        provider = await stack.enter_async_context(OIDCClient(config.oidc, config.mfa))
        admin = KeycloakAdmin(config.oidc, config.keycloak, config.mfa) if config.keycloak else None

        sessions = Sessions(store, keyring, limits, host=site.host, clock=clock)
        live = LiveSessions(
            sessions,
            store,
            limits,
            outage_grace=config.store.outage_grace,
            on_size=metrics.sessions_cached,
            on_presence=metrics.people_seen,
            admits=_admits({pool.name: pool.groups for pool in site.pools}),
            clock=clock,
        )
        told = _condition_logged(metrics)

        def on_condition(state: UpstreamState[ConnectionPool], before: Health) -> None:
            live.clear_nobody()
            told(state, before)

        timeouts = Timeouts(connect=config.limits.connect_timeout, idle=config.limits.idle_timeout)
        registry: Registry[ConnectionPool] = Registry(
            site,
            rise=config.health.rise,
            fall=config.health.fall,
            connections=lambda upstream: ConnectionPool(upstream, limits=timeouts),
            on_change=on_condition,
        )
        for state in registry:
            stack.callback(state.connections.close)
            metrics.upstream_condition(state.upstream.pool, state.upstream.name, up=True)
        await stack.enter_async_context(
            Prober(
                registry,
                interval=config.health.interval,
                timeout=config.health.timeout,
                tls=lambda upstream: registry.state(upstream.name).connections.tls,
            )
        )

        await stack.enter_async_context(live.kept())
        bindings = Bindings(
            store,
            keyring,
            site.pools,
            lifetime=config.affinity.lifetime,
            move_after=config.health.move_after,
            candidates=registry.candidates,
        )
        standings = programs = None
        if any(pool.api_tokens for pool in site.pools):
            standings = Standings(store, keyring, age=config.mfa.api_tokens_for, clock=clock)
            owners = TokenOwners(lambda upstream: registry.state(upstream.name).connections.tls)
            programs = Programs(
                ask=(await stack.enter_async_context(owners)).ask,
                candidates=registry.candidates,
                usernames=Usernames(store, keyring),
                standings=standings,
                store=store,
                keyring=keyring,
                audit=audit,
                metrics=metrics,
                grace=config.store.outage_grace,
                lets_in=admin.lets_in if admin else None,
                clock=clock,
            )
            await stack.enter_async_context(programs.kept())
        signer = Signer(keyring.signing_seeds(), site.public_url)
        pages = Pages(
            site,
            config.portal,
            override=Path(config.gateway.templates) if config.gateway.templates else None,
            form_origins=[_origin(config.oidc.issuer)],
            own_factor=config.mfa.mode == "gateway",
            account_url=keycloak.account_url(config.oidc.issuer),
            stop_servers=config.session.stop_servers,
            announcements=config.told(),
            site_in=config.site,
            clock=clock,
        )
        hubs = await stack.enter_async_context(hub_apis(config))
        endings = await stack.enter_async_context(
            Endings(
                sessions,
                live=live,
                bindings=bindings,
                provider=provider,
                hubs=hubs,
                stop_servers=config.session.stop_servers,
            )
        )
        entry = Entry(config.usernames(), config.oidc.groups_claim, config.admission())
        renewals = await stack.enter_async_context(
            Renewals(
                sessions=sessions,
                store=store,
                provider=provider,
                endings=endings,
                judge=entry.judge,
                audit=audit,
                standings=standings,
                clock=clock,
            )
        )
        live.on_due = renewals.begin
        entrance = Entrance(
            site, sessions=sessions, live=live, endings=endings, standings=standings, audit=audit, metrics=metrics
        )
        freshness = Freshness(config.mfa.acr, clock=clock)
        mfa = None
        if config.mfa.mode == "gateway":
            from hubgate.web.mfa import MfaPages, Terms  # noqa: PLC0415 - most sites leave it to the provider

            letters = await stack.enter_async_context(_letters(config, config.mail, metrics)) if config.mail else None
            mfa = MfaPages(
                site,
                Terms(
                    label=config.mfa.issuer_label or config.portal.title,
                    acr=config.mfa.acr,
                    ticket=config.mfa.enrolment == "ticket",
                ),
                store=store,
                keyring=keyring,
                entrance=entrance,
                pages=pages,
                audit=audit,
                letters=letters,
            )
        own = own_pages(
            site,
            portal=PortalPages(site, registry=registry, bindings=bindings, signer=signer, pages=pages, audit=audit),
            login=LoginPages(
                site,
                provider=provider,
                admin=admin,
                entry=entry,
                store=store,
                keyring=keyring,
                entrance=entrance,
                second_step=mfa,
                freshness=freshness,
                pages=pages,
                audit=audit,
                metrics=metrics,
                clock=clock,
            ),
            logout=LogoutPages(
                site,
                provider=provider,
                sessions=sessions,
                endings=endings,
                bindings=bindings,
                store=store,
                keyring=keyring,
                pages=pages,
                audit=audit,
            ),
            backchannel=BackchannelLogout(
                provider=provider,
                sessions=sessions,
                live=live,
                endings=endings,
                renewals=renewals,
                standings=standings,
                store=store,
                headers=pages.base_headers,
                audit=audit,
            ),
            handover=HandoverPages(
                site, sessions=sessions, freshness=freshness, store=store, keyring=keyring, pages=pages
            ),
            account=AccountPages(
                site,
                sessions=sessions,
                endings=endings,
                factor=mfa.state if mfa else None,
                standings=standings,
                hubs=hubs,
                pages=pages,
                audit=audit,
                limits=limits,
                clock=clock,
            ),
            popup=PopupPages(site, pages=pages),
            state=SessionPage(site, limits, pages=pages, clock=clock),
            mfa=mfa,
            pages=pages,
        )
        rules = HeaderRules(identity_header=config.identity.header)
        front = Gateway(
            site=site,
            router=Router(site),
            limits=limits,
            trusted=config.gateway.trusted_proxies,
            rules=rules,
            clearing=Clearing(
                site,
                rules,
                HubCookieTags(
                    lambda message: keyring.mac(_TAG_PURPOSE, message),
                    lambda message, tag: keyring.mac_matches(_TAG_PURPOSE, message, tag),
                ),
                Disclosure(signer, header=config.identity.header, profile=config.identity.profile, clock=clock),
                registry,
                live,
                metrics,
                cookie_max_age=bindings.cookie_max_age,
            ),
            live=live,
            bindings=bindings,
            registry=registry,
            pages=pages,
            audit=audit,
            metrics=metrics,
            access=access_log,
            programs=programs,
            clock=clock,
        )
        advice = asyncio.create_task(_advise(store, admin, config.mfa), name="advice at start")
        stack.callback(advice.cancel)
        shortcut = Express(
            requests=PlainRequests(rules, secure=site.secure, behind_proxies=bool(config.gateway.trusted_proxies)),
            router=front.router,
            live=live,
            trusted=front.trusted,
            access=access_log,
            outbox=Outbox(asyncio.get_running_loop()),
            clock=clock,
        )
        yield Served(front, shortcut, own, live, registry, provider)


@asynccontextmanager
async def _letters(config: Config, mail: Mail, metrics: Metrics) -> AsyncIterator[Letters]:
    from hubgate.mail import Post  # noqa: PLC0415 - its library takes a tenth of a second
    from hubgate.web.letters import letters_of, mail_server  # noqa: PLC0415

    async with Post(mail_server(mail), on_end=metrics.letter).kept() as post:
        yield letters_of(config, post.send)


def _admits(rules: Mapping[str, tuple[str, ...]]) -> Callable[[str, tuple[str, ...]], bool]:
    return lambda pool, groups: admitted(rules.get(pool, ()), groups)


def hub_apis(config: Config) -> HubApis:
    """The hubs' administration, as far as we were given a token for it."""
    tokens = {hub.name: hub.api_token for pool in config.pools for hub in pool.hubs}
    return HubApis(
        HubAccess(
            upstream.name,
            upstream.url,
            pool.path,
            token,
            tls_context(upstream) if upstream.url.startswith("https:") else None,
        )
        for pool in config.site().pools
        for upstream in pool.upstreams
        if (token := tokens[upstream.name]) is not None
    )


async def _advise(store: Store, admin: KeycloakAdmin | None, mfa: Mfa) -> None:
    """Say once what an operator should change about the things around us, as soon as they are there to be looked at."""
    looks = [_advised("store_advice", partial(store.warnings, enrolments=mfa.mode == "gateway"))]
    if admin is not None:
        looks.append(_advised("keycloak_advice", admin.realm_warnings))
    await asyncio.gather(*looks)


async def _advised(event: str, look: Callable[[], Awaitable[list[str]]]) -> None:
    told = False
    while True:
        try:
            for sentence in await look():
                log.warning(event, extra={"advice": sentence})
        except HubgateFault as fault:
            if not told:
                log.warning("advice_unavailable", extra={"of": event, "fault": str(fault)})
            told = True
            if fault.status != 503:
                return  # it was there, and refused
        else:
            return
        await asyncio.sleep(_ADVICE_PAUSE)


def _condition_logged(metrics: Metrics) -> Callable[[UpstreamState[ConnectionPool], Health], None]:
    def changed(state: UpstreamState[ConnectionPool], before: Health) -> None:
        up = state.health.condition is Condition.UP
        metrics.upstream_condition(state.upstream.pool, state.upstream.name, up=up)
        log.log(
            logging.INFO if up else logging.WARNING,
            "upstream_condition",
            extra={
                "upstream": state.upstream.name,
                "condition": state.health.condition.value,
                "before": before.condition.value,
                "reason": state.reason,
            },
        )

    return changed


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
