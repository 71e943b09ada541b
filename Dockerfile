# The gateway alone, built from this checkout. docker, podman and buildah take this file as it is; `make image` does, too.
# deploy/README.md says how it is run.

# The first stage wants a Python of 3.11 or newer with venv, and binutils; the second the same Python at the same path, and
# nothing else.
ARG BUILD_IMAGE=python:3.13
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md config.example.toml ./
COPY proxy proxy
COPY templates templates
# Who has a package index of their own hands in their pip.conf, and the authority of its certificate, as secrets: neither
# is in the image. Wheels only, so that no compiler is asked for. Symbols for debuggers are a third of what wheels hold.
# Compiled files are never compared with their sources: nobody could write newer ones.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    set -eu; \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    python3 -m venv /tools; \
    /tools/bin/python -m pip wheel --no-cache-dir --only-binary :all: --wheel-dir /wheels .; \
    python3 -m venv --without-pip /opt/hubgate; \
    /tools/bin/python -m pip --python /opt/hubgate/bin/python install --no-index --find-links /wheels --no-compile hubgate; \
    find /opt/hubgate/lib -name '*.so*' -exec strip --strip-unneeded {} +; \
    python3 -m compileall -q --invalidation-mode unchecked-hash /opt/hubgate/lib

FROM ${PYTHON_IMAGE}
# Slim images come without compiled files, and nobody can write them later: every start would take three times as long.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash -x '/(site-packages|dist-packages|ensurepip|idlelib|lib2to3|test|tkinter)/' \
    "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/hubgate /opt/hubgate
ENV PATH=/opt/hubgate/bin:$PATH
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="hubgate" \
      org.opencontainers.image.description="An authenticating front-end proxy and load balancer for sites that run several JupyterHubs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that Kubernetes can see that it isn't root.
USER 10001:10001
EXPOSE 8443
STOPSIGNAL SIGTERM
# That it answers, not that it is ready: while the store is away, a restart would end the sockets that outlive it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["hubgate", "health", "-c", "/etc/hubgate/config.toml"]
ENTRYPOINT ["hubgate"]
CMD ["serve", "-c", "/etc/hubgate/config.toml"]
