package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// ordered sends an operator's request and returns where the answer comes.
func (r *rig) ordered(do, model string) *nats.Subscription {
	r.t.Helper()
	body, err := json.Marshal(schemas.ControlRequest{Do: do, Backend: "sim", Model: model})
	if err != nil {
		r.t.Fatal(err)
	}
	answer, err := r.nc.SubscribeSync(r.nc.NewInbox())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.nc.PublishRequest(schemas.NodeSubject("n1", "control"), answer.Subject, body); err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// order has an operator's request done and returns the node's state, or its error.
func (r *rig) order(do, model string) (*schemas.NodeState, *schemas.Error) {
	r.t.Helper()
	m, err := r.ordered(do, model).NextMsg(patience)
	if err != nil {
		r.t.Fatal(err)
	}
	var answer struct {
		schemas.NodeState
		Error *schemas.Error `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		r.t.Fatal(err)
	}
	return &answer.NodeState, answer.Error
}

// TestStateDividesTheMemory: the state says who has a device's memory.
func TestStateDividesTheMemory(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Foreign("sim-0", 3*gib)
	r.submit("j1", "quick", unstream).run().ended(1, schemas.StatusOK)
	s := r.await(func(s *schemas.NodeState) bool {
		return s.Devices[0].Others == schemas.Known(3*gib) && modelOf(s, "quick").Busy == 0
	})
	d := s.Devices[0]
	margin := schemas.SafetyMargin(d.Total)
	if d.Ours != schemas.Known(14*gib) || d.Promised != 0 || d.Available != schemas.Known(7*gib-margin) || d.Lacking != 0 {
		t.Errorf("%+v", d)
	}
	if m := modelOf(s, "quick"); m.Devices["sim-0"] != 14*gib || m.NeedFrom != schemas.NeedTold || m.Need != schemas.Known(14*gib) {
		t.Errorf("%+v", m)
	}
	r.sim.Foreign("sim-0", 10*gib)
	r.await(func(s *schemas.NodeState) bool {
		return s.Devices[0].Available == schemas.Known(0) && s.Devices[0].Lacking == margin
	})
	if reason := r.submit("j2", "heavy", unstream).refusedOnce(); !strings.Contains(reason, "0 B is free") {
		t.Errorf("refused since %q", reason)
	}
}

func (j *job) refusedOnce() string {
	j.t.Helper()
	return j.refused(j.fetch())
}

// A load that runs out of memory is tried once more, with more room.
func TestLoadOnceMore(t *testing.T) {
	r := newRig(t, nil)
	r.submit("j0", "heavy", unstream).run().ended(1, schemas.StatusOK)
	r.sim.Foreign("sim-0", 7*gib) // 16 GiB are left: for 14, but not with a tenth more and the margin
	r.await(func(s *schemas.NodeState) bool { return s.Devices[0].Others == schemas.Known(7*gib) })
	r.sim.Fail("quick", sim.Failure{Times: 1, Load: true})
	r.submit("j1", "quick", unstream).run().ended(1, schemas.StatusOK)
	if c := r.sim.Counts("quick"); c.Loads != 2 {
		t.Errorf("%+v", c)
	}
	if c := r.sim.Counts("heavy"); c.Unloads != 1 {
		t.Errorf("the idle model has not made room: %+v", c)
	}
}

// A load that runs out of memory again teaches the node that the model needs more.
func TestLoadRunsOutOfMemory(t *testing.T) {
	r := newRig(t, nil)
	r.sim.Fail("quick", sim.Failure{Load: true})
	j := r.submit("j1", "quick", unstream).run()
	if d := j.done(); d.Code != schemas.OutOfMemory {
		t.Errorf("done %+v", d)
	}
	s := r.await(func(s *schemas.NodeState) bool { return len(s.Reservations) == 0 })
	if m := modelOf(s, "quick"); m.Need.Bytes <= 15*gib || m.NeedFrom != schemas.NeedLearned {
		t.Errorf("needs %s by %s after a load with %s failed", m.Need, m.NeedFrom, 14*gib)
	}
	r.submit("j2", "heavy", unstream).run().ended(1, schemas.StatusOK) // the others go on
}

// A load does not begin where others took its room meanwhile, and nothing is learned
// of it.
func TestRoomThatOthersTook(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "quick", unstream)
	msg := j.fetch()
	subject := j.accept(msg)
	r.sim.Foreign("sim-0", 20*gib)
	j.claim(subject, msg.Reply(), broker.AckWait)
	if d := j.done(); d.Code != schemas.OutOfMemory {
		t.Errorf("done %+v", d)
	}
	if c := r.sim.Counts("quick"); c.Loads != 0 || c.Refused != 0 {
		t.Errorf("the server was asked to load: %+v", c)
	}
	s := r.await(func(s *schemas.NodeState) bool { return len(s.Reservations) == 0 })
	if m := modelOf(s, "quick"); m.Need != schemas.Known(14*gib) {
		t.Errorf("it needs %s", m.Need)
	}
}

// TestLearns: what loads took is known to all nodes, also to those that come later.
func TestLearns(t *testing.T) {
	r := newRig(t, nil)
	for range sureAfter {
		if _, err := r.order("load", "quick"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.order("unload", "quick"); err != nil {
			t.Fatal(err)
		}
	}
	learned := func(s *schemas.NodeState) bool {
		m := modelOf(s, "quick")
		return m.Learned == schemas.Known(14*gib) && m.NeedFrom == schemas.NeedLearned
	}
	r.await(learned)
	r.stop()
	r.again()
	r.await(learned)
}

// TestPins: a model that an operator pinned makes no room, also after a restart.
func TestPins(t *testing.T) {
	r := newRig(t, nil)
	if _, err := r.order("pin", "quick"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.order("pin", "nobody"); err == nil || err.Code != schemas.ModelNotFound {
		t.Errorf("pinned what is not served: %v", err)
	}
	r.stop()
	r.again()
	r.await(func(s *schemas.NodeState) bool { return modelOf(s, "quick").Pinned })
	r.submit("j1", "quick", unstream).run().ended(1, schemas.StatusOK)
	r.busy("quick", 0)
	j := r.submit("j2", "slow", chat)
	msg := j.fetch()
	if answer, _ := j.offer(msg, "quick"); answer.Accepted || !strings.Contains(answer.Reason, "is pinned") {
		t.Errorf("%+v", answer)
	}
	if s, err := r.order("unpin", "quick"); err != nil || modelOf(s, "quick").Pinned {
		t.Errorf("unpinned: %v", err)
	}
	j.accept(msg, "quick")
}

// TestHearsWhatIsWritten: a node follows what others write for it, also where it was cut
// off just then.
func TestHearsWhatIsWritten(t *testing.T) {
	r := newRig(t, nil)
	kv, err := r.js.KeyValue(t.Context(), broker.BucketState)
	if err != nil {
		t.Fatal(err)
	}
	v := schemas.Victim{Backend: "sim", Model: "quick"}
	for range 3 {
		if _, err := kv.Put(t.Context(), r.worker.pinKey(v), []byte(`{"backend":"sim","model":"quick"}`)); err != nil {
			t.Fatal(err)
		}
		r.await(func(s *schemas.NodeState) bool { return modelOf(s, "quick").Pinned })
		if err := r.worker.nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		if err := kv.Delete(t.Context(), r.worker.pinKey(v)); err != nil {
			t.Fatal(err)
		}
		r.await(func(s *schemas.NodeState) bool { return !modelOf(s, "quick").Pinned })
	}
	if info, err := r.stream("KV_" + broker.BucketState).Info(t.Context()); err != nil || info.State.Consumers > 0 {
		t.Errorf("the node has a consumer: %+v, %v", info, err)
	}
}

// TestConfiguredModels: what the configuration says of a model stands above all.
func TestConfiguredModels(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pace) {
		c.Models = map[string]ModelConfig{"quick": {Need: schemas.Known(30 * gib)}, "s*": {Pin: true}}
	})
	s := r.now()
	if m := modelOf(s, "quick"); m.Need != schemas.Known(30*gib) || m.NeedFrom != schemas.NeedConfigured || m.Pinned {
		t.Errorf("quick: %+v", m)
	}
	if m := modelOf(s, "slow"); !m.Pinned || m.NeedFrom != schemas.NeedTold {
		t.Errorf("slow: %+v", m)
	}
	if _, err := r.order("unpin", "slow"); err == nil || !strings.Contains(err.Message, "configuration") {
		t.Errorf("unpinned: %v", err)
	}
	if reason := r.submit("j1", "quick", chat).refusedOnce(); !strings.Contains(reason, "needs 30.0 GiB") {
		t.Errorf("refused since %q", reason)
	}
}

// TestUnloadWaitsForJobs: a busy model takes no more jobs, ends those it has, and then
// goes.
func TestUnloadWaitsForJobs(t *testing.T) {
	r := newRig(t, nil)
	j := r.submit("j1", "slow", `{"messages":[{"role":"user","content":"hello"}],"max_tokens":60,"stream":true}`).run()
	j.next(schemas.EventAccepted)
	j.next(schemas.EventChunk)
	answer := r.ordered("unload", "slow")
	k := r.submit("j2", "slow", `{"messages":[{"role":"user","content":"hello"}],"max_tokens":2}`)
	msg := k.fetch()
	r.eventually("the model takes jobs although it is to go", func() bool {
		a, _ := k.offer(msg)
		return !a.Accepted && strings.Contains(a.Reason, "about to be unloaded")
	})
	if m := modelOf(r.now(), "slow"); m.State != schemas.Installed || m.Slots != m.Busy {
		t.Errorf("it is offered to jobs as %+v", m)
	}
	for wait(t, j.events).Header.Get(schemas.HeaderEvent) != string(schemas.EventEnd) {
	}
	m, err := answer.NextMsg(patience)
	if err != nil || strings.Contains(string(m.Data), `"error"`) {
		t.Fatalf("%v: %s", err, m.Data)
	}
	if c := r.sim.Counts("slow"); c.Unloads != 1 || c.Cut != 0 || c.Finished != 1 {
		t.Errorf("%+v", c)
	}
	k.claim(k.accept(msg), msg.Reply(), broker.AckWait) // it may come back
	k.ended(1, schemas.StatusOK)
}

// TestLoadDeadline: a load without a sign of progress ends, and its memory is kept no
// more.
func TestLoadDeadline(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pace) { c.Backends[0].LoadTimeout = 100 * time.Millisecond })
	j := r.submit("j1", "heavy", unstream).run() // takes a second
	if d := j.done(); d.Code != schemas.UpstreamError {
		t.Errorf("done %+v", d)
	}
	r.await(func(s *schemas.NodeState) bool { return len(s.Reservations) == 0 })
	if got := (Backend{}).loadLimit(60 * gib); got != 25*time.Minute {
		t.Errorf("60 GiB may take %s", got)
	}
}

// TestOperatorsLoadMakesRoom: idle models make room for what an operator wants
// loaded, and pinned ones do not.
func TestOperatorsLoadMakesRoom(t *testing.T) {
	r := newRig(t, nil)
	for _, model := range []string{"quick", "slow"} {
		if _, err := r.order("load", model); err != nil {
			t.Fatal(err)
		}
	}
	if c := r.sim.Counts("quick"); c.Unloads != 1 {
		t.Errorf("%+v", c)
	}
	if _, err := r.order("pin", "slow"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.order("load", "quick"); err == nil || err.Code != schemas.Overloaded || !strings.Contains(err.Message, "needs 14.0 GiB") {
		t.Errorf("loaded: %v", err)
	}
}
