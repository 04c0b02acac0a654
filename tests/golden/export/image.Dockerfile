# Made by 'mlbox export' from mlbox.lock; do not edit.
# For Python 3.11 on linux/amd64.
# Build it with BuildKit in the project's folder, with the .dockerignore that came with it:
#   docker build --secret id=pip,src=pip.conf --secret id=apt,src=sources.list -t NAME .
# Index and mirror are the builder's own: the secrets (there is id=netrc too) say them, or --build-arg
# PIP_INDEX_URL=…, or nothing when what pip and apt have by themselves will do.

FROM --platform=linux/amd64 registry.example.org/python:3.11-slim@sha256:1111111111111111111111111111111111111111111111111111111111111111 AS base
USER 0
ENV PYTHONHOME=""

FROM base AS tools
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
RUN /usr/local/bin/python3.11 -m venv /opt/build-tools

FROM tools AS environment
RUN mkdir -p /opt/mlbox/env/bin /opt/mlbox/env/include/python3.11 /opt/mlbox/env/lib/python3.11/site-packages \
 && ln -sfn /usr/bin/python3.11 /opt/mlbox/env/bin/python3.11 \
 && ln -sfn python3.11 /opt/mlbox/env/bin/python3 \
 && ln -sfn python3.11 /opt/mlbox/env/bin/python \
 && ln -sfn lib /opt/mlbox/env/lib64 \
 && printf '%b\n' \
      'home = /usr/bin' \
      'include-system-site-packages = false' \
      'version = 3.11.2' \
      'executable = /usr/bin/python3.11' \
      'command = /usr/bin/python3.11 -m venv /opt/mlbox/env' \
      > /opt/mlbox/env/pyvenv.cfg \
 && printf '%b\n' \
      'VIRTUAL_ENV=/opt/mlbox/env' \
      'PATH="$VIRTUAL_ENV/bin:$PATH"' \
      'export VIRTUAL_ENV PATH' \
      'unset PYTHONHOME' \
      'hash -r 2>/dev/null || true' \
      > /opt/mlbox/env/bin/activate
RUN printf '%b\n' \
      'click==8.1 --hash=sha256:1111111111111111111111111111111111111111111111111111111111111111' \
      > /tmp/wheels.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/root/.netrc \
    PYTHONPATH=/opt/build-tools/lib/python3.11/site-packages /opt/mlbox/env/bin/python -m pip install \
      --ignore-installed --no-deps --no-compile --require-hashes --only-binary :all: -r /tmp/wheels.txt

FROM base AS project
COPY . /context
RUN chmod -R u=rwX,go=rX /context

FROM base
COPY --from=environment /opt/mlbox/env /opt/mlbox/env
COPY --from=project ["/context","/workspace"]
ENV PATH="/opt/mlbox/env/bin:/usr/local/bin:/usr/bin:/bin"
ENV LANG="C.UTF-8"
ENV VIRTUAL_ENV="/opt/mlbox/env"
ENV PYTHONUNBUFFERED="1"
ENV A="b"
LABEL dev.mlbox.accelerator="cpu"
LABEL dev.mlbox.python="3.11.2"
LABEL org.opencontainers.image.base.digest="sha256:1111111111111111111111111111111111111111111111111111111111111111"
LABEL org.opencontainers.image.base.name="registry.example.org/python:3.11-slim"
WORKDIR /workspace
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
USER app
ENTRYPOINT []
CMD ["python3"]
