# Made by 'mlbox export' from mlbox.lock; do not edit.
# For Python 3.11 on linux/amd64.
# Build it with BuildKit in the project's folder, with the .dockerignore that came with it:
#   docker build --secret id=pip,src=pip.conf --secret id=apt,src=sources.list -t NAME .
# Index and mirror are the builder's own: the secrets (there is id=netrc too) say them, or --build-arg
# PIP_INDEX_URL=…, or nothing when what pip and apt have by themselves will do.
# Some files are in other indexes than the default one: torch.

# The base is locked as packages, not as an image: their versions are pinned, whatever the tag means
# (--build-arg BASE=NAME@sha256:… pins what lies below them too).
ARG BASE=debian:bookworm-slim
FROM --platform=linux/amd64 ${BASE} AS base
RUN --mount=type=secret,id=apt,target=/etc/apt/sources.list.d/build.list --mount=type=secret,id=apt-key,target=/etc/apt/keyrings/build.asc \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --allow-downgrades \
      git=1:2.39.5-0+deb12u2 \
      libc6=2.36-9+deb12u14 \
 && rm -rf /var/lib/apt/lists/*

FROM base AS tools
RUN --mount=type=secret,id=apt,target=/etc/apt/sources.list.d/build.list --mount=type=secret,id=apt-key,target=/etc/apt/keyrings/build.asc \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --allow-downgrades \
      python3-venv \
 && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
RUN /usr/bin/python3.11 -m venv /opt/build-tools

FROM tools AS compile
RUN --mount=type=secret,id=apt,target=/etc/apt/sources.list.d/build.list --mount=type=secret,id=apt-key,target=/etc/apt/keyrings/build.asc \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --allow-downgrades \
      git \
 && rm -rf /var/lib/apt/lists/*
RUN printf '%b\n' \
      'setuptools==80.9 --hash=sha256:8888888888888888888888888888888888888888888888888888888888888888' \
      > /tmp/build.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/root/.netrc \
    /opt/build-tools/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r /tmp/build.txt
RUN printf '%b\n' \
      'fromgit @ git+https://git.example.org/team/fromgit.git@cccccccccccccccccccccccccccccccccccccccc#subdirectory=python' \
      > /tmp/fromgit.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/root/.netrc \
    PATH=/opt/build-tools/bin:$PATH env SOURCE_DATE_EPOCH=315532800 PYTHONHASHSEED=0 SETUPTOOLS_SCM_PRETEND_VERSION=0.3 PDM_BUILD_SCM_VERSION=0.3 \
      /opt/build-tools/bin/python -m pip wheel -w /opt/build-wheels --no-deps --no-build-isolation --no-binary fromgit -r /tmp/fromgit.txt
RUN printf '%b\n' \
      'odd-source==2.0 --hash=sha256:3333333333333333333333333333333333333333333333333333333333333333' \
      > /tmp/odd-source.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/root/.netrc \
    PATH=/opt/build-tools/bin:$PATH env SOURCE_DATE_EPOCH=315532800 PYTHONHASHSEED=0 SETUPTOOLS_SCM_PRETEND_VERSION=2.0 PDM_BUILD_SCM_VERSION=2.0 \
      /opt/build-tools/bin/python -m pip wheel -w /opt/build-wheels --no-deps --no-build-isolation --no-binary odd-source --require-hashes -r /tmp/odd-source.txt

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
RUN --mount=type=bind,from=compile,source=/opt/build-wheels,target=/opt/build-wheels \
    PYTHONPATH=/opt/build-tools/lib/python3.11/site-packages /opt/mlbox/env/bin/python -m pip install \
      --ignore-installed --no-deps --no-compile --no-index --find-links /opt/build-wheels fromgit==0.3 odd-source==2.0
RUN printf '%b\n' \
      'click==8.1 --hash=sha256:1111111111111111111111111111111111111111111111111111111111111111' \
      'file:///context/libs/local-1.0-py3-none-any.whl --hash=sha256:2222222222222222222222222222222222222222222222222222222222222222' \
      'remote @ https://files.example.org/remote-1.0-py3-none-any.whl --hash=sha256:4444444444444444444444444444444444444444444444444444444444444444' \
      'torch==2.9.1 --hash=sha256:5555555555555555555555555555555555555555555555555555555555555555' \
      > /tmp/wheels.txt
RUN --mount=type=bind,target=/context --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/root/.netrc \
    PYTHONPATH=/opt/build-tools/lib/python3.11/site-packages /opt/mlbox/env/bin/python -m pip install \
      --ignore-installed --no-deps --no-compile --require-hashes --only-binary :all: -r /tmp/wheels.txt
# The project itself, as pip's editable installs do it.
RUN mkdir -p /opt/mlbox/env/bin /opt/mlbox/env/lib/python3.11/site-packages/mine-1.dist-info \
 && printf '%b\n' \
      '#!/opt/mlbox/env/bin/python' \
      'print(\0047it\0134\0047s\0047)' \
      > /opt/mlbox/env/bin/mine \
 && chmod 755 /opt/mlbox/env/bin/mine \
 && printf '%b' \
      '{"url":"file:///workspace"}' \
      > /opt/mlbox/env/lib/python3.11/site-packages/mine-1.dist-info/direct_url.json

FROM base AS project
COPY . /context
RUN cd /context && rm -- libs/local-1.0-py3-none-any.whl && find . -depth -type d -empty -delete
RUN chmod -R u=rwX,go=rX /context

FROM base
COPY --from=environment /opt/mlbox/env /opt/mlbox/env
COPY --from=project ["/context","/workspace"]
ENV PATH="/opt/mlbox/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV LANG="C.UTF-8"
ENV VIRTUAL_ENV="/opt/mlbox/env"
ENV PYTHONUNBUFFERED="1"
ENV ODD="a \"b\" \$c \\ d"
ENV PLAIN="1"
LABEL dev.mlbox.accelerator="cpu"
LABEL dev.mlbox.python="3.11.2"
LABEL org.example.title="it's \"quoted\" \$HOME"
LABEL "two words"="x"
WORKDIR /workspace
EXPOSE 8000/tcp
USER 1000:1000
CMD ["python","train.py","--text","a \"b\" $c\n"]
