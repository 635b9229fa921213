package gpu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// scanEvery is how often it's looked through what all processes have open. That
// takes about 3 µs for each open file, so that at each reading it would cost a busy
// machine several percent of a processor.
const scanEvery = 5 * time.Second

// A drmScan finds the processes that have a graphics card open, and what they
// hold of its memory, by what the kernel says of their open files. It sees those
// of its own user, and of all users where it runs as root.
type drmScan struct {
	root string // "/", or a tree like it
	last drmClients
	at   time.Time
}

// drmClients are what was found, by the cards' places on the bus.
type drmClients struct {
	holders map[string][]drmHolder
	all     bool // nothing was hidden
}

// A drmHolder is a process, and what it holds.
type drmHolder struct {
	pid int
	drmMemory
}

// drmMemory is what is held of a card's memory, and of the machine's for it.
type drmMemory struct{ card, gtt schemas.Amount }

// on returns the processes on a card and what of counts for it of what they hold;
// nil where there seem to be none, and some were hidden.
func (c drmClients) on(slot string, of func(drmMemory) schemas.Amount) []Process {
	var all []Process
	if c.all {
		all = []Process{}
	}
	for _, h := range c.holders[slot] {
		all = append(all, Process{PID: h.pid, Bytes: of(h.drmMemory)})
	}
	return all
}

func cardMemory(m drmMemory) schemas.Amount { return m.card }

// chipMemory is for a chip in a processor, whose memory is both.
func chipMemory(m drmMemory) schemas.Amount { return sum(m.card, m.gtt) }

// look looks again where the last time is long ago.
func (s *drmScan) look(now time.Time) drmClients {
	if s.last.holders == nil || now.Sub(s.at) >= scanEvery {
		s.last, s.at = scanDRM(s.root), now
	}
	return s.last
}

// firstNamespace is that of the processes' numbers which hides none.
const firstNamespace = "pid:[4026531836]"

func scanDRM(root string) drmClients {
	found := drmClients{holders: map[string][]drmHolder{}}
	pids, err := readPIDs(root)
	if err != nil {
		return found
	}
	space, _ := os.Readlink(filepath.Join(root, "proc", "self", "ns", "pid")) // "": not known to be the first
	found.all = space == firstNamespace
	for _, pid := range pids {
		held, ok := drmHeld(filepath.Join(root, "proc", strconv.Itoa(pid)))
		found.all = found.all && ok
		for slot, m := range held {
			found.holders[slot] = append(found.holders[slot], drmHolder{pid, m})
		}
	}
	return found
}

// drmHeld returns what a process holds of each card; false where that's hidden. A
// process that has just ended holds nothing.
func drmHeld(dir string) (map[string]drmMemory, bool) {
	fds, err := readNames(filepath.Join(dir, "fd"))
	if err != nil {
		return nil, !errors.Is(err, fs.ErrPermission)
	}
	var held map[string]drmMemory
	seen := map[string]bool{} // clients: a file may be open twice
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(dir, "fd", fd))
		if err != nil || !strings.HasPrefix(to, "/dev/dri/") {
			continue
		}
		c := parseFdinfo(readText(filepath.Join(dir, "fdinfo"), fd))
		key := c.slot + " " + c.id
		if c.slot == "" || seen[key] {
			continue
		}
		seen[key] = true
		if held == nil {
			held = map[string]drmMemory{}
		}
		before := held[c.slot]
		held[c.slot] = drmMemory{sum(before.card, c.card), sum(before.gtt, c.gtt)}
	}
	return held, true
}

// sum adds what is known.
func sum(a, b schemas.Amount) schemas.Amount {
	return schemas.Amount{Bytes: a.Bytes + b.Bytes, Known: a.Known || b.Known}
}

// A drmClient is an open card.
type drmClient struct {
	slot string // the card's place on the bus; "": the file is no card
	id   string
	drmMemory
}

// parseFdinfo reads what the kernel says of an open file. A card's memory is what
// drivers call vram, vram0 and so on, or local0; what is in it now counts, or else
// what was asked for. Processors' graphics hold memory of the machine, the gtt.
func parseFdinfo(text string) drmClient {
	var c drmClient
	told := map[string]schemas.Amount{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "drm-pdev":
			c.slot = value
		case "drm-client-id":
			c.id = value
		default:
			how, where, ok := memoryKey(key)
			n, sized := parseDRMSize(value)
			if ok && sized {
				told[how+where] = sum(told[how+where], schemas.Known(n))
			}
		}
	}
	best := func(where string) schemas.Amount {
		for _, how := range []string{"resident", "memory"} {
			if n := told[how+where]; n.Known {
				return n
			}
		}
		return told["total"+where]
	}
	c.card, c.gtt = best("card"), best("gtt")
	return c
}

// memoryKey says of a key like drm-resident-vram0 which figure it is, of the
// card's memory or the gtt.
func memoryKey(key string) (how, where string, ok bool) {
	rest, ok := strings.CutPrefix(key, "drm-")
	how, region, found := strings.Cut(rest, "-")
	if !ok || !found || how != "resident" && how != "memory" && how != "total" {
		return "", "", false
	}
	switch {
	case strings.HasPrefix(region, "vram"), strings.HasPrefix(region, "local"):
		return how, "card", true
	case region == "gtt":
		return how, "gtt", true
	default:
		return "", "", false
	}
}

// parseDRMSize reads "12 KiB", "12 MiB" or bytes without a unit.
func parseDRMSize(value string) (schemas.Bytes, bool) {
	digits, unit, _ := strings.Cut(value, " ")
	scale, bits := schemas.Bytes(1), 60
	switch strings.TrimSpace(unit) {
	case "":
	case "KiB":
		scale, bits = schemas.KiB, 50
	case "MiB":
		scale, bits = schemas.MiB, 40
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, bits)
	return schemas.Bytes(n) * scale, err == nil
}

// joinProcesses joins what two sources tell; nil where neither does.
func joinProcesses(a, b []Process) []Process {
	if a == nil && b == nil {
		return nil
	}
	return mergeProcesses(append(append([]Process{}, a...), b...))
}

// readPIDs returns the numbers of all processes, as the kernel lists them.
func readPIDs(root string) ([]int, error) {
	names, err := readNames(filepath.Join(root, "proc"))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			all = append(all, pid)
		}
	}
	return all, nil
}

// readNames returns the names in a directory, without asking what each is.
func readNames(path string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}
