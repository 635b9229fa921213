# vramjet's image. `make image` builds the binary first: nothing is built or installed
# here, so that any builder does, and an empty base too (BASE=scratch, with a binary
# that was built with CGO_ENABLED=0 and so reads no NVIDIA devices).
#
# It runs as nobody in particular, writes nothing but what `vramjet up` stores, and is
# well on a read-only file system.
ARG BASE=debian:trixie-slim
FROM ${BASE}
COPY vramjet /usr/local/bin/vramjet
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    VRAMJET_HTTP=:7433 \
    NVIDIA_DRIVER_CAPABILITIES=utility
USER 65532:65532
EXPOSE 7433
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/vramjet", "health"]
ENTRYPOINT ["/usr/local/bin/vramjet"]
