"""Every page with sample facts, in every language, to look at (`make gallery`).

    python -m tests.gallery                    serves them on a port of the system's choice and prints the address
    python -m tests.gallery --shots DIRECTORY  pictures of all of them, by Chromium, in light and dark and four widths

The same samples feed the tests of the pages, so a page that is missing here is missing there; tests/web/test_gallery.py
demands that every template, every problem and every language is here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from aiohttp import web

from hubgate.config import Portal
from hubgate.core import totp
from hubgate.core.announcement import Announcement, Level
from hubgate.core.identity import Identity, Proof
from hubgate.core.session import Session
from hubgate.core.site import Pool, Site, Upstream
from hubgate.web.account import Helper, Helpers, Seat, Told
from hubgate.web.mfa_views import AskCode, AskTicket, Codes, Enrol, FactorState, Manage, Slug, Trouble, View
from hubgate.web.paths import STATIC_PATH
from hubgate.web.presence import Remaining
from hubgate.web.problems import PROBLEMS
from hubgate.web.qr import qr_code
from hubgate.web.render import Pages, PoolState
from hubgate.web.templates import packaged_templates

NOW = 1_790_000_000.0
PROVIDER = "https://id.example.org/realms/site"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = (320, 390, 768, 1280)

LONG = "Wolfeschlegelsteinhausenbergerdorff-Featherstonehaugh-Cholmondeley-Marjoribanks von und zu Hohenzollern"
RIGHT_TO_LEFT = "مريم الأسطرلابية (HTC) \u202e!dlrow"
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{7*7}}{0.__class__}</style></title>&amp;"""


def pool(name: str, title: str, description: str, section: str, *, groups: tuple[str, ...] = (), ask: str = "") -> Pool:
    """A pool below the portal's own address, with two hubs."""
    hubs = tuple(Upstream(f"{name}{number:02}", f"http://127.0.0.1:1/{name}", name) for number in (1, 2))
    return Pool(name, f"/{name}/", hubs, title, description, section, ask, groups=groups)


HTC = pool("htc", "High-throughput computing", "Batch farm, HTCondor. Many independent jobs at once.", "HTC")
HPC = pool("hpc", "High-performance computing", "Slurm cluster with GPUs and a fast interconnect.", "HPC")
CLOSED = pool(
    "ai",
    "AI testbed",
    "Accelerators for trials.",
    "HPC",
    groups=("ai-testbed", "ai-admins"),
    ask="Ask for access at https://help.example.org/ai, it takes a day.",
)
CLOSED_PLAIN = pool("fab", "Fabrication", "", "Other", groups=("fab",))
TWELVE = tuple(
    pool(f"p{number:02}", title, description, section, groups=groups)
    for number, (title, description, section, groups) in enumerate(
        [
            ("Batch farm", "HTCondor, 40 000 cores. Many independent jobs.", "HTC", ()),
            ("Batch farm, long jobs", "The same farm, for jobs of up to two weeks.", "HTC", ()),
            ("Open science pool", "Shared with other labs; short jobs are best.", "HTC", ()),
            ("Data carousel", "Next to the tape library.", "HTC", ()),
            ("Cluster A", "Slurm, CPU nodes.", "HPC", ()),
            ("Cluster A, GPUs", "Slurm, four GPUs per node.", "HPC", ()),
            ("Cluster B", "Large memory, up to 6 TB.", "HPC", ()),
            ("Visualisation", "Desktops and remote rendering, in the browser.", "HPC", ()),
            ("Interactive queue", "Starts within a minute, ends after four hours.", "HPC", ()),
            ("Teaching", "For courses and schools. Emptied every summer.", "Courses and trials", ()),
            ("Testbed", "Tomorrow's software; may break any day.", "Courses and trials", ()),
            ("Quantum simulator", "", "Courses and trials", ()),
        ]
    )
)


