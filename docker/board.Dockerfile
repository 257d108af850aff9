# The monitor board: opens the sites' reports, far from the coordinator. It holds no site code.
ARG BASE=python:3.11-slim
FROM ${BASE}
# "--no-index --find-links /wheels" installs from docker/wheels instead of the package index.
ARG WHEELS=""
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY common /src/common
COPY server /src/server
RUN --mount=type=bind,source=docker/wheels,target=/wheels \
    mkdir -p /src/site_client /src/simulations \
 && python3 -m pip install --no-cache-dir ${WHEELS} -c /src/constraints.txt "/src[board]" \
 && rm -rf /src \
 && useradd --uid 10001 --create-home cohortium
COPY docker/healthcheck.py /usr/local/bin/healthcheck.py
USER 10001
ENV COHORTIUM_BOARD_HOME=/var/lib/cohortium PYTHONUNBUFFERED=1
HEALTHCHECK --interval=10s --timeout=5s CMD ["python3", "/usr/local/bin/healthcheck.py", "board"]
CMD ["cohortium-board", "collect", "--watch"]
