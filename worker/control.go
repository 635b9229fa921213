package worker

import (
	"context"
	"encoding/json"
	"slices"
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
		if n.draining {
			n.w.cfg.Logger.Info("the node takes no more jobs: an operator drained it")
		} else {
			n.w.cfg.Logger.Info("the node takes jobs again: an operator said so")
		}
		n.w.publishJSON(m.reply, n.state(time.Now()))
	case "load":
		n.controlLoad(ctx, m)
	case "unload":
		n.controlUnload(ctx, m)
	case "pin", "unpin":
		n.controlPin(ctx, m)
	default:
		n.w.fail(m.reply, schemas.Errorf(schemas.Unsupported, "the node cannot %q: it can state, drain, undrain, load, unload, pin and unpin", m.Do))
	}
}

// controlLoad loads a model as if a job wanted it, where there is room or idle models
// can make some.
func (n *node) controlLoad(ctx context.Context, m controlled) {
	c := candidate{backend: m.Backend, name: m.Model}
	var evict []schemas.Victim
	if b := n.backend(m.Backend); b != nil {
		_, evict = n.makeWay(b, m.Model)
		n.fill(&c, b, m.Model, evict)
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
	l := n.promise(n.backend(m.Backend), m.Model, evict, plan)
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

// An unloading is a model that an operator wants unloaded. It takes no more jobs, and
// goes when those that it runs have ended.
type unloading struct {
	schemas.Victim
	begin func() // has it unloaded beside the owner
}

// controlUnload unloads a model, once it has no job any more.
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
	if _, leaving := b.leaving[m.Model]; leaving || n.loadOf(b, m.Model) != nil {
		n.w.fail(m.reply, schemas.Errorf(schemas.Overloaded, "%s on %s is being loaded or unloaded", m.Model, m.Backend))
		return
	}
	b.leaving[m.Model] = nil
	n.changed = true
	cfg, loader := b.Backend, b.loader
	n.unloads = append(n.unloads, &unloading{
		Victim: schemas.Victim{Backend: m.Backend, Model: m.Model},
		begin: func() {
			n.beside.Go(func() {
				err := loader.Unload(ctx, cfg.serverName(m.Model))
				n.w.send(unloaded{model: m.Model, look: cfg.look(ctx), controlDone: controlDone{reply: m.reply, err: err}})
			})
		},
	})
	n.startUnloads()
}

// startUnloads unloads what operators want unloaded and nobody uses any more.
func (n *node) startUnloads() {
	n.unloads = slices.DeleteFunc(n.unloads, func(u *unloading) bool {
		if b := n.backend(u.Backend); b.busy[u.Model] > 0 {
			return false
		}
		u.begin()
		return true
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
