# What the tests run beside vramjet. There is no image to be had from a registry here.
FROM scratch
COPY nats-server actor vramjet /
ENTRYPOINT ["/nats-server"]
