"""How does a template become an answer?

Reads the templates and static files that there are, a site's own directory over ours, and turns a template, facts and a
language into a response with the headers under which it may be shown. Which facts a page has is not known here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2
from aiohttp import web

from hubgate.core.session import Session
from hubgate.core.site import Site
from hubgate.errors import OperatorFault
from hubgate.web.brand import STYLE, Brand
from hubgate.web.files import StaticFiles, load_files
from hubgate.web.policy import Policy
from hubgate.web.words import Words

_STYLESHEETS = ("hubgate.css", STYLE, "site.css")


class Templates:
    """Ours, and over them those of `override`, which can extend ours as `hubgate/<name>`.

    `facts`: known to every template. Everything is read once, here. Ours, which the tests have tried, are compiled when
    they are first shown: all at once, they took an eighth of the gateway's start.

    Raises OperatorFault `templates_malformed`.
    """

    def __init__(
        self,
        site: Site,
        brand: Brand,
        *,
        override: Path | None,
        form_origins: Sequence[str],
        several_languages: bool,
        facts: Mapping[str, object],
    ) -> None:
        folders = template_folders(override)
        self.policy = Policy(site, form_origins=form_origins)
        self.files = StaticFiles(
            {**load_files([folders[0] / "static"]), **brand.files, **load_files(f / "static" for f in folders[1:])},
            self.policy,
        )
        sheets = [name for name in _STYLESHEETS if self.files.text(name).strip()]
        self._inline_style = "\n".join(map(self.files.text, sheets))
        if "</style" in self._inline_style.lower():
            raise OperatorFault("templates_malformed", "a style sheet must not contain '</style'")
        self._several_languages = several_languages
        self._environment = _environment(folders)
        self._environment.globals.update(facts, static=self.files.url, stylesheets=sheets, brand=brand)

    def page(
        self,
        template: str,
        *,
        words: Words,
        request_id: str,
        session: Session | None,
        status: int = 200,
        retry_after: int | None = None,
        form: bool = False,
        script: bool = False,
        frame: bool = False,
        standalone: bool = False,
        **facts: object,
    ) -> web.Response:
        """A page in one language.

        `session`: whose page it is; it has a form then, Log Out. `form`: it has another one. `script`: it runs one of
        our files, which opens a `frame` maybe. `standalone`: it is seen where our files aren't served, so its style
        goes into the page.
        """
        nonce = secrets.token_urlsafe(16) if script else ""
        inline_style = self._inline_style if standalone else ""
        html = self._environment.get_template(template).render(
            facts,
            words=words,
            status=status,
            request_id=request_id,
            session=session,
            retry_after=retry_after,
            nonce=nonce,
            inline_style=inline_style,
        )
        headers = {
            **self.policy.page(form=form or session is not None, nonce=nonce, inline_style=inline_style, frame=frame),
            **self.language_headers(words),
        }
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return web.Response(
            body=html.encode(), status=status, headers=headers, content_type="text/html", charset="utf-8"
        )

    def language_headers(self, words: Words) -> Mapping[str, str]:
        """In which language an answer is (RFC 9110, 8.5), and whether that was a choice (12.5.5)."""
        vary = {"Vary": "Accept-Language"} if self._several_languages else {}
        return {"Content-Language": words.language, **vary}

    def rehearsed(self, names: Sequence[str], show: Callable[[], object]) -> None:
        """Compile these templates and run `show`: what is wrong in a site's own ones comes out at the start."""
        try:
            for name in names:
                self._environment.get_template(name)  # whatever it may need, beyond what is shown below
            show()
        except Exception as error:  # a site's templates can fail in any way
            raise OperatorFault("templates_malformed", f"{type(error).__name__}: {error}") from error


def packaged_templates() -> Path:
    """Where our own templates are: beside the code in a wheel, at the top of the repository in a checkout."""
    here = Path(__file__).resolve()
    installed = here.parents[1] / "templates"
    return installed if installed.is_dir() else here.parents[3] / "templates"


def template_folders(override: Path | None) -> list[Path]:
    """Ours, and a site's own after it."""
    return [packaged_templates(), *([override] if override else [])]


def _environment(folders: Sequence[Path]) -> jinja2.Environment:
    # Read now, not when first needed: by then an upgrade may have put others there.
    ours = jinja2.DictLoader({path.name: path.read_text("utf-8") for path in folders[0].glob("*.html")})
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [*(jinja2.FileSystemLoader(folder) for folder in folders[1:]), ours, jinja2.PrefixLoader({"hubgate": ours})]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.policies["urlize.rel"] = "noreferrer"
    return environment
