# Is this NATS server well? One that once could not write, as its disk was full, writes
# nothing until it is started again, or has no JetStream any more. When its disk takes
# something again it is ended here, and the restart policy starts it.
said=$(printf 'GET /healthz HTTP/1.0\r\n\r\n' | nc -w 5 127.0.0.1 8222)
case $said in
'HTTP/1.'?' 200 '*) exit 0 ;;
*'write error'* | *'JetStream not enabled'*)
	dd if=/dev/zero of=/data/room.tmp bs=1M count=1 conv=fsync 2>/dev/null
	room=$?
	rm -f /data/room.tmp
	[ "$room" = 0 ] && kill 1
	;;
esac
echo "$said"
exit 1
