//go:build !linux

package gpu

import "net/netip"

func serverProcesses(string, []netip.AddrPort) (map[int]bool, error) {
	return nil, errUnsupported
}
