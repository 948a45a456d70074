# An image with all processes of Daybook: docs/deploying.md. Build it with: docker build -t daybook .
FROM python:3.12-slim AS build
WORKDIR /app
COPY requirements.txt requirements-dev.txt ./
# The hashes of all packages are checked. setuptools only makes the package, and is not in the image.
RUN python -m venv /opt/daybook \
    && python -m venv /opt/build \
    && sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.txt > requirements-build.txt \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-build.txt \
    && /opt/daybook/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY . .
RUN for package in . clients/python; do \
        (cd $package && /opt/build/bin/python -c "from setuptools import build_meta; print(build_meta.build_editable('/tmp'))") \
            || exit 1; \
    done \
    && /opt/daybook/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /tmp/daybook-*.whl /tmp/daybook_client-*.whl \
    && /opt/daybook/bin/python -m compileall -q /app /opt/daybook

FROM python:3.12-slim
COPY --from=build /opt/daybook /opt/daybook
COPY --from=build /app /app
ENV PATH=/opt/daybook/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /app
STOPSIGNAL SIGTERM
EXPOSE 8000 8001 9464
CMD ["daybook", "--help"]
