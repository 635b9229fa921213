package gpu

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 4242 1 0000000000000000 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4343 1 0000000000000000 100 0 0 10 0
   2: 0100007F:2CAA 0100007F:D431 01 00000000:00000000 00:00000000 00000000   998        0 4444 1 0000000000000000 20 4 30 10 -1
   3: 05020A0A:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4545 1 0000000000000000 100 0 0 10 0
`

const tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:2CAB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5000 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:2CAC 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5001 1 0000000000000000 100 0 0 10 0
`

func TestListeners(t *testing.T) {
	all := slices.Concat(parseListeners(tcpTable), parseListeners(tcp6Table))
	for addr, want := range map[string]string{
		"127.0.0.1:11434":  "4242",
		"localhost:11434":  "4242",
		"127.0.0.2:11434":  "",
		"[::1]:11434":      "",
		"127.0.0.1:8080":   "4343",
		"10.10.2.5:8080":   "", // it may be another machine's
		"10.10.2.5:8081":   "4545",
		"127.0.0.1:8081":   "",
		"0.0.0.0:8081":     "4545",
		"[::1]:8080":       "",
		"127.0.0.1:11435":  "5000", // it listens on all addresses of both kinds
		"localhost:11436":  "5001",
		"127.0.0.1:11436":  "",
		"[::1]:11436":      "5001",
		"localhost:54321":  "",
		"[fe80::1%eth0]:1": "",
	} {
		at, err := parseServer(addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		var got []string
		for _, l := range all {
			if slices.ContainsFunc(at, l.serves) {
				got = append(got, l.inode)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is served by %v, want %s", addr, got, want)
		}
	}
	for _, addr := range []string{"", "localhost", "localhost:0", "localhost:x", "gpu-1:80", "localhost:99999"} {
		if at, err := parseServer(addr); err == nil {
			t.Errorf("%q reads as %v", addr, at)
		}
	}
}

func TestParseParent(t *testing.T) {
	for stat, want := range map[string]int{
		"12 (ollama) S 7 12 12 0": 7, "12 (a) b) S 1 2) R 9 1": 9, "1 (init) S 0 1": 0, "": -1, "12 (x": -1, "12 (x) S": -1, "12 (x) S -5 1": -1,
	} {
		got, ok := parseParent([]byte(stat))
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q reads as %d, want %d", stat, got, want)
		}
	}
}

func TestDescendants(t *testing.T) {
	found := map[int]bool{10: true}
	descendants(found, map[int]int{1: 0, 10: 1, 11: 10, 12: 11, 13: 1, 14: 12, 20: 20, 10000: 9999})
	for pid := range 10001 {
		if want := pid == 10 || pid == 11 || pid == 12 || pid == 14; found[pid] != want {
			t.Errorf("%d is found: %t", pid, found[pid])
		}
	}
	descendants(map[int]bool{1: true}, map[int]int{1: 2, 2: 1}) // it ends
}

func FuzzParseListeners(f *testing.F) {
	f.Add(tcpTable)
	f.Add(tcp6Table)
	f.Fuzz(func(t *testing.T, table string) {
		for _, l := range parseListeners(table) {
			if _, err := strconv.ParseUint(l.inode, 10, 64); err != nil || !l.at.Addr().IsValid() {
				t.Fatalf("%q reads as %+v", table, l)
			}
			l.serves(netip.MustParseAddrPort("127.0.0.1:80"))
		}
	})
}

func FuzzParseParent(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 2) R 9 1"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if parent, ok := parseParent(stat); parent < 0 || !ok && parent != 0 {
			t.Fatalf("%q reads as %d", stat, parent)
		}
	})
}
