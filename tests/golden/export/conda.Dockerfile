# Made by 'mlbox export' from mlbox.lock; do not edit.
# For Python 3.11 on linux/amd64.
# Build it with BuildKit in the project's folder, with the .dockerignore that came with it:
#   docker build --secret id=pip,src=pip.conf --secret id=apt,src=sources.list -t NAME .
# Index and mirror are the builder's own: the secrets (there is id=netrc too) say them, or --build-arg
# PIP_INDEX_URL=…, or nothing when what pip and apt have by themselves will do.

ARG MICROMAMBA=docker.io/mambaorg/micromamba:2
# The base is locked as packages, not as an image: their versions are pinned, whatever the tag means
# (--build-arg BASE=NAME@sha256:… pins what lies below them too).
ARG BASE=debian:bookworm-slim
FROM --platform=linux/amd64 ${BASE} AS base

FROM ${MICROMAMBA} AS micromamba

FROM base AS tools
COPY --from=micromamba /bin/micromamba /usr/local/bin/micromamba
# Where conda's channels are, each below its name: https://HOST
ARG CONDA_CHANNEL_ALIAS
RUN printf '%b\n' \
      '@EXPLICIT' \
      '@ALIAS@/conda-forge/linux-64/numpy-1.26.4-py311h64a7726_0.conda' \
      '@ALIAS@/team/label/main/linux-64/python-3.11.9-hb806964_0_cpython.conda' \
      > /tmp/conda.txt
RUN printf '%b\n' \
      '6666666666666666666666666666666666666666666666666666666666666666  numpy-1.26.4-py311h64a7726_0.conda' \
      '7777777777777777777777777777777777777777777777777777777777777777  python-3.11.9-hb806964_0_cpython.conda' \
      > /tmp/conda.sha256
RUN : "${CONDA_CHANNEL_ALIAS:?}" && sed -i "s|^@ALIAS@|${CONDA_CHANNEL_ALIAS%/}|" /tmp/conda.txt \
 && export MAMBA_ROOT_PREFIX=/opt/build-conda \
 && micromamba create -y --no-rc --no-pyc --always-copy -p /opt/mlbox/env --file /tmp/conda.txt \
 && cd /opt/build-conda/pkgs && sha256sum -c /tmp/conda.sha256
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
RUN /opt/mlbox/env/bin/python3.11 -m venv /opt/build-tools

FROM tools AS environment
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
ENV PATH="/opt/mlbox/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV LANG="C.UTF-8"
ENV CONDA_PREFIX="/opt/mlbox/env"
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
