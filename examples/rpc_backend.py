"""A backend for vramjet in one file: its model "upper" says your words again in upper case, one by one. It speaks NATS's own
protocol, so it needs only Python. Run: python3 rpc_backend.py [host:port], with {name: upper, kind: rpc} in a worker's backends."""
import json, socket, sys, threading, time

host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:4222").rpartition(":")
sock, lock, running = socket.create_connection((host, int(port))), threading.Lock(), set()

def send(text):
    with lock:
        sock.sendall(text.encode() + b"\r\n")

def answer(reply, seq, body):  # Vj-Seq counts the messages of an answer, so that a lost one is noticed
    head, body = f"NATS/1.0\r\nVj-Seq: {seq}\r\n\r\n", body if isinstance(body, str) else json.dumps(body)
    send(f"HPUB {reply} {len(head)} {len((head + body).encode())}\r\n{head}{body}")

def generate(reply, request):
    chunk = lambda delta, end=None: {"object": "chat.completion.chunk", "model": "upper", "choices": [
        {"index": 0, "delta": delta, "finish_reason": end}]}
    if not isinstance(said := request["messages"][-1]["content"], str):
        return answer(reply, 0, {"error": {"message": "upper takes nothing but text", "code": "unsupported"}})
    for seq, body in enumerate([chunk({"content": word.upper() + " "}) for word in said.split()] + [chunk({}, "stop"), "[DONE]"]):
        if reply in running:  # else nobody wants the rest
            answer(reply, seq, body)
            time.sleep(0.05)
    running.discard(reply)

send('CONNECT {"verbose":false,"headers":true}' + "".join("\r\nSUB vj.v1.rpc.upper." + s for s in ("models q 1", "generate q 2", "cancel 3")))
for line in (lines := sock.makefile("rb")):
    verb, *words = line.decode().split()
    if verb == "PING":
        send("PONG")
    if verb in ("MSG", "HMSG"):  # the words: subject, sid, reply if there is one, size of the headers if there are, size
        data = lines.read(int(words[-1]) + 2)[int(words[-2]) if verb == "HMSG" else 0:-2]
        if words[0].endswith(".cancel"):
            running.discard(data.decode())
        elif words[0].endswith(".models"):
            answer(words[2], 0, {"models": [{"name": "upper", "kinds": ["chat"], "slots": 8, "abilities": []}]})
        else:
            running.add(words[2])
            threading.Thread(target=generate, args=(words[2], json.loads(data)), daemon=True).start()
