# The image of all Celery programs in docker-compose.yml: workers, beat, Flower.

FROM python:3.11.15-slim-bookworm AS build
# The same uv as ./learn gets.
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The packages are a layer of their own: a change of the code does not install them again.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --group postgres --group ai --no-install-project
COPY . .
RUN uv sync --frozen --no-dev --group postgres --group ai

FROM python:3.11.15-slim-bookworm
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 1000 --no-create-home learner
WORKDIR /app
COPY --from=build /app .
# The code belongs to root. A task may write only here.
RUN mkdir .state && chown -R learner data .state
USER 1000
