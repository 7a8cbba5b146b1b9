# An image in the place of livekit-server's: the same flags, variables and files (docs/deploy.md, "Container image").
#
#     docker build -t aiosfu .

FROM python:3.11-slim-bookworm AS build
COPY requirements.lock /src/
RUN python3 -m venv /opt/aiosfu
RUN /opt/aiosfu/bin/pip install --no-cache-dir --require-hashes -r /src/requirements.lock
COPY . /src
WORKDIR /src
RUN /opt/aiosfu/bin/pip install --no-cache-dir --no-deps .
RUN /opt/aiosfu/bin/aiosfu compile

FROM python:3.11-slim-bookworm
COPY --from=build /opt/aiosfu /opt/aiosfu
# livekit-server's image has its program there, and what starts it may name it.
RUN ln -s /opt/aiosfu/bin/aiosfu /livekit-server && useradd --create-home --uid 10001 aiosfu
USER 10001
EXPOSE 7880/tcp 7881/tcp 7882/udp
ENTRYPOINT ["/livekit-server"]