def session(name: str = "Ada Lovelace", username: str = "ada", *, amr: tuple[str, ...] = ("pwd", "otp")) -> Session:
    """Somebody who logged in two hours ago."""
    return Session(
        handle="5f2c9a",
        identity=Identity(PROVIDER, "sub-1", username, name, "ada@example.org", ("users",)),
        proof=Proof("mfa", amr, int(NOW) - 7800),
        created=NOW - 7800,
        last_seen=NOW - 10,
        csrf="csrf-token-of-this-session",
    )


LANGUAGES = ("en", "de", "fr")
ASK = {
    "en": "Questions? Write to jupyter-help@example.org.",
    "de": "Fragen? Schreiben Sie an jupyter-help@example.org.",
    "fr": "Des questions ? Écrivez à jupyter-help@example.org.",
}


def portal_of(title: str = "Example Lab Jupyter", text: str | Mapping[str, str] = ASK["en"], **more: object) -> Portal:
    """`[portal]`, unchecked: our pages must hold whatever is in it."""
    link = "https://help.example.org/jupyter"
    return Portal.model_construct(title=title, help_url=link, help_text=text, **more)


BRANDED = portal_of(
    "Observatory of the North",
    ASK,
    welcome={
        "en": "Notebooks beside the telescope's data.",
        "de": "Notebooks neben den Daten des Teleskops.",
        "fr": "Des notebooks à côté des données du télescope.",
    },
    logo=str(packaged_templates() / "static" / "favicon.svg"),
    accent="#7a1f5c",
    privacy_url="https://example.org/privacy",
    imprint_url="https://example.org/imprint",
    accessibility_url="https://example.org/accessibility",
)
ANNOUNCEMENTS = (
    Announcement(
        {
            "en": "Home directories are slower than usual. See https://status.example.org.",
            "de": "Die Home-Verzeichnisse sind langsamer als sonst. Näheres: https://status.example.org.",
            "fr": "Les répertoires personnels sont plus lents que d’habitude. Voir https://status.example.org.",
        },
        Level.WARNING,
    ),
    Announcement("New kernels: Python 3.14, R 4.5.\nOld ones stay until the end of the year."),
    Announcement("New racks.", Level.MAINTENANCE, NOW + 86400 * 4, NOW + 86400 * 4 + 7200, ("htc",), 86400 * 7),
    Announcement("New firmware in the fabric.", Level.MAINTENANCE, NOW - 3600, NOW + 86400 * 2, ("hpc",)),
)


def pages_for(
    *pools: Pool,
    portal: Portal | None = None,
    public_url: str = "https://jupyter.example.org",
    override: Path | None = None,
    form_origins: Sequence[str] = (PROVIDER,),
    own_factor: bool = False,
    account_url: str = "",
    stop_servers: bool = False,
    announcements: Sequence[Announcement] = (),
    language: str = "",
) -> Pages:
    """Pages of a site with these pools, on a stopped clock; `language`: in this one, by default the site's."""
    return Pages(
        Site(public_url, pools),
        portal or portal_of(),
        override=override,
        form_origins=form_origins,
        own_factor=own_factor,
        account_url=account_url,
        stop_servers=stop_servers,
        announcements=announcements,
        clock=lambda: NOW,
    ).to(language)


def all_up(_: Pool) -> PoolState:
    return "up"


def mixed(asked: Pool) -> PoolState:
    """Some of everything."""
    states: tuple[PoolState, ...] = ("up", "up", "degraded", "up", "down")
    return states[sum(asked.name.encode()) % len(states)]


def enrolling(who: Session, reason: Literal["first", "recovered", "change"], trouble: Trouble | None = None) -> Enrol:
    """The page that a phone is set up with; the key is everybody's."""
    uri = totp.provisioning_uri(KEY, account=who.identity.username, issuer="Example Lab")
    return Enrol(
        csrf=who.csrf,
        who=who.identity,
        session=who if reason == "change" else None,
        trouble=trouble,
        reason=reason,
        qr=qr_code(uri),
        key=totp.in_fours(KEY),
        uri=uri,
        label="Example Lab",
    )


