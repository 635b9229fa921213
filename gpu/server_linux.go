package gpu

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func serverProcesses(root string, at []netip.AddrPort) (map[int]bool, error) {
	net := filepath.Join(root, "proc", "net")
	sockets := map[string]bool{} // what the links to the listeners say
	var uid string
	for _, l := range slices.Concat(parseListeners(readText(net, "tcp")), parseListeners(readText(net, "tcp6"))) {
		if slices.ContainsFunc(at, l.serves) {
			sockets["socket:["+l.inode+"]"] = true
			uid = l.uid
		}
	}
	if len(sockets) == 0 {
		return nil, errors.New("nothing listens there in this network: it is on another machine, or in a container")
	}
	pids, err := readPIDs(root)
	if err != nil {
		return nil, err
	}
	found, parents := map[int]bool{}, map[int]int{}
	for _, pid := range pids {
		dir := filepath.Join(root, "proc", strconv.Itoa(pid))
		if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
			if parent, ok := parseParent(stat); ok {
				parents[pid] = parent
			}
		}
		if hasOpen(dir, sockets) {
			found[pid] = true
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the process is hidden: it is of user %s, which takes to run as that user or as root, or in a container", uid)
	}
	for pid := range found {
		if forwarder := readLine(filepath.Join(root, "proc", strconv.Itoa(pid)), "comm"); forwarders[forwarder] {
			return nil, fmt.Errorf("it is in a container, behind %s", forwarder)
		}
	}
	descendants(found, parents)
	return found, nil
}

// forwarders are programs that listen for a server in a container.
var forwarders = map[string]bool{"docker-proxy": true, "rootlessport": true, "slirp4netns": true, "pasta": true, "pasta.avx2": true}

// hasOpen reports whether a process has one of the files open, by what its links
// to them say.
func hasOpen(dir string, files map[string]bool) bool {
	fds, err := readNames(filepath.Join(dir, "fd"))
	if err != nil {
		return false // it has ended, or is another user's
	}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(dir, "fd", fd))
		if err == nil && strings.HasPrefix(to, "socket:") && files[to] {
			return true
		}
	}
	return false
}
