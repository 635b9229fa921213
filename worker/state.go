package worker

import (
	"encoding/json"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// report publishes the state if it changed and the last one is old enough; else
// it sees to it that this is looked at again.
func (n *node) report(now time.Time) {
	if !n.changed || n.due != nil {
		return
	}
	if wait := n.w.pace.burst - now.Sub(n.reported); wait > 0 {
		n.due = time.After(wait)
		return
	}
	n.changed, n.reported = false, now
	s := n.state(now)
	n.w.shown.Store(s)
	n.w.publishJSON(schemas.NodeSubject(n.w.cfg.Node, "state"), s)
}

// state builds the next state.
func (n *node) state(now time.Time) *schemas.NodeState {
	n.seq++
	s := &schemas.NodeState{
		Node:         n.w.cfg.Node,
		Boot:         n.w.boot,
		Seq:          n.seq,
		At:           now.UTC(),
		Version:      n.w.cfg.Version,
		Draining:     n.draining || n.leaving,
		DeviceSource: n.source(),
		Backends:     make([]schemas.Backend, len(n.backends)),
		Running:      make([]schemas.RunningJob, 0, len(n.tasks)),
		Reservations: []schemas.Reservation{},
	}
	for _, d := range n.devices {
		s.Devices = append(s.Devices, n.withAccount(d.Device))
	}
	for i, b := range n.backends {
		s.Backends[i] = n.backendState(b)
		for _, d := range b.own {
			s.Devices = append(s.Devices, n.withAccount(d.Device))
		}
	}
	for _, t := range n.tasks {
		s.Running = append(s.Running, schemas.RunningJob{
			Job: t.key.job, Tenant: t.key.tenant, Attempt: t.key.attempt,
			Model: t.offer.Model, Backend: t.backend.Name,
		})
	}
	for _, r := range n.books.Reservations() {
		s.Reservations = append(s.Reservations, schemas.Reservation{
			Model: r.Model, Backend: r.Backend, Devices: r.Plan, Arrived: r.Arrived, Expires: r.Deadline.UTC(),
		})
	}
	return s
}

func (n *node) backendState(b *backend) schemas.Backend {
	s := schemas.Backend{
		Name: b.Name, Kind: b.Kind, Split: b.Split, Loads: b.loader != nil, Healthy: b.healthy, Error: b.trouble, Price: b.Price,
		Devices: n.idsOf(b), Models: make([]schemas.Model, len(b.models)),
	}
	for i := range b.models {
		s.Models[i], _ = n.model(b, b.models[i].Name)
	}
	return s
}

// accept answers an offer: yes, and where to send the go.
func (n *node) accept(t *task) {
	n.answer(t.offer.reply, n.w.goSubject(t.number), schemas.OfferAnswer{Accepted: true, Seq: n.seq + 1})
}

// refuse answers an offer: no, why not, and how things stand.
func (n *node) refuse(o *offer, reason string) {
	state := n.state(time.Now())
	n.answer(o.reply, "", schemas.OfferAnswer{Reason: reason, Seq: state.Seq, State: state})
}

func (n *node) answer(subject, reply string, answer schemas.OfferAnswer) {
	body, err := json.Marshal(answer)
	if err == nil && reply == "" {
		err = n.w.nc.Publish(subject, body)
	} else if err == nil {
		err = n.w.nc.PublishRequest(subject, reply, body)
	}
	if err != nil {
		n.w.cfg.Logger.Warn("offer was not answered", "err", err)
	}
}

// publishJSON publishes what is no job's. What is lost of it is said again.
func (w *Worker) publishJSON(subject string, v any) {
	body, err := json.Marshal(v)
	if err == nil {
		err = w.nc.Publish(subject, body)
	}
	if err != nil {
		w.cfg.Logger.Warn("not published", "subject", subject, "err", err)
	}
}

// source says who tells what the devices are.
func (n *node) source() string {
	if n.w.cfg.GPU == nil {
		return "none"
	}
	return n.w.cfg.GPU.Source()
}