def seats_of(who: Session) -> tuple[Seat, ...]:
    """Where somebody is logged in: here, at home, and with something that nobody knows."""
    here = Seat(who.handle, "Firefox", "Linux", NOW - 7800, NOW, (HTC, HPC), here=True)
    phone = Seat("b7", "Safari", "iPhone", NOW - 90_000, NOW - 4000, (HTC,), here=False)
    return here, phone, Seat("c3", "", "", NOW - 300, NOW - 300, (), here=False)


def mfa_views_of(who: Session) -> dict[str, View]:
    """Every page of the second factor, in every mood."""
    csrf, ada = who.csrf, who.identity
    codes = tuple(totp.recovery_code(bytes([number] * 7 + [97])) for number in range(10, 20))
    slugs: tuple[Slug, ...] = get_args(Slug)
    troubles = {slug.replace("_", "-"): Trouble(slug, 150.0) for slug in slugs}
    return {
        "code": AskCode(csrf=csrf, who=ada),
        **{f"code-{name}": AskCode(csrf=csrf, who=ada, trouble=trouble) for name, trouble in troubles.items()},
        "again": AskCode(csrf=csrf, who=ada, session=who, onward="/htc/hub/admin"),
        "ticket": AskTicket(csrf=csrf, who=ada),
        "ticket-wrong": AskTicket(csrf=csrf, who=ada, trouble=Trouble("wrong_ticket")),
        "enrol": enrolling(who, "first"),
        "enrol-clock": enrolling(who, "first", Trouble("clock_ahead", 120)),
        "enrol-recovered": enrolling(who, "recovered"),
        "enrol-change": enrolling(who, "change"),
        "codes": Codes(csrf=csrf, who=ada, codes=codes, onward="/htc/", enrolled=True, text="\n".join(codes)),
        "codes-new": Codes(
            csrf=csrf, who=ada, session=who, codes=codes, onward="/_hubgate/mfa", enrolled=False, text="\n".join(codes)
        ),
        "manage": Manage(csrf=csrf, who=ada, session=who, since=NOW - 86400 * 40, left=10),
        "manage-wrong": Manage(csrf=csrf, who=ada, session=who, since=NOW - 7000, left=1, trouble=Trouble("used_code")),
        "manage-none": Manage(csrf=csrf, who=ada, session=who, since=None, left=0),
    }


KEY = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
REQUEST = "01JD6Q2W8ZK4"
Sample = Callable[[], web.Response]


