# For tests only: a Redis that starts as the public valkey image does, `valkey-server --…` or nothing.
ARG BASE
FROM ${BASE}
COPY valkey-server /usr/local/bin/valkey-server
# The public image's user.
RUN mkdir /data && chown 999:999 /data
USER 999:999
WORKDIR /data
EXPOSE 6379
CMD ["valkey-server"]
