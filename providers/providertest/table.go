package providertest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// An Ability is a column of the table of what was proven.
type Ability string

// The abilities, in the table's order.
const (
	Discovery  Ability = "discovery"
	Chat       Ability = "chat"
	Completion Ability = "completion"
	Embeddings Ability = "embeddings"
	Tools      Ability = "tools"
	Vision     Ability = "vision"
	Reasoning  Ability = "reasoning"
	Schema     Ability = "schema"
	Memory     Ability = "memory"
	Load       Ability = "load"
	Unload     Ability = "unload"
	Pressure   Ability = "pressure"
	Events     Ability = "events"
	Priority   Ability = "priority"
	Errors     Ability = "errors"
	Cancel     Ability = "cancel"
	Faults     Ability = "faults"
)

var columns = []Ability{Discovery, Chat, Completion, Embeddings, Tools, Vision, Reasoning, Schema, Memory, Load, Unload, Pressure, Events, Priority, Errors, Cancel, Faults}

// A Source is what an ability was proven by.
type Source string

// The sources, from the best on.
const (
	Real     Source = "R" // a real server
	Recorded Source = "T" // what a real server was recorded to say: a trace
	Scripted Source = "S" // a server of the test's own, by the shapes that the vendor documents
)

// Proofs collects what tests proved. The zero Proofs is ready. Its methods may be
// called concurrently.
type Proofs struct {
	// Row reports whether that row of the table is proven by these tests, where it is
	// not by those of another package. nil: all are.
	Row func(kind string) bool

	mu    sync.Mutex // guards found
	found map[cell]bool
}

type cell struct {
	kind    string
	ability Ability
	source  Source
}

// Add notes that an ability of a kind was proven.
func (p *Proofs) Add(kind string, ability Ability, source Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		p.found = map[cell]bool{}
	}
	p.found[cell{kind, ability, source}] = true
}

// The table stands in its file between these lines.
const (
	tableBegin = "<!-- table of proofs: made by the tests, see -update -->"
	tableEnd   = "<!-- end of the table -->"
)

// Check compares the table in a Markdown file with what was proven, as far as it
// is of those sources and of the rows that are proven here: it must claim all of that and no more. With update it
// writes the table instead.
func (p *Proofs) Check(file string, update bool, sources ...Source) error { //nolint:revive // update is a flag of the tests, passed through
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no table of proofs", file)
	}
	claimed := readTable(table)
	mine := func(c cell) bool { return slices.Contains(sources, c.source) && (p.Row == nil || p.Row(c.kind)) }
	p.mu.Lock()
	defer p.mu.Unlock()
	want := map[cell]bool{}
	for c := range claimed {
		if !mine(c) {
			want[c] = true // somebody else's to prove
		}
	}
	for c := range p.found {
		if mine(c) {
			want[c] = true
		}
	}
	if maps.Equal(want, claimed) {
		return nil
	}
	if update {
		return os.WriteFile(file, []byte(before+tableBegin+"\n"+writeTable(want)+tableEnd+after), 0o600)
	}
	var wrong []string
	for c := range claimed {
		if !want[c] {
			wrong = append(wrong, fmt.Sprintf("%s of %s is claimed and was not proven (%s)", c.ability, c.kind, c.source))
		}
	}
	for c := range want {
		if !claimed[c] {
			wrong = append(wrong, fmt.Sprintf("%s of %s was proven and is not claimed (%s)", c.ability, c.kind, c.source))
		}
	}
	slices.Sort(wrong)
	return fmt.Errorf("the table in %s is not what was proven; run its tests with -update:\n%s", file, strings.Join(wrong, "\n"))
}

func readTable(text string) map[cell]bool {
	claimed := map[cell]bool{}
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		kind := strings.Trim(strings.TrimSpace(fields[0]), "`")
		if len(fields) != len(columns)+1 || kind == "" || kind == "kind" || strings.HasPrefix(kind, "-") {
			continue
		}
		for i, f := range fields[1:] {
			for s := range strings.FieldsSeq(f) {
				claimed[cell{kind, columns[i], Source(s)}] = true
			}
		}
	}
	return claimed
}

func writeTable(cells map[cell]bool) string {
	kinds := map[string]bool{}
	for c := range cells {
		kinds[c.kind] = true
	}
	var b strings.Builder
	b.WriteString("| kind |")
	for _, a := range columns {
		fmt.Fprintf(&b, " %s |", a)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&b, "| `%s` |", kind)
		for _, a := range columns {
			for _, s := range []Source{Real, Recorded, Scripted} {
				if cells[cell{kind, a, s}] {
					b.WriteString(" " + string(s))
				}
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}
