"""docs/hubs.md: the template that warns people, in JupyterHub's own page."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from hubgate.ops.demo import hubs
from hubgate.web.paths import STATIC_PATH
from tests.docs.letters import TOP, follow


class Scripts(HTMLParser):
    """Collects the addresses of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.found.append(dict(attrs).get("src") or "")


@pytest.mark.jupyterhub
def test_the_script_that_warns_people_comes_into_each_page_of_the_hub(
    hub_environment: Callable[[str], hubs.HubEnvironment],
) -> None:
    templates = Path(hub_environment(hubs.NEWEST).folder) / "share" / "jupyterhub" / "templates"
    theirs = jinja2.FileSystemLoader(templates)
    loaders = [jinja2.DictLoader({"page.html": follow("hubs.md", "warning")}), theirs]
    # As jupyterhub.app.JupyterHub.init_tornado_settings puts them together.
    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PrefixLoader({"templates": theirs}), *loaders]), autoescape=True
    )
    page = found.get_template("page.html").render(static_url=lambda path, **_: f"/static/{path}", base_url="/htc/hub/")
    scripts = Scripts(page).found
    name = f"{STATIC_PATH}session.js"
    assert scripts.count(name) == 1
    assert any("require.js" in script for script in scripts), "the hub's own are still there"
    assert (TOP / "templates" / "static" / "session.js").is_file()
