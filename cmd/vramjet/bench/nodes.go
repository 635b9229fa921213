package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// What a played fleet is made of: at most so many models, each on its share of the
// devices, and what a job takes there.
const (
	mostModels  = 64
	modelSlots  = 4
	jobTakes    = 100 * time.Millisecond
	reportEvery = time.Second
	bootOfNode  = "b1"
)

// model is the name of one of the models of a played fleet, of which each device has one.
func (f Fleet) model(i int) string {
	return "model-" + strconv.Itoa(i%min(mostModels, f.Nodes*f.Devices))
}

// A playedFleet is nodes that speak as real ones do, on one connection and without a
// model server: they report each second, accept what is offered, and settle it after
// jobTakes.
type playedFleet struct {
	nc      *nats.Conn
	offered func(job string) // is called with each offer
	order   []*playedNode
	byName  map[string]*playedNode
	bytes   atomic.Int64 // of the states that were sent
	states  atomic.Int64

	mu   sync.Mutex // guards what follows
	last uint64
	open map[string]*playedJob // offers that were accepted, by where their go arrives
	jobs sync.WaitGroup
}

// A playedNode is one of a fleet.
type playedNode struct {
	mu    sync.Mutex // guards state
	state schemas.NodeState
}

// A playedJob is one that a node has.
type playedJob struct {
	node  *playedNode
	run   schemas.RunningJob
	reply string
}

// newPlayedFleet makes a fleet and listens for what is offered to it.
func newPlayedFleet(nc *nats.Conn, size Fleet, offered func(job string)) (*playedFleet, error) {
	f := &playedFleet{nc: nc, offered: offered, byName: map[string]*playedNode{}, open: map[string]*playedJob{}}
	for i := range size.Nodes {
		n := &playedNode{state: size.node(i)}
		f.order, f.byName[n.state.Node] = append(f.order, n), n
	}
	inbox := nc.NewInbox()
	for subject, h := range map[string]nats.MsgHandler{
		schemas.NodeSubject("*", "run"):     func(m *nats.Msg) { f.offer(m, inbox) },
		schemas.NodeSubject("*", "control"): func(m *nats.Msg) { _ = m.Respond([]byte("{}")) },
		inbox + ".*":                        f.goAhead,
	} {
		if _, err := listen(nc, subject, h); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// node is a node that has another model on each of its devices.
func (f Fleet) node(i int) schemas.NodeState {
	s := schemas.NodeState{Node: "node-" + strconv.Itoa(i), Boot: bootOfNode, DeviceSource: "played"}
	for d := range f.Devices {
		id := "GPU-" + strconv.Itoa(i) + "-" + strconv.Itoa(d)
		size := schemas.Known(60 * schemas.GiB)
		s.Devices = append(s.Devices, schemas.Device{
			ID: id, Name: "played", Kind: "sim", Total: schemas.Known(80 * schemas.GiB), Used: size,
			Free: schemas.Known(20 * schemas.GiB), Ours: size, Others: schemas.Known(0), Reserved: schemas.Known(0), Available: schemas.Known(16 * schemas.GiB),
		})
		s.Backends = append(s.Backends, schemas.Backend{
			Name: "backend-" + strconv.Itoa(d), Kind: "sim", Healthy: true, Devices: []string{id}, Loads: true,
			Models: []schemas.Model{{
				Name: f.model(i*f.Devices + d), Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: modelSlots, Context: 8192,
				VRAM: size, Need: size, NeedFrom: schemas.NeedLearned, Learned: size, Devices: map[string]schemas.Bytes{id: size.Bytes},
			}},
		})
	}
	return s
}

// report has each node report once a second until ctx ends, all of them evenly over it.
func (f *playedFleet) report(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began, next := time.Now(), 0
	for {
		due := int(time.Since(began) * time.Duration(len(f.order)) / reportEvery)
		for ; next < due && ctx.Err() == nil; next++ {
			if err := f.tell(f.order[next%len(f.order)]); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tell sends a node's state.
func (f *playedFleet) tell(n *playedNode) error {
	n.mu.Lock()
	n.state.Seq++
	n.state.At = time.Now()
	body, err := json.Marshal(n.state)
	n.mu.Unlock()
	if err == nil {
		err = f.nc.Publish(schemas.NodeSubject(n.state.Node, "state"), body)
	}
	if err != nil {
		return fmt.Errorf("report for a node: %w", err)
	}
	f.bytes.Add(int64(len(body)))
	f.states.Add(1)
	return nil
}

// offer accepts a job. Nothing runs before its go.
func (f *playedFleet) offer(m *nats.Msg, inbox string) {
	name, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, schemas.NodePrefix), ".")
	n := f.byName[name]
	attempt, err := strconv.ParseUint(m.Header.Get(schemas.HeaderAttempt), 10, 64)
	if n == nil || err != nil {
		return
	}
	j := &playedJob{node: n, reply: m.Header.Get(schemas.HeaderReply), run: schemas.RunningJob{
		Job: m.Header.Get(schemas.HeaderJob), Tenant: m.Header.Get(schemas.HeaderTenant), Attempt: attempt,
		Model: m.Header.Get(schemas.HeaderModel), Backend: m.Header.Get(schemas.HeaderBackend),
	}}
	f.offered(j.run.Job)
	f.mu.Lock()
	f.last++
	to := inbox + "." + strconv.FormatUint(f.last, 10)
	f.open[to] = j
	f.mu.Unlock()
	answer, err := json.Marshal(schemas.OfferAnswer{Accepted: true, Seq: n.take(j)})
	if err != nil {
		return // it is of two plain members
	}
	_ = f.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: to, Data: answer})
}

// take notes that a job is the node's, and returns which state shows it first.
func (n *playedNode) take(j *playedJob) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.Running = append(n.state.Running, j.run)
	n.busy(j, 1)
	return n.state.Seq + 1
}

