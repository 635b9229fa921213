package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/vramjet/vramjet/schemas"
)

// Pins that operators set are kept in KV, so that they outlast the worker.

func (w *Worker) pinPrefix() string { return "pin." + w.cfg.Node + "." }

func (w *Worker) pinKey(v schemas.Victim) string {
	sum := sha256.Sum256([]byte(v.String()))
	return w.pinPrefix() + hex.EncodeToString(sum[:16])
}

// pinned reports whether a model is never to be unloaded to make room.
func (n *node) pinned(v schemas.Victim) bool {
	return n.pins[v] || n.w.cfg.modelConfig(v.Model).Pin
}

// controlPin pins a model or unpins it, and answers once that is stored.
func (n *node) controlPin(ctx context.Context, m controlled) {
	b := n.backend(m.Backend)
	if b == nil {
		n.w.fail(m.reply, schemas.Errorf(schemas.ModelNotFound, "the node has no backend %s", m.Backend))
		return
	}
	if _, ok := b.model(m.Model); !ok {
		n.w.fail(m.reply, schemas.Errorf(schemas.ModelNotFound, "backend %s does not serve %s", m.Backend, m.Model))
		return
	}
	v, pin := schemas.Victim{Backend: m.Backend, Model: m.Model}, m.Do == "pin"
	if !pin && n.w.cfg.modelConfig(m.Model).Pin {
		n.w.fail(m.reply, schemas.Errorf(schemas.InvalidRequest, "%s is pinned by the node's configuration: change it there", m.Model))
		return
	}
	var entry any
	if pin {
		entry = v
	}
	n.beside.Go(func() {
		sctx, cancel := context.WithTimeout(ctx, storeWithin)
		defer cancel()
		err := n.w.put(sctx, n.w.pinKey(v), entry)
		n.w.send(pinned{victim: v, pin: pin, controlDone: controlDone{reply: m.reply, err: err}})
	})
}

// pinned says that a pin was stored or deleted, or could not be.
type pinned struct {
	victim schemas.Victim
	pin    bool
	controlDone
}

func (m pinned) apply(ctx context.Context, n *node) {
	if m.err == nil {
		if delete(n.pins, m.victim); m.pin {
			n.pins[m.victim] = true
		}
		n.changed = true
	}
	m.controlDone.apply(ctx, n)
}

// rememberPin takes in a pin that was stored or deleted, here or by another worker of
// this node.
func (n *node) rememberPin(m remembered) error {
	if m.gone {
		for v := range n.pins {
			if n.w.pinKey(v) == m.key {
				delete(n.pins, v)
			}
		}
		return nil
	}
	var v schemas.Victim
	if err := json.Unmarshal(m.value, &v); err != nil {
		return err
	}
	n.pins[v] = true
	return nil
}
