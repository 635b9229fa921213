package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

// busy is a state with some of everything.
func busyState() *topState {
	flow := func(tenant string, class schemas.Class, model string, waiting, running int) topFlow {
		return topFlow{tenant: tenant, FlowInfo: schemas.FlowInfo{Class: class, Model: model, Waiting: waiting, Running: running}}
	}
	s := &topState{
		now: noon, server: "nats://n1:4222", leader: asked1("d1"), dead: asked1(uint64(12)), nodes: asked1(zoo(noon)),
		flows: asked1([]topFlow{
			flow("acme", schemas.Interactive, "llama3.3:70b", 3, 1), flow("default", schemas.Normal, "qwen3:14b", 12, 1),
			flow("default", schemas.Batch, "nomic-embed-text", 1200, 0), flow("acme", schemas.Batch, "gpt-5-mini", 0, 2),
		}),
		began: map[string]time.Time{"acme j1": noon.Add(-90 * time.Second)},
	}
	s.flows.got[0].OldestMS, s.flows.got[0].Reason = 9000, "all 4 slots of llama3.3:70b are busy, and jobs go first: 2 of its own"
	s.flows.got[1].OldestMS, s.flows.got[1].Reason = 240_000, "qwen3:14b is being loaded"
	s.flows.got[2].Paused, s.flows.got[2].OldestMS, s.flows.got[2].Reason = true, 7_200_000, "class batch is paused by ana@desk"
	s.nodes.got[1].Running[0].Tenant, s.nodes.got[1].Running[0].Attempt = "acme", 2
	s.nodes.got[1].Running[1].Tenant, s.nodes.got[1].Running[1].Attempt = "default", 1
	return s
}

// TestTopLines: the pictures, on a large screen, on smaller ones and on none.
func TestTopLines(t *testing.T) {
	for _, size := range []struct{ width, height int }{{0, 0}, {110, 40}, {80, 16}, {50, 10}} {
		golden(t, fmt.Sprintf("top-%dx%d.out", size.width, size.height), strings.Join(busyState().lines(size.width, size.height), "\n")+"\n")
	}
	idle := &topState{now: noon, server: "nats://n1:4222", leader: asked1("")}
	golden(t, "top-idle.out", strings.Join(idle.lines(80, 24), "\n")+"\n")
	no := errors.New("this user may not\nask")
	idle.leader.err, idle.dead.err, idle.nodes.err, idle.flows.err = no, no, no, no
	golden(t, "top-unknown.out", strings.Join(idle.lines(80, 24), "\n")+"\n")
}

// TestTopFits: whatever the size of a screen, the picture is no larger.
func TestTopFits(t *testing.T) {
	s := busyState()
	for range 5 {
		s.flows.got = append(s.flows.got, s.flows.got...)
	}
	for width := 1; width < 150; width += 7 {
		for height := 1; height < 60; height++ {
			lines := s.lines(width, height)
			if len(lines) > height {
				t.Errorf("%d lines on %d", len(lines), height)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > width {
					t.Errorf("%q is longer than %d", l, width)
				}
			}
			if height > 30 && len(lines) < height-1 {
				t.Errorf("%d of %d lines are not used", height-len(lines), height)
			}
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		lines      int
		want, gets []int
	}{
		{10, []int{2, 3, 4}, []int{2, 3, 4}},
		{10, []int{2, 30, 40}, []int{2, 4, 4}},
		{11, []int{50, 1, 40}, []int{5, 1, 5}},
		{2, []int{5, 5, 5}, []int{0, 1, 1}},
		{0, []int{5, 5, 5}, []int{0, 0, 0}},
		{-3, []int{5}, []int{0}},
	} {
		if got := share(c.lines, c.want); !slices.Equal(got, c.gets) {
			t.Errorf("%d among %v: %v, want %v", c.lines, c.want, got, c.gets)
		}
	}
}

// TestTop: where nobody looks, one picture is printed, of what real parts say.
func TestTop(t *testing.T) {
	s := newSite(t)
	if stdout, _ := s.want(t, exitOK, "top", "--wait", "50ms"); !strings.Contains(stdout, "no node answers") || !strings.Contains(stdout, "waiting ?  running 0  dead 0") {
		t.Errorf("an empty site: %s", stdout)
	}
	s.lead(t, "d1")
	node := healthy("gpu-1")
	node.Backends[0].Models[0].Slots = 1
	node.Backends[0].Models[0].Kinds = []schemas.Kind{schemas.Chat}
	node.Backends[0].Models[0].Busy = 1
	node.Running = []schemas.RunningJob{{Job: "j0", Tenant: "acme", Model: "m", Backend: "ollama", Attempt: 1}}
	seq := uint64(0)
	s.staff(t, func() []schemas.NodeState {
		seq++
		node.Seq, node.At = seq, time.Now()
		return []schemas.NodeState{node}
	})
	for _, subject := range []string{"vj.v1.jobs.acme.normal.m", "vj.v1.jobs.acme.normal.m", "vj.v1.jobs.beta.batch.m"} {
		if _, err := s.js.Publish(s.ctx, subject, []byte("hi")); err != nil {
			t.Fatal(err)
		}
	}
	for {
		stdout, _ := s.want(t, exitOK, "top", "--wait", "50ms")
		missing := ""
		for _, want := range []string{
			"waiting 3  running 1  dead 0  leader d1  nats://", "gpu-1  ready", "normal  m      acme    2        0", "batch   m      beta    1        0", "all 1 slots of m are busy", "j0   acme    m      gpu-1/ollama  1",
		} {
			if !strings.Contains(stdout, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-s.ctx.Done():
			t.Fatalf("%q is not in\n%s", missing, stdout)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