def samples(public_url: str = "https://jupyter.example.org", language: str = "en") -> Mapping[str, Sample]:
    """Page by name: every template and every problem, and what is likely to hurt their layout."""

    def site(*pools: Pool, portal: Portal | None = None, **more: Any) -> Pages:
        portal = portal or portal_of(text=ASK)
        return pages_for(*pools, portal=portal, public_url=public_url, language=language, **more)

    usual = site(HTC, HPC, CLOSED, CLOSED_PLAIN)
    ada = session()
    hostile_pool = pool("htc", HOSTILE, HOSTILE, HOSTILE, ask=HOSTILE)
    hostile_closed = pool("hpc", HOSTILE, HOSTILE, HOSTILE, groups=(HOSTILE,), ask=HOSTILE)
    told = (Announcement(HOSTILE, Level.MAINTENANCE, NOW - 1, None, ("htc",)),)
    hostile = site(hostile_pool, hostile_closed, portal=portal_of(HOSTILE, HOSTILE), announcements=told)
    announced = site(HTC, HPC, announcements=ANNOUNCEMENTS)
    long_pool = pool("htc", LONG, LONG * 3, LONG, ask=LONG)
    long_closed = pool("hpc", LONG, LONG, LONG, groups=(LONG.replace(" ", "-"),))
    long = site(long_pool, long_closed, portal=portal_of(LONG, LONG))
    rtl_pool = pool("htc", RIGHT_TO_LEFT, RIGHT_TO_LEFT, RIGHT_TO_LEFT)
    rtl = site(rtl_pool, HPC, portal=portal_of(RIGHT_TO_LEFT, RIGHT_TO_LEFT))

    def waiting(pages: Pages, at: float | None, *, hub: str = "htc01", of: Pool = HTC, who: Session = ada) -> Sample:
        return lambda: pages.waiting(
            session=who,
            pool=of,
            hub=hub,
            since=NOW - 252,
            url=f"{of.path}user/ada/lab?x=1",
            retry_after=10,
            may_move_at=at,
            request_id=REQUEST,
        )

    def landing(pages: Pages, who: Session = ada, state_of: Callable[[Pool], PoolState] = mixed) -> Sample:
        return lambda: pages.landing(who, state_of=state_of, request_id=REQUEST)

    def problem(code: str, *, pages: Pages = usual, who: Session | None = None, of: Pool | None = None) -> Sample:
        late = code in {"provider_unavailable", "store_unavailable", "no_hub_available", "too_many_logins"}
        return lambda: pages.problem(
            code,
            status=503 if late else 400,
            request_id=REQUEST,
            retry_after=30 if late else None,
            retry_url="/htc/",
            pool=of,
            hub="htc01" if code.startswith("upstream") else "",
            session=who,
        )

    def mfa(view: View, pages: Pages = usual) -> Sample:
        return lambda: pages.mfa(view, request_id=REQUEST)

    def account(
        pages: Pages,
        seats: Sequence[Seat],
        told: Told | None = None,
        who: Session = ada,
        factor: FactorState | None = None,
        helpers: Helpers | None = None,
        left: Remaining | None = None,
        attended: bool = True,
    ) -> Sample:
        return lambda: pages.account(
            who,
            seats,
            told=told,
            factor=factor,
            helpers=helpers,
            remaining=left,
            attended=attended,
            request_id=REQUEST,
        )

    seats = seats_of(ada)
    table: dict[str, Sample] = {
        "account": account(usual, seats, left=Remaining(1795, by_idling=True, near=False, look_again=60)),
        "account-near": account(
            usual, seats[:1], left=Remaining(95, by_idling=True, near=True, look_again=5), attended=False
        ),
        "account-last": account(usual, seats[:1], left=Remaining(1500, by_idling=False, near=False, look_again=60)),
        "account-ended": account(usual, seats[:2], Told(2, 3)),
        "account-alone": account(site(HTC, own_factor=True), seats[:1], Told(0, 0)),
        "account-factor": account(site(HTC, own_factor=True), seats[:1], factor=FactorState(NOW - 90 * 86400, 7)),
        "account-stopping": account(site(HTC, stop_servers=True), seats[:2]),
        "account-programs": account(
            usual,
            seats[:1],
            helpers=Helpers(
                (
                    Helper("t-1", HTC, "htc02", "a17", NOW - 9 * 86400, NOW - 40, f"{PROVIDER}/htc/hub/token"),
                    Helper("t-2", HPC, "hpc01", "", NOW - 86400, NOW - 7200, f"{PROVIDER}/hpc/hub/token", ended=True),
                ),
                NOW + 100_000,
            ),
            told=Told(program="refused_here"),
        ),
        "account-program-ended": account(
            usual, seats[:1], helpers=Helpers((), NOW + 100_000), told=Told(program="revoked")
        ),
        "account-programs-waiting": account(usual, seats[:1], helpers=Helpers((), 0.0)),
        "receipt-stopped": lambda: site(HTC, stop_servers=True).receipt(request_id=REQUEST, pools=[HTC]),
        "confirm-logout-stopping": lambda: site(HTC, stop_servers=True).confirm_logout(ada, request_id=REQUEST),
        "account-provider": account(site(HTC, account_url=f"{PROVIDER}/account/"), seats[:2]),
        "account-long": account(
            long, [replace(seats[0], pools=(long_pool, long_closed)), seats[2]], who=session(LONG, LONG)
        ),
        "account-hostile": account(
            hostile, [replace(seats[0], browser=HOSTILE, system=HOSTILE, pools=(hostile_pool,))], Told(1, 1)
        ),
        "landing": landing(usual, state_of=all_up),
        "landing-announcements": landing(announced, state_of=lambda asked: "down" if asked is HPC else "up"),
        "landing-brand": landing(site(HTC, HPC, portal=BRANDED), state_of=all_up),
        "landing-one": landing(site(HTC), state_of=all_up),
        "landing-one-degraded": landing(site(pool("htc", "Notebooks", "", "")), state_of=lambda _: "degraded"),
        "landing-two": landing(site(HTC, HPC), state_of=lambda asked: "down" if asked is HPC else "up"),
        "landing-twelve": landing(site(*TWELVE)),
        "landing-three-in-two": landing(site(HTC, TWELVE[4], TWELVE[5])),
        "landing-unsectioned": landing(site(*(pool(p.name, p.title, p.description, "") for p in TWELVE[:6]))),
        "landing-none": landing(site(CLOSED, CLOSED_PLAIN)),
        "landing-long": landing(long, session(LONG, LONG.replace(" ", "."))),
        "landing-rtl": landing(rtl, session(RIGHT_TO_LEFT, "maryam")),
        "landing-hostile": landing(hostile, session(HOSTILE, HOSTILE)),
        "landing-level": landing(usual, session(amr=())),
        "waiting": waiting(usual, NOW + 90),
        "waiting-choice": waiting(usual, NOW - 1),
        "waiting-only": waiting(usual, None),
        "waiting-maintenance": waiting(announced, None, hub="hpc01", of=HPC),
        "waiting-hostile": waiting(hostile, NOW - 1, hub=HOSTILE, of=hostile_pool, who=session(HOSTILE, HOSTILE)),
        "waiting-long": waiting(long, NOW - 1, hub=LONG.replace(" ", ""), of=long_pool),
        "confirm-logout": lambda: usual.confirm_logout(ada, request_id=REQUEST),
        "receipt": lambda: usual.receipt(request_id=REQUEST, pools=[HTC, HPC], connections=3),
        "receipt-left": lambda: usual.receipt(request_id=REQUEST, pools=[HTC], connections=1, provider_ended=False),
        "receipt-none": lambda: usual.receipt(request_id=REQUEST, provider_ended=None),
        "receipt-hostile": lambda: hostile.receipt(request_id=HOSTILE, pools=[hostile_pool], connections=1),
        **{f"mfa-{name}": mfa(view) for name, view in mfa_views_of(ada).items()},
        "mfa-code-hostile": mfa(
            AskCode(csrf=ada.csrf, who=session(HOSTILE, HOSTILE).identity, trouble=Trouble("wrong_code")), hostile
        ),
        "mfa-enrol-long": mfa(replace(enrolling(ada, "first"), who=session(LONG, LONG).identity, label=LONG), long),
        "landing-own-factor": landing(site(HTC, HPC, own_factor=True)),
        "renewed": lambda: usual.renewed(ada, through="/htc/hub/login", another=False, request_id=REQUEST),
        "renewed-another": lambda: usual.renewed(ada, through="", another=True, request_id=REQUEST),
        "renewed-hostile": lambda: hostile.renewed(
            session(HOSTILE, HOSTILE),
            through=f"/htc/hub/login?next={quote(HOSTILE)}",
            another=False,
            request_id=REQUEST,
        ),
        "continue": lambda: usual.continue_login("/_hubgate/login?next=%2Fhtc%2F", request_id=REQUEST),
        "problem-unheard-of": problem("unheard_of"),
        "problem-announced": problem("no_hub_available", pages=announced, of=HPC),
        "problem-hostile": problem(HOSTILE, pages=hostile, of=hostile_closed, who=session(HOSTILE, HOSTILE)),
        "problem-long": problem("group_missing", pages=long, of=long_closed, who=session(LONG, LONG.replace(" ", ""))),
        "problem-group-missing-pool": problem("group_missing", who=ada, of=CLOSED),
    }
    table |= {f"problem-{code.replace('_', '-')}": problem(code) for code in PROBLEMS}
    return table


