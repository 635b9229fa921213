package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

const (
	watchEvery = time.Second      // how often a node is asked how far it is
	noteEvery  = 10 * time.Second // how often that is told, where nothing changed
	lostAfter  = 10 * time.Second // when a node that does not answer is given up
)

// errRestarted means that a node forgot what it was asked for.
var errRestarted = errors.New("the node was restarted meanwhile: ask again")

// A watch waits for what a node was asked to do, and tells how far it is. A node
// that is gone never answers, so it is asked for its state as well.
type watch struct {
	client *client.Client
	place  modelAt
	do     string
	note   func(format string, args ...any)

	began, noted, heard time.Time
	state               schemas.ModelState // as it was noted last
}

// A controlled is what a request came to.
type controlled struct {
	state schemas.NodeState
	err   error
}

// wait asks the node and waits for its answer until ctx ends.
func (w *watch) wait(ctx context.Context) (schemas.NodeState, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan controlled, 1)
	go func() {
		state, err := w.client.Control(ctx, w.place.node.Node, schemas.ControlRequest{
			Do: w.do, Backend: w.place.backend.Name, Model: w.place.model.Name,
		})
		answers <- controlled{state, err}
	}()
	w.began = time.Now()
	w.heard = w.began
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case a := <-answers:
			return a.state, a.err
		case <-tick.C:
			if err := w.look(ctx); err != nil {
				cancel()
				<-answers
				return schemas.NodeState{}, err
			}
		}
	}
}

// look asks the node for its state and tells it. The error says why there will be
// no answer any more.
func (w *watch) look(ctx context.Context) error {
	name := w.place.node.Node
	asked, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	state, err := w.client.Control(asked, name, schemas.ControlRequest{Do: "state"})
	now := time.Now()
	switch {
	case ctx.Err() != nil:
		return nil // the request's own end says it
	case err != nil && now.Sub(w.heard) > lostAfter:
		return noAnswer(name)
	case err != nil:
		return nil // it may be back with the next look
	case state.Boot != w.place.node.Boot:
		return errRestarted
	}
	w.heard = now
	w.tell(&state, now)
	return nil
}

// tell notes how far it is: at first, when that changed, and now and then.
func (w *watch) tell(state *schemas.NodeState, now time.Time) {
	is := schemas.ModelState(unknown)
	if m := modelIn(state, w.place.backend.Name, w.place.model.Name); m != nil {
		is = m.State
	}
	if is == w.state && now.Sub(w.noted) < noteEvery {
		return
	}
	w.state, w.noted = is, now
	w.note("%s  %s  waiting for the %s for %s: it is %s%s", w.place, w.place.model.Name, w.do, now.Sub(w.began).Round(time.Second), is, w.arrived(state))
}

// arrived is how much of the model is there; "" where nobody can tell.
func (w *watch) arrived(state *schemas.NodeState) string {
	for _, r := range state.Reservations {
		if r.Backend != w.place.backend.Name || r.Model != w.place.model.Name || !r.Arrived.Known || len(r.Devices) == 0 {
			continue
		}
		var all schemas.Bytes
		for _, b := range r.Devices {
			all += b
		}
		return fmt.Sprintf(", %s of %s are there", r.Arrived, all)
	}
	return ""
}
