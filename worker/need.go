package worker

import (
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// sureAfter is how many loads must have been measured before what they took counts
// more than what was computed.
const sureAfter = 3

// need fills in what a load of a model takes, and how that is known: what an operator
// says; what loads took, once there were 3 of them; else the most that anybody says. A
// load that ran out of memory raises it for a while.
func (n *node) need(b *backend, m *schemas.Model, now time.Time) {
	if m.State == schemas.Remote {
		return
	}
	need, from := m.Need, schemas.NeedTold
	raise := func(a schemas.Amount, source schemas.NeedSource) {
		if a.Known && (!need.Known || a.Bytes > need.Bytes) {
			need, from = a, source
		}
	}
	m.Estimate = b.estimates[m.Name].total
	raise(m.Estimate, schemas.NeedEstimated)
	if l, ok := n.learned[b.keyOf(m)]; ok {
		m.Learned = schemas.Known(l.P95)
		if len(l.Samples) >= sureAfter {
			need = schemas.Amount{}
		}
		raise(m.Learned, schemas.NeedLearned)
	}
	raise(n.books.Least(schemas.Victim{Backend: b.Name, Model: m.Name}, now), schemas.NeedLearned)
	if told := n.w.cfg.modelConfig(m.Name).Need; told.Known {
		need, from = told, schemas.NeedConfigured
	}
	if need.Known {
		m.Need, m.NeedFrom = need, from
	}
}

// modelConfig is what an operator says of a model.
func (c *Config) modelConfig(name string) ModelConfig { return configOf(c.Models, name) }

// model returns a model of b as it is now, with what the books say of it. One that is
// about to be unloaded is as good as gone.
func (n *node) model(b *backend, name string) (schemas.Model, bool) {
	m, ok := b.model(name)
	if !ok {
		return m, false
	}
	v := schemas.Victim{Backend: b.Name, Model: name}
	n.need(b, &m, time.Now())
	m.Pinned = n.pinned(v)
	_, leaving := b.leaving[name]
	switch {
	case m.State == schemas.Installed && n.loadOf(b, name) != nil:
		m.State = schemas.Loading
	case m.State == schemas.Resident && leaving: // it takes no more jobs
		m.State, m.Slots = schemas.Installed, m.Busy
	case m.State == schemas.Resident:
		m.Devices = n.books.Held(v)
	}
	return m, true
}

// splitOf is how servers of a kind lay a model on several devices: Ollama and those
// like it take one where that is enough; llama.cpp always shares it out by what is
// free; tensor parallelism has equal shares.
func splitOf(kind string) schemas.Split {
	switch kind {
	case providers.KindLlamaCpp, providers.KindLlamaRouter, providers.KindLlamaSwap:
		return schemas.Proportional
	case providers.KindVLLM, providers.KindSGLang, providers.KindTGI:
		return schemas.Equal
	default:
		return schemas.Spread
	}
}
