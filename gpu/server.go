package gpu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ServerProcesses returns the processes of the server that listens on an address
// of this machine, a host and a port: those that have its socket open, and all
// that these have started. So Device.Processes can be told apart into a model
// server's, whose models run in its children, and others.
//
// It goes through the sockets and the processes once. That takes some 10 ms where
// there are a hundred of each, most of it the kernel's to list the sockets: too
// much for each reading of devices, and nothing for once in a few seconds.
//
// It's an error, beside an empty map, where the server is on another machine or in
// a container, or runs as a user whose processes are not ours to see, and says
// which; and on systems other than Linux.
func ServerProcesses(addr string) (map[int]bool, error) {
	at, err := parseServer(addr)
	if err != nil {
		return map[int]bool{}, fmt.Errorf("server at %s: %w", addr, err)
	}
	found, err := serverProcesses("/", at)
	if err != nil {
		return map[int]bool{}, fmt.Errorf("server at %s: %w", addr, err)
	}
	return found, nil
}

// parseServer reads an address. A name other than localhost may be any machine's.
func parseServer(addr string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.New("want a host and a port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%.20q is no port", port)
	}
	if strings.EqualFold(host, "localhost") {
		return []netip.AddrPort{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)),
			netip.AddrPortFrom(netip.IPv6Loopback(), uint16(n)),
		}, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, errors.New("it may be another machine: give it by number")
	}
	return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(n))}, nil
}

// A listener is a socket that listens.
type listener struct {
	at    netip.AddrPort
	inode string
	uid   string
}

// serves reports whether who connects to an address reaches the listener. One that
// listens on all addresses is only known to be reached by those of this machine
// that every machine has.
func (l listener) serves(at netip.AddrPort) bool {
	if l.at.Port() != at.Port() {
		return false
	}
	ours := at.Addr().IsLoopback() || at.Addr().IsUnspecified()
	all := l.at.Addr().IsUnspecified() && (l.at.Addr().Is6() || at.Addr().Is4())
	return l.at.Addr() == at.Addr() || ours && all || at.Addr().IsUnspecified()
}

// parseListeners reads /proc/net/tcp or tcp6. A line that isn't as the kernel
// writes it is passed over.
func parseListeners(table string) []listener {
	const listening = "0A"
	var all []listener
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != listening {
			continue
		}
		at, ok := parseSocketAddr(f[1])
		if _, err := strconv.ParseUint(f[9], 10, 64); ok && err == nil && f[9] != "0" {
			all = append(all, listener{at: at, inode: f[9], uid: f[7]})
		}
	}
	return all
}

// parseSocketAddr reads "0100007F:1F90": words of the address as numbers of this
// processor's, and the port.
func parseSocketAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	words, hexErr := hex.DecodeString(host)
	if err != nil || hexErr != nil || len(words)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	ip, ok := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok
}

// parseParent reads the parent's number in /proc/<pid>/stat, where the process's
// name stands in brackets and may have any byte in it.
func parseParent(stat []byte) (int, bool) {
	i := bytes.LastIndexByte(stat, ')')
	f := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(f) < 2 {
		return 0, false
	}
	parent, err := strconv.ParseUint(f[1], 10, 31)
	if err != nil {
		return 0, false
	}
	return int(parent), true
}

// descendants adds to found all that its processes have started.
func descendants(found map[int]bool, parents map[int]int) {
	children := map[int][]int{}
	for pid, parent := range parents {
		children[parent] = append(children[parent], pid)
	}
	var todo []int
	for pid := range found {
		todo = append(todo, pid)
	}
	for len(todo) > 0 {
		last := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, child := range children[last] {
			if !found[child] {
				found[child] = true
				todo = append(todo, child)
			}
		}
	}
}
