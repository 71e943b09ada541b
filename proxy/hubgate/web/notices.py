"""What is announced, in somebody's language?

`core.announcement` decides which announcements are told; this module says them. Where on a page they stand is not known
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hubgate.core.announcement import Announcement, Level, Phase, current
from hubgate.core.language import in_language, preferred
from hubgate.core.site import Pool
from hubgate.web.words import Words


@dataclass(frozen=True, slots=True)
class Notice:
    """An announcement as it is shown. `language`: of its text, where it is known and not the page's; `ahead`: a
    maintenance that is to come; `about`: titles of its pools, empty for the site; `when`: the times of a maintenance.
    """

    text: str
    language: str
    level: str
    ahead: bool
    about: tuple[str, ...]
    when: str


class NoticeBoard:
    """A site's announcements."""

    def __init__(self, announcements: Sequence[Announcement]) -> None:
        self._announcements = announcements

    def told(self, words: Words, pools: Sequence[Pool], now: float) -> list[Notice]:
        """What is said at `now` (seconds since the epoch) to somebody whom only these pools concern."""
        notices = []
        for each in current(self._announcements, now):
            about = tuple(pool.title or pool.name for pool in pools if pool.name in each.pools)
            if each.pools and not about:
                continue
            when = ""
            if each.level is Level.MAINTENANCE and each.begins is not None:
                when = words.period(local(each.begins), None if each.ends is None else local(each.ends))
            ahead = each.phase(now) is Phase.AHEAD
            text = in_language(each.text, words.language)
            notices.append(Notice(text, _foreign(each, words), each.level.value, ahead, about, when))
        return notices

    def work_on(self, words: Words, pool: Pool, now: float) -> str:
        """A sentence on the maintenance that goes on at a pool; empty without one."""
        for each in current(self._announcements, now):
            if each.level is Level.MAINTENANCE and each.phase(now) is Phase.NOW and each.concerns(pool.name):
                if each.ends is None:
                    return words.plain("notice.work")
                return words.plain("notice.work_until", time=words.moment(local(each.ends), now=local(now)))
        return ""


def _foreign(announcement: Announcement, words: Words) -> str:
    """The language of the text, if it differs from the page's: it is read aloud in its own (WCAG 2.2, 3.1.2)."""
    if isinstance(announcement.text, str):
        return ""
    language = preferred(words.language, tuple(announcement.text))
    return "" if language.partition("-")[0] == words.language.partition("-")[0] else language


def local(moment: float) -> datetime:
    """Seconds since the epoch as a time in the server's zone, which is the site's."""
    return datetime.fromtimestamp(moment, UTC).astimezone()
