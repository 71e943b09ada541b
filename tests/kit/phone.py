"""A phone with an authenticator app, and what its owner does with it on the gateway's own pages."""

from __future__ import annotations

import asyncio
import re
import time

from hubgate.ops.demo import codes
from hubgate.ops.demo.realm import DemoUser
from tests.kit.person import Form, Page, Person


class Phone:
    """`key`: base32, as the page shows it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._last = -1

    def at(self, moment: float) -> str:
        """What it shows at a time; for a phone whose clock is off."""
        return codes.code(self.key, moment)

    async def code(self) -> str:
        """A code that will be taken and was not given out yet: three at once, then one in thirty seconds."""
        while True:
            present = int(time.time()) // codes.PERIOD
            step = max(self._last + 1, present - 1)
            if step <= present + 1:
                if step == present - 1 and codes.seconds_left(time.time()) < 10:
                    step = present  # it would be over before it arrives
                self._last = step
                return self.at(step * codes.PERIOD)
            await asyncio.sleep(codes.seconds_left(time.time()) + 0.2)


def step_form(page: Page, step: str) -> Form:
    """The form of the page that does this."""
    found = [form for form in page.forms if form.fields.get("step") == step]
    assert found, f"no form {step!r} on {page!r}"
    return found[0]


def asks_for(page: Page) -> set[str]:
    """The steps that a page of the second factor offers."""
    return {form.fields["step"] for form in page.forms if "step" in form.fields}


def recovery_codes(page: Page) -> list[str]:
    """The recovery codes that the page shows."""
    return re.findall(r"<li><code>([0-9a-z-]{14})</code></li>", page.text)


def phone_of(page: Page) -> Phone:
    """A phone that was set up from the page by typing the key."""
    match = re.search(r'<code class="key">([A-Z2-7 ]+)</code>', page.text)
    assert match is not None, page
    return Phone(match[1])


async def with_password(person: Person, url: str, user: DemoUser) -> Page:
    """Go to `url` and through the provider's form: what the gateway asks then."""
    page = await person.get(url)
    if form := page.form_with("password"):
        page = await person.submit(page, form, username=user.username, password=user.password)
    return page


async def enrolled(person: Person, url: str, user: DemoUser) -> tuple[Phone, list[str], Page]:
    """A first login: the phone, the recovery codes, and the page that showed these."""
    page = await with_password(person, url, user)
    phone = phone_of(page)
    page = await person.submit(page, step_form(page, "confirm"), code=await phone.code())
    assert page.status == 200, page
    return phone, recovery_codes(page), page


async def logged_in(person: Person, url: str, user: DemoUser, phone: Phone) -> Page:
    """A later login, with a code."""
    page = await with_password(person, url, user)
    return await person.submit(page, step_form(page, "code"), code=await phone.code())