Gallery = Mapping[str, Mapping[str, Sample]]
"""Samples by language and name."""


def every_language(public_url: str) -> Gallery:
    """All there is."""
    return {language: samples(public_url, language) for language in LANGUAGES}


def gallery_app(chosen: Gallery, pages: Pages) -> web.Application:
    """`/` lists them, `/<language>/<name>` shows one. Statuses stay as they are: that is part of the page.

    `pages`: of a site whose static files all of them share.
    """

    async def index(_: web.Request) -> web.Response:
        names = dict.fromkeys(name for table in chosen.values() for name in table)
        rows = "".join(
            f"<li>{''.join(f' <a href=/{language}/{name}>{language}</a>' for language in chosen)} {name}</li>"
            for name in names
        )
        html = f'<!doctype html><html lang="en"><title>hubgate: pages</title><h1>Pages</h1><ul>{rows}</ul></html>'
        return web.Response(text=html, content_type="text/html")

    async def show(request: web.Request) -> web.Response:
        sample = chosen.get(request.match_info["language"], {}).get(request.match_info["name"])
        return sample() if sample else web.Response(status=404)

    async def icon(_: web.Request) -> web.Response:
        return pages.files.answer("favicon.svg") or web.Response(status=404)

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/{language:[a-z]{2}}/{name}", show)
    app.router.add_get("/favicon.ico", icon)
    app.router.add_get(STATIC_PATH + "{name}", pages.files.serve)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The application on a loopback port; gives its address without a trailing slash."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        tcp = web.TCPSite(runner, "127.0.0.1", 0)
        await tcp.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def shared_files(public_url: str) -> Pages:
    """Pages with every static file that a sample may link to, the site's own included: whoever serves them."""
    return pages_for(HTC, public_url=public_url, portal=BRANDED)


