"""What do we write to people about their second factor?

Nobody should be able to change somebody's second factor unseen. Each change is told to its owner by mail, at the
address that the account has now, and at the one that it had when the factor was last used: a thief may have changed
that first. A letter says what happened, when, and from which network address, and holds nothing that a client could
have put there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from hubgate.config import Config, Mail
from hubgate.mail import Letter, MailServer
from hubgate.web.templates import template_folders
from hubgate.web.words import Words, load_words

Change = Literal["enrolled", "replaced", "recovery_code_used", "recovery_codes_renewed", "reset"]


class Letters:
    """`send`: where letters go; `label`: the site's name."""

    def __init__(
        self,
        words: Words,
        send: Callable[[Letter], None],
        *,
        label: str,
        public_url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._words = words
        self._send = send
        self._label = label
        self._public_url = public_url
        self._clock = clock

    def tell(self, change: Change, username: str, *addresses: str, client: str | None = None) -> None:
        """Write to somebody at each of these addresses; "" is none. `client`: where it was done, None: by an
        administrator.
        """
        say = self._words.plain
        now = datetime.fromtimestamp(self._clock(), UTC)
        when = f"{self._words.date(now)}, {self._words.clock(now)}"
        facts = [say("letter.time", time=when), say("letter.site", url=self._public_url)]
        if client is not None:
            facts.append(say("letter.client", address=client))
        text = "\n".join(
            (
                say("letter.greeting", who=username),
                "",
                say(f"letter.{change}.what"),
                "",
                *facts,
                "",
                say("letter.not_you"),
                "",
            )
        )
        for address in dict.fromkeys(filter(None, addresses)):
            self._send(Letter(address, say(f"letter.{change}.subject", site=self._label), text))


def letters_of(config: Config, send: Callable[[Letter], None]) -> Letters:
    """The letters of a site, in its own words. OperatorFault: these can't be read."""
    own = config.gateway.templates
    spoken = load_words(template_folders(Path(own) if own else None), wanted=config.portal.languages)
    words = next(iter(spoken.values()))  # the site's own language
    label = config.mfa.issuer_label or config.portal.title
    return Letters(words, send, label=label, public_url=config.gateway.public_url)


def mail_server(mail: Mail) -> MailServer:
    """The server that is configured."""
    password = mail.password.reveal() if mail.password else ""
    return MailServer(mail.smtp, mail.sender, user=mail.user, password=password, ca=mail.ca)