// free notes that a job is over.
func (n *playedNode) free(j *playedJob) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.Running = slices.DeleteFunc(n.state.Running, func(r schemas.RunningJob) bool { return r == j.run })
	n.busy(j, -1)
}

// busy counts the jobs of a model. mu is held.
func (n *playedNode) busy(j *playedJob, more int) {
	for _, b := range n.state.Backends {
		if b.Name == j.run.Backend {
			b.Models[0].Busy += more
		}
	}
}

// goAhead runs a job that was accepted.
func (f *playedFleet) goAhead(m *nats.Msg) {
	f.mu.Lock()
	j := f.open[m.Subject]
	delete(f.open, m.Subject)
	f.mu.Unlock()
	if j == nil {
		return
	}
	ack := string(m.Data)
	f.jobs.Add(1)
	time.AfterFunc(jobTakes, func() {
		defer f.jobs.Done()
		f.settle(j, ack)
	})
}

// settle ends a job as a node does: its end, its ack, and word of its slot.
func (f *playedFleet) settle(j *playedJob, ack string) {
	end := nats.NewMsg(j.reply)
	end.Header.Set(schemas.HeaderEvent, string(schemas.EventEnd))
	end.Header.Set(schemas.HeaderStatus, string(schemas.StatusOK))
	end.Data = []byte(`{"object":"chat.completion"}`)
	done, err := json.Marshal(schemas.JobDone{
		Node: j.node.state.Node, Boot: bootOfNode, Job: j.run.Job, Tenant: j.run.Tenant, Attempt: j.run.Attempt,
		BusyMS: jobTakes.Milliseconds(), Tokens: answerTokens, RetryMS: -1, Status: schemas.StatusOK,
	})
	if err != nil {
		return // it is of plain members
	}
	j.node.free(j)
	// A connection that is closed is the end of the measurement.
	_ = f.nc.PublishMsg(end)
	_ = f.nc.Publish(ack, []byte("+ACK"))
	_ = f.nc.Publish(schemas.NodeSubject(j.node.state.Node, "done"), done)
}
