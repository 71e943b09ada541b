"""Those that hubgate is compared with: what packages provide, each with one worker, set up as its operator would.

A peer that isn't installed is `Absent`, with the package that would bring it; the report names it. Nobody is slowed
down: no access log, connections to the backend are kept, no limit on requests per connection, nothing is spooled to
disk. Those that can authenticate do: Apache with mod_auth_openidc is logged in at the development provider, keeps its
sessions in shared memory, checks a group, and tells the backend who somebody is.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubgate.errors import OperatorFault
from hubgate.ops.demo import hubs
from hubgate.ops.demo.child import Child, free_ports
from hubgate.ops.demo.progress import Progress
from tests.bench.backend import BASE
from tests.bench.targets import Target
from tests.kit.person import Person

if TYPE_CHECKING:
    from tests.bench.workbench import Bench

_STARTED_WITHIN = 30.0
_SOCKETS = 4_000  # connections that a peer may have at once


class Absent(Exception):
    """A peer that can't be had here; the text says what would bring it."""


# -- nginx


async def nginx(bench: Bench, name: str) -> Target:
    """Plain proxy_pass."""
    return _nginx(bench, name)


async def nginx_tls(bench: Bench, name: str) -> Target:
    """The same, with TLS on the public side."""
    return _nginx(bench, name, tls=True)


def _nginx(bench: Bench, name: str, *, tls: bool = False) -> Target:
    program = _program("nginx", "nginx-light")
    folder, port = _folder(bench, name), free_ports(1)[0]
    certificate = ""
    if tls:
        certificate = f"ssl_certificate {bench.issued.certificate}; ssl_certificate_key {bench.issued.key};"
    temporary = "".join(
        f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections {2 * _SOCKETS}; }}
        http {{
            access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
            {temporary}
            proxy_request_buffering off; proxy_max_temp_file_size 0;
            proxy_read_timeout 1h; proxy_send_timeout 1h;
            map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
            upstream hub {{
                server 127.0.0.1:{bench.backend.port};
                keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; keepalive_time 10h;
            }}
            server {{
                listen 127.0.0.1:{port} {"ssl" if tls else ""} backlog=4096; {certificate}
                location / {{
                    proxy_pass http://hub; proxy_http_version 1.1; proxy_set_header Host $http_host;
                    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
                }}
            }}
        }}
    """)
    child = _start(bench, name, [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)], port)
    what = f"nginx {_version(program, '-v')}, {'TLS, ' if tls else ''}proxy_pass"
    return Target(name, what, port, child.pid, bench.cookies_like_ours(), ca=bench.authority.file if tls else "")


# -- haproxy


async def haproxy(bench: Bench, name: str) -> Target:
    """With a sticky cookie."""
    program = _program("haproxy", "haproxy")
    folder, port = _folder(bench, name), free_ports(1)[0]
    (folder / "haproxy.cfg").write_text(f"""
global
    nbthread 1
    maxconn {_SOCKETS}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend public
    bind 127.0.0.1:{port} backlog 4096
    default_backend hubs
backend hubs
    cookie HUB insert indirect nocache httponly
    server hub01 127.0.0.1:{bench.backend.port} cookie hub01
""")
    child = _start(bench, name, [program, "-db", "-f", str(folder / "haproxy.cfg")], port)
    what = f"haproxy {_version(program, '-v')}, sticky cookie"
    return Target(name, what, port, child.pid, bench.cookies_like_ours() | {"HUB": "hub01"})


# -- Apache

_MODULES = (
    "mpm_event", "authn_core", "authz_core", "authz_user", "headers", "env", "slotmem_shm", "proxy",
    "proxy_http", "proxy_balancer", "lbmethod_byrequests", "proxy_wstunnel", "auth_openidc",
)  # fmt: skip


async def apache(bench: Bench, name: str) -> Target:
    """mod_auth_openidc before mod_proxy_balancer: what the ancestor ran."""
    program = _program("apache2", "apache2")
    modules = Path("/usr/lib/apache2/modules")
    if not (modules / "mod_auth_openidc.so").exists():
        raise Absent("Apache's mod_auth_openidc: apt-get install libapache2-mod-auth-openidc")
    folder, port = _folder(bench, name), free_ports(1)[0]
    url, user = f"http://127.0.0.1:{port}", bench.provider.create_user()
    loads = "".join(f"LoadModule {each}_module {modules}/mod_{each}.so\n" for each in _MODULES)
    account = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    (folder / "apache2.conf").write_text(f"""
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
Mutex sem
{loads}{account}
StartServers 1
ServerLimit 1
ThreadLimit 256
ThreadsPerChild 256
MaxRequestWorkers 256
MinSpareThreads 1
MaxSpareThreads 256
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 3600
Timeout 3600

