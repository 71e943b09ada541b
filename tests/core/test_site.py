"""What follows from a configuration by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.site import Pool, Site
from tests.core.strategies import PORTAL, SITE, pool


def test_https_site() -> None:
    assert SITE.secure
    assert SITE.host == PORTAL
    assert SITE.cookie == "__Host-hubgate"
    assert SITE.cookie_named("at-htc") == "__Host-hubgate-at-htc"
    assert SITE.origin("gpu.example.org") == "https://gpu.example.org"


def test_http_site_has_no_prefixed_cookies() -> None:
    site = Site("http://127.0.0.1:8000", ())
    assert not site.secure
    assert site.cookie == "hubgate"
    assert site.cookie_named("login") == "hubgate-login"
    assert site.origin(site.host) == "http://127.0.0.1:8000"


def test_hosts_are_listed_once_the_portal_first() -> None:
    site = Site(
        "https://Portal.org", (pool("a", "/a/", host="x.org"), pool("b", "/b/"), pool("c", "/c/", host="x.org"))
    )
    assert site.hosts == ("portal.org", "x.org")
    assert [site.pool_host(p) for p in site.pools] == ["x.org", "portal.org", "x.org"]
    assert [p.name for p in site.pools_on("x.org")] == ["a", "c"]
    assert site.pools_on("y.org") == ()


@pytest.mark.parametrize(("groups", "admitted"), [((), False), (("x",), False), (("x", "staff"), True)])
def test_a_pool_admits_its_groups(groups: tuple[str, ...], admitted: bool) -> None:
    assert SITE.pools[1].admits(groups) is admitted


@given(st.lists(st.text()).map(tuple))
def test_a_pool_without_groups_admits_everyone(groups: tuple[str, ...]) -> None:
    assert SITE.pools[0].admits(groups)


def test_each_pool_has_a_sticky_cookie_of_its_own() -> None:
    htc, hpc = Pool("htc", "/htc/", ()), Pool("hpc", "/hpc/", ())
    site = Site("https://jupyter.example.org", (htc, hpc))
    assert [site.sticky_cookie(pool) for pool in site.pools] == ["__Host-hubgate-at-htc", "__Host-hubgate-at-hpc"]
