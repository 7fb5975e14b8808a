# fastserve in a container: the arbiter is process 1, the root file system may be read-only, nobody is root.
#
#   docker build -t fastserve .
#   docker run --read-only -p 8080:8080 -v ./my_features:/repo:ro fastserve
#
# /repo holds the feature repo, /var/lib/fastserve the local store, if there is one. For a build that can be repeated
# to the byte, give both bases by digest: --build-arg PYTHON_IMAGE=python@sha256:... --build-arg COMPILER_IMAGE=...
#
# The official images' Python is built with profile-guided and link-time optimization, which is worth a tenth of a
# request's CPU and more (docs/decisions/0009-compiled-hot-path.md).
ARG PYTHON_IMAGE=python:3.13-slim
# The same Python on the same Debian, and a C compiler for the modules of a request's way. Only what it builds travels.
ARG COMPILER_IMAGE=python:3.13

FROM ${COMPILER_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore FASTSERVE_COMPILED=1
WORKDIR /build
# The lock files alone decide about these layers: a change of the code fetches nothing. The packages are installed
# here as well, since the compiler wants to know their types.
COPY requirements-compile.lock requirements.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements-compile.lock \
 && pip wheel --require-hashes --no-deps --no-build-isolation --wheel-dir /wheels -r requirements.lock \
 && pip install --no-index --no-deps --no-compile /wheels/*.whl \
 && python -m venv --without-pip /opt/fastserve
COPY pyproject.toml README.md LICENSE ./
COPY deploy/compiled.py deploy/compiled.py
COPY fastserve fastserve
COPY examples examples
# Bytecode is made here, once, and trusted there: the files can't change under a read-only root.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/fastserve/bin/python install --no-index --no-deps --no-compile /wheels/*.whl \
 && /opt/fastserve/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/fastserve/lib \
 && install -d -o 10001 -g 10001 /state

FROM ${PYTHON_IMAGE}
# The base comes without the standard library's bytecode; without it each start compiles what it imports.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(test|idlelib|turtledemo|site-packages)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/fastserve/bin:$PATH \
    FASTSERVE_HOST=0.0.0.0 \
    FASTSERVE_REPO=/repo
COPY --from=build /opt/fastserve /opt/fastserve
COPY --from=build --chown=10001:10001 /state /var/lib/fastserve
# Relative paths of stores begin here, in the only place that is written to.
WORKDIR /var/lib/fastserve
VOLUME ["/var/lib/fastserve"]
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Where there is an admin port it is asked, since the other one may speak TLS.
# A bare socket: this runs every few seconds, and an HTTP library takes longer to import than the answer to come.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/opt/fastserve/bin/python", "-c", "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ.get('FASTSERVE_ADMIN_PORT') or os.environ.get('FASTSERVE_PORT') or 8080)), 2); s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n'); raise SystemExit(not s.recv(64).startswith(b'HTTP/1.1 200 '))"]
ENTRYPOINT ["/opt/fastserve/bin/fastserve"]
CMD ["serve"]
