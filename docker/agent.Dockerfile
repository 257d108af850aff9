# The agent: data, keys, gate. Run it with `network_mode: none`. It holds no courier and no Flower.
ARG BASE=python:3.11-slim
FROM ${BASE}
# "--no-index --find-links /wheels" installs from docker/wheels instead of the package index.
ARG WHEELS=""
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY common /src/common
COPY site_client /src/site_client
RUN --mount=type=bind,source=docker/wheels,target=/wheels \
    rm -rf /src/site_client/courier && mkdir -p /src/server /src/simulations \
 && python3 -m pip install --no-cache-dir ${WHEELS} torch==2.13.0 \
 && python3 -m pip install --no-cache-dir ${WHEELS} -c /src/constraints.txt "/src[agent]" \
 && rm -rf /src \
 && useradd --uid 10002 --create-home cohortium
COPY docker/healthcheck.py /usr/local/bin/healthcheck.py
USER 10002
ENV PYTHONUNBUFFERED=1
HEALTHCHECK --interval=10s --timeout=5s CMD ["python3", "/usr/local/bin/healthcheck.py", "agent"]
CMD ["python3", "-m", "site_client.agent_main", "/var/lib/cohortium"]
