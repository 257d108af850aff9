# The courier: the network, a login key and the agent's socket. It holds no agent code and no torch.
ARG BASE=python:3.11-slim
FROM ${BASE}
# "--no-index --find-links /wheels" installs from docker/wheels instead of the package index.
ARG WHEELS=""
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY common /src/common
COPY site_client/__init__.py /src/site_client/__init__.py
COPY site_client/courier /src/site_client/courier
RUN --mount=type=bind,source=docker/wheels,target=/wheels \
    mkdir -p /src/server /src/simulations \
 && python3 -m pip install --no-cache-dir ${WHEELS} -c /src/constraints.txt "/src[courier]" \
 && rm -rf /src \
 && useradd --uid 10003 --create-home cohortium
COPY docker/healthcheck.py /usr/local/bin/healthcheck.py
USER 10003
ENV PYTHONUNBUFFERED=1
HEALTHCHECK --interval=10s --timeout=5s CMD ["python3", "/usr/local/bin/healthcheck.py", "courier"]
CMD ["python3", "-m", "site_client.courier.run", "/var/lib/cohortium/courier"]
