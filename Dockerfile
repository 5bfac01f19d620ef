# The project with the locked versions. EXTRA adds the packages of an accelerator: cuda12, cuda13 or tpu.
#   docker build --tag src-pure .
#   docker build --tag src-pure:cuda12 --build-arg EXTRA=cuda12 .
#   docker run --rm --gpus all --volume "$PWD/runs:/training/runs" src-pure:cuda12 src-pure-train +tmaze=quickstart
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
ARG EXTRA=""
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
RUN python3 -m venv /opt/src-pure && /opt/src-pure/bin/python -m pip install --quiet --disable-pip-version-check uv
WORKDIR /opt/source
COPY requirements.lock ./
RUN /opt/src-pure/bin/uv pip install --quiet --compile-bytecode --python /opt/src-pure/bin/python \
    --requirements requirements.lock
# jax and its plugins keep the locked versions; the libraries of the accelerator are those that jax asks for
RUN if [ -n "$EXTRA" ]; then \
        /opt/src-pure/bin/uv pip freeze --quiet --python /opt/src-pure/bin/python > locked.txt && \
        /opt/src-pure/bin/uv pip install --quiet --compile-bytecode --python /opt/src-pure/bin/python \
            --constraints locked.txt "jax[$EXTRA]"; \
    fi
COPY pyproject.toml README.md LICENSE trainer_pure.py ./
COPY src_pure src_pure
COPY configs configs
COPY scripts scripts
RUN /opt/src-pure/bin/uv pip install --quiet --compile-bytecode --python /opt/src-pure/bin/python --no-deps .

FROM ${BASE}
COPY --from=build /opt/src-pure /opt/src-pure
ENV PATH=/opt/src-pure/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 trainer && mkdir -p /training/runs && chown -R trainer /training
USER trainer
WORKDIR /training
CMD ["src-pure-train", "--help"]
