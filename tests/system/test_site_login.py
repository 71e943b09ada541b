"""Somebody comes to the site: real Keycloak, password and one-time code, and back to what was asked for."""

from __future__ import annotations

from collections.abc import Callable

from tests.kit.site import RunningSite, Visitor


async def test_the_landing_page_knows_who_came_and_offers_what_they_may_use(visitor: Callable[..., Visitor]) -> None:
    both = visitor(groups=["htc-users", "hpc-users"])
    page = await both.arrive()
    assert (page.status, page.url) == (200, both.at("/"))
    assert both.user.username in page.text
    for path in ("/htc/", "/hpc/"):
        assert f'href="{path}"' in page.text or f'href="{both.at(path)}"' in page.text
    assert "no-store" in page.headers["Cache-Control"]


async def test_who_may_not_use_a_pool_is_told_what_to_do(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor(groups=["htc-users"])
    await somebody.arrive()
    page = await somebody.browser.get(somebody.at("/hpc/hub/home"))
    assert page.status == 403
    assert page.url == somebody.at("/hpc/hub/home")
    assert "Write to the cluster" in page.text


async def test_the_session_cookie_is_opaque_and_for_the_server_alone(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    page = await somebody.arrive()
    lines = [
        line for step in page.trail for line in step.headers.getall("Set-Cookie", []) if line.startswith("hubgate=")
    ]
    assert len(lines) == 1
    attributes = {part.strip().lower() for part in lines[0].split(";")[1:]}
    assert {"httponly", "path=/", "samesite=lax"} <= attributes
    assert somebody.user.username not in lines[0]


async def test_without_a_code_there_is_enrolment_and_no_session_before_it(visitor: Callable[..., Visitor]) -> None:
    new = visitor(totp=False)
    page = await new.browser.get(new.at("/htc/"))
    form = page.form_with("password")
    assert form is not None
    page = await new.browser.submit(page, form, username=new.user.username, password=new.user.password)
    assert page.form_with("totpSecret", "totp") is not None, page
    assert "data:image/png;base64," in page.text
    assert "hubgate" not in new.browser.cookies(new.site.url)

    page = await new.arrive("/_hubgate/login?next=/")
    assert page.url == new.at("/")
    assert new.browser.totp_key
    # From now on the code is asked for, in any browser.
    again = visitor(user=new.user)
    again.browser.totp_key = new.browser.totp_key
    page = await again.arrive()
    assert page.url == again.at("/")
    assert page.status == 200


async def test_a_wrong_password_or_code_lets_nobody_in(site: RunningSite, visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    for wrong in ({"password": "wrong"}, {"code": "000000"}):
        async with site.browser() as browser:
            page = await browser.login(site.url, somebody.user, **wrong)
            assert page.url.startswith(site.keycloak.origin)
            assert "hubgate" not in browser.cookies(site.url)
            assert (await browser.fetch(f"{site.url}/htc/hub/api/")).status == 401


async def test_a_deep_link_comes_back_with_its_query_to_the_byte(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    link = "/htc/hub/home?path=a%2Fb+c&x=%C3%A9&empty="
    page = await somebody.arrive(link)
    assert somebody.at(link) in [step.url for step in page.trail]
    assert page.status == 200


async def test_many_tabs_log_in_at_once_and_each_goes_on_to_its_own(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    tabs = [await somebody.browser.get(somebody.at(f"/htc/hub/home?tab={number}")) for number in range(3)]
    forms = [tab.form_with("password") for tab in tabs]
    assert all(forms)
    first = await somebody.arrive("/htc/hub/home?tab=0")
    assert first.status == 200
    # The others are reloaded by whoever sits there: Keycloak knows them already.
    for number in (1, 2):
        page = await somebody.arrive(f"/htc/hub/home?tab={number}")
        assert page.status == 200
        assert page.url.endswith(f"tab={number}")


async def test_a_script_is_told_and_not_redirected(site: RunningSite) -> None:
    async with site.browser() as browser:
        page = await browser.fetch(f"{site.url}/htc/hub/api/user")
        assert page.status == 401
        assert "login_url" in page.text
        assert "Set-Cookie" not in page.headers


async def test_a_login_leaves_one_line_in_the_audit_log_and_no_secret_anywhere(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    page = await somebody.arrive()
    gateway = somebody.site.gateway
    lines = [line for line in gateway.events("login") if line.get("user") == somebody.user.username]
    assert [line["outcome"] for line in lines] == ["ok"]
    assert "otp" in lines[0]["factor"]
    secrets = [
        somebody.browser.cookies(gateway.url)["hubgate"],
        gateway.config.read_text().split('client_secret = "')[1].split('"')[0],
    ]
    for step in page.trail:
        query = step.url.partition("?")[2]
        secrets += [part.partition("=")[2] for part in query.split("&") if part.startswith(("code=", "state="))]
    assert len(secrets) >= 4
    output = gateway.output()
    for secret in secrets:
        assert secret not in output
