package gpu

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestServerProcesses starts a server with a child, which say their numbers and
// end with their input.
func TestServerProcesses(t *testing.T) {
	switch os.Getenv("VRAMJET_TEST_SERVER") {
	case "server":
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("SERVER %s %d\n", l.Addr(), os.Getpid())
		child := again(t.Context(), "child")
		child.Stdin, child.Stdout = os.Stdin, os.Stdout
		if err := child.Run(); err != nil {
			t.Fatal(err)
		}
		l.Close()
		return
	case "child":
		fmt.Printf("CHILD - %d\n", os.Getpid())
		bufio.NewReader(os.Stdin).ReadByte() // until it's closed
		return
	}
	server := again(t.Context(), "server")
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var addr string
	want := map[int]bool{}
	for lines := bufio.NewScanner(out); len(want) < 2 && lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[0] != "SERVER" && f[0] != "CHILD" {
			continue
		}
		pid, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		want[pid] = true
		if f[0] == "SERVER" {
			addr = f[1]
		}
	}
	got, err := ServerProcesses(addr)
	if err != nil || len(want) != 2 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	in.Close()
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	if got, err := ServerProcesses(addr); err == nil || got == nil || len(got) != 0 || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("after its end: %v, %v", got, err)
	}
}

func again(ctx context.Context, as string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestServerProcesses$")
	cmd.Env = append(os.Environ(), "VRAMJET_TEST_SERVER="+as)
	return cmd
}

func TestServerProcessesThatCannotBeSeen(t *testing.T) {
	at, err := parseServer("127.0.0.1:11434")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"proc/net/tcp": tcpTable, "proc/1/stat": "1 (init) S 0", "proc/50/stat": "50 (docker-proxy) S 1", "proc/50/comm": "docker-proxy"}
	root := writeTree(t, files)
	if got, err := serverProcesses(root, at); err == nil || !strings.Contains(err.Error(), "hidden: it is of user 998") {
		t.Errorf("got %v, %v", got, err)
	}
	link(t, root, "proc/50/fd/4", "socket:[4242]")
	if got, err := serverProcesses(root, at); err == nil || !strings.Contains(err.Error(), "behind docker-proxy") {
		t.Errorf("got %v, %v", got, err)
	}
	files["proc/50/comm"] = "ollama"
	root = writeTree(t, files)
	link(t, root, "proc/50/fd/4", "socket:[4242]")
	if got, err := serverProcesses(root, at); err != nil || len(got) != 1 || !got[50] {
		t.Errorf("got %v, %v", got, err)
	}
	for _, elsewhere := range []string{"gpu-1.example.org:80", "nonsense"} {
		if got, err := ServerProcesses(elsewhere); err == nil || got == nil || len(got) != 0 {
			t.Errorf("%s: %v, %v", elsewhere, got, err)
		}
	}
}

func BenchmarkServerProcesses(b *testing.B) {
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for b.Loop() {
		if _, err := ServerProcesses(l.Addr().String()); err != nil {
			b.Fatal(err)
		}
	}
	pids, _ := readPIDs("/")
	b.ReportMetric(float64(len(pids)), "processes")
}
