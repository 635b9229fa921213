# A NATS server beside a shell and its tools, as the official image has them.
FROM vramjet-test/tools
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
