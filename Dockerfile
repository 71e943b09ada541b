# The gateway alone, from the wheel that this checkout builds. Neither compiler nor pip's cache is in the result.
#
#   docker build -t hubgate .
#   docker run --read-only --tmpfs /tmp -p 8443:8443 -v /etc/hubgate:/etc/hubgate:ro hubgate
#
# It runs as a user without a name and writes nothing but what it prints (and /tmp, with several workers). For the health
# check `ops_listen` must be the default, 127.0.0.1:9090, or a wildcard with that port.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md config.example.toml ./
COPY proxy proxy
COPY templates templates
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
 && python -m venv /opt/hubgate \
 && /opt/hubgate/bin/python -m pip install --no-cache-dir --only-binary :all: /wheel/hubgate-*.whl \
 && /opt/hubgate/bin/python -m pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/hubgate /opt/hubgate
ENV PATH=/opt/hubgate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 9090, timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["hubgate"]
CMD ["serve", "-c", "/etc/hubgate/hubgate.toml"]
