package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/schemas"
)

// What is paused stands in one key of the bucket of the state. A leader serves
// nothing before it has read it, so that a pause outlasts every leader.

const (
	pausesKey  = "pauses"
	mostPauses = 100 // of a tenant
)

// pauses are what the operators of each tenant have paused, as it is stored. The
// zero pauses are not known yet.
type pauses struct {
	known    bool
	of       map[string][]schemas.Pause // by tenant
	revision uint64                     // of the key
	storing  bool
	answers  []func(error) // to those who asked for what is not being stored yet
}

// match returns the pause that keeps a flow from being served, or nil.
func (p *pauses) match(f schemas.Flow) *schemas.Pause {
	for _, x := range p.of[f.Tenant] {
		if x.Match(f.Class, f.Model) {
			return &x
		}
	}
	return nil
}

// loadPauses reads what is paused. It tries until it can; until then nothing is served,
// and nothing paused or resumed.
func (t *term) loadPauses() {
	t.pauses.known = false
	t.untilRead("nothing is served before it is known what is paused", func() error {
		var of map[string][]schemas.Pause
		var revision uint64
		err := untilAnswered(t.ctx, func(ctx context.Context) (err error) {
			of, revision, err = t.readPauses(ctx)
			return err
		})
		if err == nil {
			t.post(func() {
				t.pauses.known, t.pauses.of, t.pauses.revision = true, of, revision
				t.regardPauses(time.Now())
			})
		}
		return err
	})
}

func (t *term) readPauses(ctx context.Context) (of map[string][]schemas.Pause, revision uint64, err error) {
	of = map[string][]schemas.Pause{}
	kv, err := t.js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return nil, 0, fmt.Errorf("open the bucket: %w", err)
	}
	e, err := kv.Get(ctx, pausesKey)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return of, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("read %s: %w", pausesKey, err)
	}
	if err := json.Unmarshal(e.Value(), &of); err != nil {
		t.cfg.Logger.Error("what was paused cannot be read: nothing is", "err", err)
		clear(of)
	}
	return of, e.Revision(), nil
}

// regardPauses has each flow served, or not.
func (t *term) regardPauses(now time.Time) {
	for _, f := range t.flows {
		f.pause = t.pauses.match(f.Flow.Flow)
		f.regard(now)
	}
}

// pause pauses flows of a tenant. What is paused already stays so since then.
func (t *term) pause(tenant string, r micro.Request) {
	t.changePauses(tenant, r, func(now []schemas.Pause, req *schemas.PauseRequest) []schemas.Pause {
		if slices.ContainsFunc(now, func(p schemas.Pause) bool { return p.Filter == req.Filter }) {
			return now
		}
		return append(now, schemas.Pause{Filter: req.Filter, By: req.By, Since: time.Now().UTC().Truncate(time.Second)})
	})
}

// resume ends the pauses of a tenant that say the same, or all.
func (t *term) resume(tenant string, r micro.Request) {
	t.changePauses(tenant, r, func(now []schemas.Pause, req *schemas.PauseRequest) []schemas.Pause {
		return slices.DeleteFunc(now, func(p schemas.Pause) bool {
			return p.Filter == req.Filter || req.Filter == schemas.Filter{}
		})
	})
}

// changePauses changes the pauses of a tenant, and answers once that is stored.
func (t *term) changePauses(tenant string, r micro.Request, change func([]schemas.Pause, *schemas.PauseRequest) []schemas.Pause) {
	var req schemas.PauseRequest
	if err := json.Unmarshal(r.Data(), &req); err != nil || len(req.By) > 200 {
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.InvalidRequest, `the body is not {"class", "model", "by"}, all of them optional`)})
		return
	}
	if err := req.Check(); err != nil {
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.InvalidRequest, "%s", err)})
		return
	}
	if !t.pauses.known {
		return // who asks, asks again
	}
	next := change(slices.Clone(t.pauses.of[tenant]), &req)
	if len(next) > mostPauses {
		respond(r, schemas.APIError{Error: schemas.Errorf(schemas.Refused, "a tenant may have %d pauses: resume some, or pause with a pattern", mostPauses)})
		return
	}
	t.pauses.of[tenant] = next
	if len(next) == 0 {
		delete(t.pauses.of, tenant)
	}
	t.regardPauses(time.Now())
	t.pauses.answers = append(t.pauses.answers, func(err error) {
		if err != nil {
			respond(r, unreadable("it was not stored, so it does not hold: try again", err))
			return
		}
		respond(r, schemas.PauseList{Pauses: next})
	})
	t.storePauses()
}

// storePauses stores what is paused now, one change after the other. Where that
// fails, what is stored holds.
func (t *term) storePauses() {
	if t.pauses.storing || len(t.pauses.answers) == 0 {
		return
	}
	answers, value, revision := t.pauses.answers, encode(t.pauses.of), t.pauses.revision
	t.pauses.storing, t.pauses.answers = true, nil
	t.spawn(func() {
		revision, err := t.putPauses(value, revision)
		t.post(func() {
			t.pauses.storing = false
			if err != nil {
				t.cfg.Logger.Warn("a pause was not stored", "err", err)
				answers, t.pauses.answers = append(answers, t.pauses.answers...), nil
				t.loadPauses()
			}
			for _, answer := range answers {
				answer(err)
			}
			if err == nil {
				t.pauses.revision = revision
				t.storePauses()
			}
		})
	})
}

// putPauses writes the key on condition that nobody else has: a leader whose lease
// is gone, and doesn't know it yet, undoes nothing.
func (t *term) putPauses(value []byte, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), apiTimeout)
	defer cancel()
	kv, err := t.js.KeyValue(ctx, broker.BucketState)
	if err != nil {
		return 0, fmt.Errorf("open the bucket: %w", err)
	}
	revision, err = kv.Update(ctx, pausesKey, value, revision)
	if err != nil {
		return 0, fmt.Errorf("store %s: %w", pausesKey, err)
	}
	return revision, nil
}

// pausedSince says who paused what, and since when.
func pausedSince(p *schemas.Pause) string {
	what := "the tenant's jobs are"
	if p.Filter != (schemas.Filter{}) {
		what = p.Describe() + " is"
	}
	by := ""
	if p.By != "" {
		by = " by " + p.By
	}
	return fmt.Sprintf("%s paused%s since %s", what, by, p.Since.Format(time.RFC3339))
}

// resumeCommand is the command line that ends a pause.
func resumeCommand(tenant string, p *schemas.Pause) string {
	words := []string{"vramjet queue resume"}
	if p.Class != "" {
		words = append(words, "--class "+string(p.Class))
	}
	if p.Model != "" {
		words = append(words, "--model '"+p.Model+"'")
	}
	if len(words) == 1 {
		words = append(words, "--all")
	}
	if tenant != schemas.DefaultTenant {
		words = append(words, "--tenant "+tenant)
	}
	return strings.Join(words, " ")
}
