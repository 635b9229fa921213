package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

// A section is a table of the picture.
type section struct {
	head string   // cells, separated by tabs
	rows []string // likewise
	none string   // what is said where there are no rows
}

// lines draws the state for a screen: no line is longer than width, and there are no more
// than height of them. 0 is no bound.
func (s *topState) lines(width, height int) []string {
	sections := []section{s.nodeSection(), s.flowSection(), s.jobSection()}
	lines := []string{s.header()}
	room := make([]int, len(sections))
	for i := range sections {
		room[i] = max(1, len(sections[i].rows))
	}
	if height > 0 {
		room = share(height-len(lines)-2*len(sections), room) // a blank line and a head for each
	}
	for i := range sections {
		if room[i] > 0 {
			lines = append(append(lines, ""), sections[i].lines(room[i])...)
		}
	}
	if height > 0 {
		lines = lines[:min(len(lines), height)]
	}
	for i := range lines {
		lines[i] = fit(lines[i], width)
	}
	return lines
}

// share divides lines among those who want some, none of whom gets more than it wants.
// Those who want the least are served first.
func share(lines int, want []int) []int {
	got := make([]int, len(want))
	order := make([]int, len(want))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(want[a], want[b]) })
	for k, i := range order {
		got[i] = max(0, min(want[i], lines/(len(order)-k)))
		lines -= got[i]
	}
	return got
}

// lines returns the head and no more than room lines below it. What has no room is counted.
func (s *section) lines(room int) []string {
	rows, more := s.rows, 0
	if len(rows) > room {
		more = len(rows) - room + 1
		rows = rows[:room-1]
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, s.head)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush() // a Builder takes everything
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	switch {
	case len(s.rows) == 0:
		lines = append(lines, s.none)
	case more > 0:
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

// fit cuts a line that is too long, and shows that it did.
func fit(line string, width int) string {
	line = strings.TrimRight(line, " ")
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}

// header says how it is as a whole.
func (s *topState) header() string {
	waiting, running := unknown, unknown
	if s.flows.err == nil {
		n := 0
		for _, f := range s.flows.got {
			n += f.Waiting
		}
		waiting = strconv.Itoa(n)
	}
	if s.nodes.err == nil {
		running = strconv.Itoa(len(s.running()))
	}
	return fmt.Sprintf("%s  waiting %s  running %s  dead %s  leader %s  %s",
		s.now.Format(time.TimeOnly), waiting, running, told(s.dead, func(n uint64) string { return strconv.FormatUint(n, 10) }), told(s.leader, orDash), s.server)
}

// told shows an answer, and "?" where there is none.
func told[T any](a asked[T], show func(T) string) string {
	if a.err != nil {
		return unknown
	}
	return show(a.got)
}

// noneOf says why there are no rows.
func noneOf(err error, none string) string {
	if err != nil {
		return unknown + "  " + oneLine(err.Error())
	}
	return none
}

func (s *topState) nodeSection() section {
	t := section{head: "NODE\tSTATE\tVRAM\t\tUTIL\tSLOTS\tRESIDENT", none: noneOf(s.nodes.err, "no node answers")}
	for i := range s.nodes.got {
		n := &s.nodes.got[i]
		t.rows = append(t.rows, strings.Join([]string{
			n.Node, nodeState(n), vramBar(n.Devices), vram(n.Devices), busiest(n.Devices), slots(n.Backends), resident(n.Backends),
		}, "\t"))
	}
	return t
}

// vramBar shows how much of the devices' memory is used. Where that is not known of each,
// there is no bar.
func vramBar(devices []schemas.Device) string {
	var used, total schemas.Bytes
	for i := range devices {
		d := &devices[i]
		if !d.Used.Known || !d.Total.Known {
			return "-"
		}
		used += d.Used.Bytes
		total += d.Total.Bytes
	}
	if total == 0 {
		return "-"
	}
	return meter(int(used/schemas.MiB), int(total/schemas.MiB))
}

func (s *topState) flowSection() section {
	t := section{head: "CLASS\tMODEL\tTENANT\tWAITING\tRUNNING\tOLDEST\tBLOCKED BY", none: noneOf(s.flows.err, "nothing waits or runs")}
	for i := range s.flows.got {
		f := &s.flows.got[i]
		oldest := "-"
		if f.OldestMS > 0 {
			oldest = ago(time.Duration(f.OldestMS) * time.Millisecond)
		}
		blocked := cmp.Or(oneLine(f.Reason), "-")
		t.rows = append(t.rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%s\t%s", f.Class, f.Model, f.tenant, f.Waiting, f.Running, oldest, blocked))
	}
	return t
}

// A topJob is a job that a node runs.
type topJob struct {
	schemas.RunningJob
	node  string
	began time.Time
}

// running lists the jobs that run: those that the queue took first at the top, and at the
// bottom those of which that is not known.
func (s *topState) running() (all []topJob) {
	for i := range s.nodes.got {
		n := &s.nodes.got[i]
		for _, j := range n.Running {
			all = append(all, topJob{j, n.Node, s.began[j.Tenant+" "+j.Job]})
		}
	}
	slices.SortStableFunc(all, func(a, b topJob) int {
		if a.began.IsZero() != b.began.IsZero() {
			return b.began.Compare(a.began)
		}
		return cmp.Or(a.began.Compare(b.began), cmp.Compare(a.Job, b.Job))
	})
	return all
}

func (s *topState) jobSection() section {
	t := section{head: "JOB\tTENANT\tMODEL\tWHERE\tATTEMPT\tTAKEN", none: noneOf(s.nodes.err, "no job runs")}
	for _, j := range s.running() {
		t.rows = append(t.rows, fmt.Sprintf("%s\t%s\t%s\t%s/%s\t%d\t%s", j.Job, j.Tenant, j.Model, j.node, j.Backend, j.Attempt, s.since(j.began)))
	}
	return t
}

// since says how long ago something was.
func (s *topState) since(t time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return ago(s.now.Sub(t))
}