OIDCProviderMetadataURL {bench.provider.issuer}/.well-known/openid-configuration
OIDCClientID {bench.provider.client_id}
OIDCClientSecret "{bench.provider.client_secret}"
OIDCRedirectURI {url}{BASE}openidc
OIDCCryptoPassphrase {secrets.token_urlsafe(24)}
OIDCScope "openid profile email"
OIDCPKCEMethod S256
OIDCRemoteUserClaim preferred_username
OIDCAuthNHeader REMOTE_USER
OIDCSessionType server-cache
OIDCCacheType shm
OIDCSessionInactivityTimeout 7200

<Proxy balancer://hubs>
    BalancerMember http://127.0.0.1:{bench.backend.port} route=hub01 upgrade=websocket keepalive=on
    ProxySet stickysession=ROUTEID
</Proxy>
<Location {BASE}>
    AuthType openid-connect
    Require claim groups:htc-users
</Location>
Header add Set-Cookie "ROUTEID=.%{{BALANCER_WORKER_ROUTE}}e; path=/" env=BALANCER_ROUTE_CHANGED
ProxyPass {BASE}openidc !
ProxyPass {BASE} balancer://hubs{BASE}
""")
    child = _start(bench, name, [program, "-D", "FOREGROUND", "-f", str(folder / "apache2.conf")], port)
    async with Person(url, bench.provider.origin) as person:
        page = await person.login(f"{url}{BASE}hub/home", user)
        cookies = person.cookies(f"{url}{BASE}hub/200")
        if page.status != 200 or "mod_auth_openidc_session" not in cookies:
            raise OperatorFault("bench_login", f"nobody can log in at Apache: {page}\n{child.tail()}")
    package = _shell("dpkg-query", "-W", "-f", "${Version}", "libapache2-mod-auth-openidc").partition("-")[0]
    what = f"Apache {_version(program, '-v')} + mod_auth_openidc {package}, shared memory, mod_proxy_balancer"
    return Target(name, what, port, child.pid, cookies, user=user.username)


# -- configurable-http-proxy


async def chp(bench: Bench, name: str) -> Target:
    """As JupyterHub starts it; no authentication."""
    try:
        made = hubs.environment(hubs.NEWEST, Progress())
    except OperatorFault as fault:
        raise Absent(f"configurable-http-proxy: npm install {hubs.PROXY} ({fault.message})") from fault
    port, api = free_ports(2)
    argv = [*made.proxy, "--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1", "--api-port", str(api)]
    argv += ["--default-target", bench.backend.url, "--log-level", "warn"]
    token = {"CONFIGPROXY_AUTH_TOKEN": secrets.token_urlsafe(16), "NODE_ENV": "production"}
    child = _start(bench, name, argv, port, env=token)
    node = _shell(made.proxy[0], "--version").strip()
    what = f"configurable-http-proxy {_shell(*made.proxy, '--version').strip()}, node {node}"
    return Target(name, what, port, child.pid, bench.cookies_like_ours())


# -- oauth2-proxy


async def oauth2_proxy(_: Bench, __: str) -> Target:
    """Never there: named, so that nobody thinks that it was forgotten."""
    raise Absent("oauth2-proxy: no package of Debian, PyPI or npm brings it (it is a release of its own on GitHub)")


PEERS: dict[str, Callable[[Bench, str], Awaitable[Target]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "apache": apache,
    "chp": chp,
    "nginx-tls": nginx_tls,
    "oauth2-proxy": oauth2_proxy,
}
"""How each is started, under a name that its files and its log get; may raise `Absent`."""


def _program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise Absent(f"{name}: apt-get install {package}")
    return found


def _folder(bench: Bench, name: str) -> Path:
    folder = bench.folder / name
    folder.mkdir()
    return folder


def _start(bench: Bench, name: str, argv: Sequence[str], port: int, env: dict[str, str] | None = None) -> Child:
    child = Child(name, log=bench.folder / f"{name}.log")
    bench.ends(child)
    child.launch(argv, env=env)
    child.wait_until(lambda: _listens(port), timeout=_STARTED_WITHIN)
    return child


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _shell(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def _version(*argv: str) -> str:
    found = re.search(r"\d+(\.\d+)+", _shell(*argv))
    return found[0] if found else "?"
