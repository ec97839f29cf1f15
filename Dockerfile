# Two images from one file: `--target api` (no torch) and `--target worker`.
#
# The worker takes the CUDA build of torch by default, which brings its own CUDA libraries and needs only
# the NVIDIA container runtime on the host. For a CPU-only image pass an index that holds CPU builds:
#   docker build --target worker --build-arg TORCH_INDEX_URL=<index of CPU builds> .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# What volumes are mounted over takes its owner from here.
RUN useradd --create-home --uid 10001 sentinel \
    && mkdir -p /var/lib/sentinel/storage /var/lib/sentinel/models \
    && chown -R sentinel:sentinel /var/lib/sentinel
ENV SENTINEL_HOME=/var/lib/sentinel HF_HOME=/var/lib/sentinel/models
WORKDIR /opt/sentinel
COPY pyproject.toml README.md constraints.txt alembic.ini ./
# An editable install only notes where the packages are, so the code can come later: when it changes, what it
# depends on is not installed again.
RUN mkdir sentinel api worker migrations && touch sentinel/__init__.py api/__init__.py worker/__init__.py

FROM base AS api
RUN pip install --constraint constraints.txt --editable '.[api]'
COPY sentinel sentinel
COPY api api
COPY worker worker
COPY migrations migrations
USER sentinel
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
# Each request is logged by the application already. Downloads get a while to end when the process is to stop.
CMD ["uvicorn", "--factory", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--http", "api.connections:Connection", "--loop", "api.accepting:PatientLoop", "--limit-concurrency", "2000", "--no-server-header", "--no-access-log", "--timeout-graceful-shutdown", "20"]

FROM base AS worker
# `heal.compile` compiles C++ on a CPU, and the launchers of its kernels on a GPU.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX_URL=
# torch first and alone: the index of CPU builds must not decide where anything else comes from.
RUN pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
RUN pip install --constraint constraints.txt --editable '.[worker]'
COPY sentinel sentinel
COPY api api
COPY worker worker
COPY migrations migrations
USER sentinel
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["python", "-m", "worker.health"]
# The worker hands its job back on SIGTERM.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker"]
