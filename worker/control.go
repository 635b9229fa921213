package worker

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/schemas"
)

// onControl reads an operator's request. It is answered when it is done: with
// the node's state, or with an APIError.
func (w *Worker) onControl(req micro.Request) {
	m := controlled{reply: req.Reply()}
	if err := json.Unmarshal(req.Data(), &m.ControlRequest); err != nil {
		w.fail(m.reply, schemas.Errorf(schemas.InvalidRequest, "the request is not JSON: %s", err))
		return
	}
	w.send(m)
}

// fail answers an operator's request with an error.
func (w *Worker) fail(reply string, err error) {
	w.publishJSON(reply, schemas.APIError{Error: schemas.AsError(err)})
}

// controlled is what an operator asks of the node.
type controlled struct {
	schemas.ControlRequest
	reply string
}

func (m controlled) apply(ctx context.Context, n *node) {
	switch m.Do {
	case "state":
		n.w.publishJSON(m.reply, n.state(time.Now()))
	case "drain", "undrain":
		n.draining, n.changed = m.Do == "drain", true
		n.w.publishJSON(m.reply, n.state(time.Now()))
	case "load":
		n.controlLoad(ctx, m)
	case "unload":
		n.controlUnload(ctx, m)
	default:
		n.w.fail(m.reply, schemas.Errorf(schemas.Unsupported, "the node cannot %q: it can state, drain, undrain, load and unload", m.Do))
	}
}

// controlLoad loads a model as if a job wanted it, where there is room.
func (n *node) controlLoad(ctx context.Context, m controlled) {
	c := candidate{backend: m.Backend, name: m.Model}
	if b := n.backend(m.Backend); b != nil {
		n.fill(&c, b, m.Model, nil)
	}
	if len(c.model.Kinds) > 0 {
		c.kind = c.model.Kinds[0]
	}
	plan, reason := admit(c)
	switch {
	case reason != "":
		n.w.fail(m.reply, schemas.Errorf(schemas.Overloaded, "%s", reason))
		return
	case !c.load: // it is there, or the server does as it likes
		n.w.publishJSON(m.reply, n.state(time.Now()))
		return
	}
	l := n.promise(n.backend(m.Backend), m.Model, nil, plan)
	l.wanted = true
	n.startLoads(ctx)
	n.beside.Go(func() {
		select {
		case <-ctx.Done():
		case <-l.done:
			n.w.send(controlDone{reply: m.reply, err: l.err})
		}
	})
}

// controlUnload unloads a model that nobody uses.
func (n *node) controlUnload(ctx context.Context, m controlled) {
	b := n.backend(m.Backend)
	if b == nil {
		n.w.fail(m.reply, schemas.Errorf(schemas.ModelNotFound, "the node has no backend %s", m.Backend))
		return
	}
	if b.loader == nil {
		n.w.fail(m.reply, schemas.Errorf(schemas.Unsupported, "backend %s cannot be told to unload", m.Backend))
		return
	}
	_, leaving := b.leaving[m.Model]
	if leaving || b.busy[m.Model] > 0 || n.loadOf(b, m.Model) != nil {
		n.w.fail(m.reply, schemas.Errorf(schemas.Overloaded, "%s on %s is in use", m.Model, m.Backend))
		return
	}
	b.leaving[m.Model] = nil
	cfg, loader := b.Backend, b.loader
	n.beside.Go(func() {
		uctx, cancel := context.WithTimeout(ctx, cfg.LoadTimeout)
		defer cancel()
		err := loader.Unload(uctx, cfg.serverName(m.Model))
		n.w.send(unloaded{model: m.Model, look: cfg.look(ctx), controlDone: controlDone{reply: m.reply, err: err}})
	})
}

// unloaded says that an operator's unload ended.
type unloaded struct {
	model string
	look  look
	controlDone
}

func (m unloaded) apply(ctx context.Context, n *node) {
	b := n.backend(m.look.backend)
	delete(b.leaving, m.model)
	n.see(b, m.look)
	m.controlDone.apply(ctx, n)
}

// controlDone says that what an operator asked for ended.
type controlDone struct {
	reply string
	err   error
}

func (m controlDone) apply(_ context.Context, n *node) {
	if m.err != nil {
		n.w.fail(m.reply, m.err)
		return
	}
	n.w.publishJSON(m.reply, n.state(time.Now()))
}
