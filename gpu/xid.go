package gpu

import (
	"cmp"
	"fmt"
)

// harmlessXIDs are errors of programs, which leave the board as it was: the ones
// that NVIDIA's device plugin for Kubernetes passes over, too.
var harmlessXIDs = map[uint64]bool{
	13:  true, // graphics engine exception
	31:  true, // memory page fault
	43:  true, // the program was stopped
	45:  true, // a program's work was thrown away
	68:  true, // video processor exception
	109: true, // context switch timed out
}

// xidMeanings says what the more frequent of the others mean, after NVIDIA's
// table of them.
var xidMeanings = map[uint64]string{
	32:  "corrupted push buffer stream",
	38:  "driver firmware error",
	46:  "the GPU stopped processing",
	48:  "double bit ECC error",
	56:  "display engine error",
	57:  "error programming the video memory interface",
	61:  "internal micro-controller breakpoint",
	62:  "internal micro-controller halt",
	63:  "memory rows were remapped",
	64:  "memory rows could not be remapped",
	69:  "graphics engine class error",
	74:  "NVLink error",
	79:  "the GPU has fallen off the bus",
	92:  "high rate of single bit ECC errors",
	94:  "contained memory error",
	95:  "uncontained memory error",
	110: "security fault",
	119: "the GPU's system processor does not answer",
	120: "error of the GPU's system processor",
	140: "unrecovered ECC error",
	143: "the GPU could not be initialized",
}

// xidText returns what a critical error is called, "" for one that isn't.
func xidText(xid uint64) string {
	if harmlessXIDs[xid] {
		return ""
	}
	return fmt.Sprintf("XID %d: %s", xid, cmp.Or(xidMeanings[xid], "critical error"))
}

// faults are the critical errors that boards and slices have had: the first of
// each. They stay for as long as the source does, since NVML says when a board
// breaks and not when it has been mended, which takes a reset, and that takes
// that nobody has it open.
type faults map[fault]string

// fault is where an error was: on a GPU instance of a board, or on wholeBoard;
// board "" is each of them.
type fault struct {
	board    string
	instance uint32
}

// add notes an error that an event tells of.
func (f faults) add(e nvmlEvent) {
	where := fault{e.board, e.instance}
	if text := xidText(e.xid); text != "" && f[where] == "" {
		f[where] = text
	}
}

// mark writes the errors into the devices of boards that have had them.
func (f faults) mark(boards []*nvmlBoard, all []Device) {
	if len(f) == 0 {
		return
	}
	at := map[string]fault{} // by a device's id
	for _, b := range boards {
		if b == nil {
			continue
		}
		at[b.uuid] = fault{b.uuid, wholeBoard}
		for _, p := range b.slices {
			at[p.uuid] = fault{b.uuid, p.place.gpu}
		}
	}
	for i := range all {
		d := &all[i].Device
		where := at[d.ID]
		of := fault{where.board, wholeBoard}
		if text := cmp.Or(f[where], f[of], f[fault{"", wholeBoard}]); text != "" {
			d.Error = text
		}
	}
}
