package worker

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A moody provider is the simulated server's, and says more of how that is.
type moody struct {
	*providers.Sim
	waiting atomic.Int64
	running atomic.Int64
	used    atomic.Bool // by others, as the server says when it is told to unload
	broken  atomic.Bool
	tell    chan struct{} // that something changed
}

// Unload implements providers.Loader.
func (p *moody) Unload(ctx context.Context, model string) error {
	if p.used.Load() {
		return schemas.Errorf(schemas.Overloaded, "sim: %q runs 1 requests", model)
	}
	return p.Sim.Unload(ctx, model)
}

// Watch implements providers.Watcher.
func (p *moody) Watch(ctx context.Context, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.tell:
			changed()
		}
	}
}

// Pressure implements providers.PressureReporter.
func (p *moody) Pressure(context.Context, string) (providers.Pressure, error) {
	return providers.Pressure{Running: int(p.running.Load()), Waiting: int(p.waiting.Load())}, nil
}

// Open implements providers.Breaker.
func (p *moody) Open() error {
	if !p.broken.Load() {
		return nil
	}
	e := schemas.Errorf(schemas.RateLimited, "sim: not asked for a while")
	e.RetryAfter = 10 * time.Millisecond
	return e
}

func newMoodyRig(t *testing.T, change func(*pace)) (*rig, *moody) {
	t.Helper()
	p := &moody{tell: make(chan struct{})}
	r := newRig(t, func(c *Config, pc *pace) {
		change(pc)
		sim, ok := c.Backends[0].Provider.(*providers.Sim)
		if !ok {
			t.Fatal("the rig's provider is another")
		}
		p.Sim = sim
		c.Backends[0].Provider = p
	})
	return r, p
}

// While requests wait at the server itself, as others use it too, the node takes
// no more for that model; but for one, where it runs none, as there are servers that
// count only while they work.
func TestServerWithQueue(t *testing.T) {
	r, p := newMoodyRig(t, func(*pace) {})
	const short = `{"messages":[{"role":"user","content":"hello"}],"max_tokens":200}`
	r.submit("j0", "slow", short).run().next(schemas.EventAccepted)
	p.waiting.Store(3)
	r.busy("slow", 2)
	j := r.submit("j1", "slow", short)
	msg := j.fetch()
	if reason := j.refused(msg); !strings.Contains(reason, "slots") {
		t.Errorf("refused, as %s", reason)
	}
	p.waiting.Store(0)
	r.busy("slow", 1)
	j.accept(msg)
}

func TestServerWithStaleQueue(t *testing.T) {
	r, p := newMoodyRig(t, func(*pace) {})
	r.submit("j0", "quick", chat).run().ended(1, schemas.StatusOK)
	p.waiting.Store(15)
	p.running.Store(106)
	r.busy("quick", 1)
	r.submit("j1", "quick", chat).run().ended(1, schemas.StatusOK)
}

// A model that runs requests of others makes no room: it counts as busy, and where
// that is found out late, the job that wanted the room waits.
func TestModelThatOthersUse(t *testing.T) {
	r, p := newMoodyRig(t, func(*pace) {})
	r.submit("j0", "quick", chat).run().ended(1, schemas.StatusOK)
	p.running.Store(1)
	r.busy("quick", 1)
	j := r.submit("j1", "slow", chat)
	msg := j.fetch()
	if answer, _ := j.offer(msg, "quick"); answer.Accepted || !strings.Contains(answer.Reason, "not idle") {
		t.Errorf("%+v", answer)
	}
	p.running.Store(0)
	r.busy("quick", 0)
	p.used.Store(true)
	j.claim(j.accept(msg, "quick"), msg.Reply(), broker.AckWait)
	for d := wait(t, r.dones); ; d = wait(t, r.dones) {
		if d.Job != "j1" {
			continue // the first one's
		}
		if d.Code != schemas.ModelLoading || d.RetryMS < 2000 {
			t.Errorf("done %+v", d)
		}
		break
	}
	r.busy("quick", 1) // for a while
}

// A backend whose breaker is open is unhealthy, with the reason for people, until
// it is worth another try.
func TestOpenBreaker(t *testing.T) {
	r, p := newMoodyRig(t, func(*pace) {})
	p.broken.Store(true)
	s := r.await(func(s *schemas.NodeState) bool { return !s.Backends[0].Healthy })
	if got := s.Backends[0].Error; !strings.Contains(got, "not asked") || len(s.Backends[0].Models) == 0 {
		t.Errorf("error %q, %d models", got, len(s.Backends[0].Models))
	}
	j := r.submit("j1", "quick", chat)
	if reason := j.refused(j.fetch()); !strings.Contains(reason, "not asked") {
		t.Errorf("refused, as %s", reason)
	}
	p.broken.Store(false)
	r.await(func(s *schemas.NodeState) bool { return s.Backends[0].Healthy })
}

// A server that says that something changed is looked at at once.
func TestServerThatTells(t *testing.T) {
	r, p := newMoodyRig(t, func(p *pace) { p.poll = time.Hour })
	if err := p.Load(t.Context(), "quick"); err != nil { // behind the node's back
		t.Fatal(err)
	}
	p.tell <- struct{}{}
	r.await(func(s *schemas.NodeState) bool { return modelOf(s, "quick").State == schemas.Resident })
}

// The prefix stands before the names that users see, and the server never sees it.
func TestPrefix(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pace) { c.Backends[0].Prefix = "lab/" })
	s := r.await(func(s *schemas.NodeState) bool { return len(s.Backends[0].Models) == 5 })
	for _, m := range s.Backends[0].Models {
		if !strings.HasPrefix(m.Name, "lab/") || m.State != schemas.Installed {
			t.Errorf("%s is listed as %s", m.Name, m.State)
		}
	}
	order := func(do, model string) schemas.NodeState {
		t.Helper()
		body, err := json.Marshal(schemas.ControlRequest{Do: do, Backend: "sim", Model: model})
		if err != nil {
			t.Fatal(err)
		}
		m, err := r.nc.Request(schemas.NodeSubject("n1", "control"), body, patience)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			schemas.NodeState
			Error *schemas.Error
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error != nil {
			t.Fatalf("%s %s: %s", do, model, m.Data)
		}
		return answer.NodeState
	}
	after := order("load", "lab/quick")
	if got := modelOf(&after, "lab/quick").State; got != schemas.Resident {
		t.Errorf("after the load it is %s", got)
	}
	for id, job := range map[string]struct {
		kind  schemas.Kind
		model string
		body  string
	}{
		"j1": {schemas.Chat, "lab/quick", chat},
		"j2": {schemas.Completion, "lab/quick", text},
		"j3": {schemas.Embedding, "lab/embed", embedded},
	} {
		j := r.submit(id, job.model, job.body)
		j.change = func(h nats.Header) { maps.Copy(h, nats.Header{schemas.HeaderKind: {string(job.kind)}}) }
		j.run().ended(1, schemas.StatusOK)
	}
	after = order("unload", "lab/quick")
	if got := modelOf(&after, "lab/quick").State; got != schemas.Installed {
		t.Errorf("after the unload it is %s", got)
	}
	if c := r.sim.Counts("quick"); c.Finished != 2 || c.Loads != 1 || c.Unloads != 1 {
		t.Errorf("the server counts %+v of the model", c)
	}
}
