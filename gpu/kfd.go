package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// kfdProcesses returns the processes that compute on a card at a place on the
// bus, as AMD's compute driver shows them to everybody; nil where it's not there
// or doesn't know the card. It is a file to read for each such process, and of
// those there are few.
func (s amdSource) kfdProcesses(slot string) []Process {
	kfd := filepath.Join(s.root, "sys", "class", "kfd", "kfd")
	id, asked := s.kfdIDs[slot]
	if !asked {
		id = kfdID(kfd, slot)
		s.kfdIDs[slot] = id
	}
	dirs, err := os.ReadDir(filepath.Join(kfd, "proc"))
	if id == "" || err != nil {
		return nil
	}
	all := []Process{}
	for _, e := range dirs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 0 {
			continue
		}
		held := amount(filepath.Join(kfd, "proc", e.Name()), "vram_"+id)
		if held.Known && held.Bytes > 0 { // a process has a file for each card
			all = append(all, Process{PID: pid, Bytes: held})
		}
	}
	return mergeProcesses(all)
}

// kfdID returns the number that the compute driver has for the card, "" for none.
func kfdID(kfd, slot string) string {
	nodes, _ := filepath.Glob(filepath.Join(kfd, "topology", "nodes", "*")) // the pattern is good
	for _, node := range nodes {
		if slot != "" && kfdSlot(readText(node, "properties")) == slot {
			return readLine(node, "gpu_id")
		}
	}
	return ""
}

// kfdSlot returns the place on the bus that a node's properties tell, "" for
// none: a processor is a node as well, at 0.
func kfdSlot(properties string) string {
	var location, domain uint64
	for line := range strings.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			continue
		}
		switch key {
		case "location_id":
			location = n
		case "domain":
			domain = n
		}
	}
	if location == 0 {
		return ""
	}
	return fmt.Sprintf("%04x:%02x:%02x.%d", domain, location>>8&0xff, location>>3&0x1f, location&7)
}
