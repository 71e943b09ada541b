"""Whatever a person can meet is in the gallery, and with that in the tests of the pages."""

from __future__ import annotations

import jinja2
import pytest
from aiohttp import ClientSession

from hubgate.web.problems import PROBLEMS
from hubgate.web.templates import packaged_templates
from tests.gallery import LANGUAGES, every_language, gallery_app, samples, serving, shared_files

PARTS = {"base.html", "icons.html", "logo.html", "notices.html", "mfa_form.html"}
"""Templates that are no page by themselves."""


def test_every_template_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = set()
    loaded = jinja2.Environment.get_template

    def noted(self: jinja2.Environment, name: str, *rest: object, **more: object) -> jinja2.Template:
        shown.add(name)
        return loaded(self, name, *rest, **more)  # type: ignore[arg-type]  # passed through as given

    monkeypatch.setattr(jinja2.Environment, "get_template", noted)
    for sample in samples().values():
        sample()
    assert shown | PARTS == {path.name for path in packaged_templates().glob("*.html")}


def test_every_problem_is_shown() -> None:
    assert {f"problem-{code.replace('_', '-')}" for code in PROBLEMS} <= set(samples())


async def test_it_can_be_looked_at() -> None:
    public_url = "http://127.0.0.1"
    app = gallery_app(every_language(public_url), shared_files(public_url))
    async with serving(app) as address, ClientSession() as client:
        async with client.get(address) as answer:
            index = await answer.text()
        for language in LANGUAGES:
            assert index.count(f"href=/{language}/") == len(samples())
            async with client.get(f"{address}/{language}/waiting") as answer:
                assert answer.status == 503
                assert answer.headers["Content-Language"] == language
        async with client.get(f"{address}/tlh/waiting") as answer:
            assert answer.status == 404