async def shoot(
    folder: Path, *, only: str, widths: tuple[int, ...], schemes: tuple[str, ...], languages: tuple[str, ...]
) -> None:
    """Pictures of the pages whose names contain `only`."""
    from playwright.async_api import async_playwright

    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    chosen = {language: samples("http://127.0.0.1", language) for language in languages}
    names = [
        (language, name) for language in languages for name in chosen[language] if only in name and name != "continue"
    ]  # that one goes on by itself
    app = gallery_app(chosen, shared_files("http://127.0.0.1"))
    async with serving(app) as address, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        for scheme in schemes:
            for width in widths:
                context = await browser.new_context(
                    viewport={"width": width, "height": 800},
                    color_scheme="dark" if scheme == "dark" else "light",
                    reduced_motion="reduce",
                    java_script_enabled=False,
                )
                page = await context.new_page()
                for language, name in names:
                    await page.goto(f"{address}/{language}/{name}")
                    await page.screenshot(path=folder / f"{name}-{language}-{width}-{scheme}.png", full_page=True)
                await context.close()
        await browser.close()


async def serve() -> None:
    chosen = every_language("http://127.0.0.1")
    async with serving(gallery_app(chosen, shared_files("http://127.0.0.1"))) as address:
        print(f"{len(chosen['en'])} pages in {len(chosen)} languages at {address}/ (Ctrl-C ends)")
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gallery", description="Every page, to look at.")
    parser.add_argument("--shots", type=Path, metavar="DIRECTORY", help="take pictures instead of serving")
    parser.add_argument("--only", default="", metavar="PART", help="just pages whose name contains this")
    parser.add_argument("--width", type=int, action="append", help=f"widths in pixels, default {WIDTHS}")
    parser.add_argument("--scheme", choices=("light", "dark"), action="append")
    parser.add_argument("--language", choices=LANGUAGES, action="append")
    chosen = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if chosen.shots:
            widths = tuple(chosen.width or WIDTHS)
            schemes = tuple(chosen.scheme or ("light", "dark"))
            languages = tuple(chosen.language or LANGUAGES)
            asyncio.run(shoot(chosen.shots, only=chosen.only, widths=widths, schemes=schemes, languages=languages))
        else:
            asyncio.run(serve())


if __name__ == "__main__":
    main()
