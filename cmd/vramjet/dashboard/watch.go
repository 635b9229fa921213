package dashboard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

const (
	// heardBuffer is how many states and events may come at once. Those over it are
	// lost, which the next ones heal.
	heardBuffer = 8192

	// settle is how long nodes may take to answer before it counts that they did not.
	settle = 250 * time.Millisecond

	// slowly is how often it is looked for what changes seldom: dead letters, batches
	// and tenants.
	slowly = 5 * time.Second

	// restFor is how many times as long as a long look took it is not repeated: so it
	// takes NATS and the dispatcher a tenth of their time at most.
	restFor = 10
)

// A watch is what goes on while somebody looks. The zero watch is of nothing.
type watch struct {
	begun  bool
	states chan *nats.Msg // of nodes
	events chan *nats.Msg // of jobs
	ticker *time.Ticker

	subs   []*nats.Subscription
	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// tick is when to look what changed.
func (w *watch) tick() <-chan time.Time {
	if w.ticker == nil {
		return nil
	}
	return w.ticker.C
}

// begin begins a watch, which listens and asks until it is stopped. With an error it does
// what it can.
func (d *Dashboard) begin(ctx context.Context, b *board) (*watch, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{
		begun: true, cancel: cancel, ticker: time.NewTicker(every),
		states: make(chan *nats.Msg, heardBuffer), events: make(chan *nats.Msg, heardBuffer),
	}
	b.begin(time.Now())
	b.connected, b.server = d.nc.IsConnected(), d.nc.ConnectedUrlRedacted()
	err := errors.Join(
		w.listen(d.nc, schemas.NodeSubject("*", "state"), w.states),
		w.listen(d.nc, schemas.JobEventSubject("*", "*"), w.events))
	if failed := d.nc.Publish(schemas.NodesPing, nil); failed != nil {
		err = errors.Join(err, fmt.Errorf("ask the nodes: %w", failed))
	}
	a := &asker{dashboard: d, letters: lettersAsked{}}
	w.loops.Go(func() {
		if pause(ctx, settle) {
			d.update(ctx, func(b *board) { b.settled = true })
		}
	})
	w.loops.Go(func() {
		for more := true; more; more = pause(ctx, every) {
			a.askQueue(ctx)
		}
	})
	w.loops.Go(func() {
		for more := true; more; more = pause(ctx, every) && d.pause(ctx, slowly-every) {
			a.askRest(ctx)
		}
	})
	return w, err
}

func (w *watch) listen(nc *nats.Conn, subject string, to chan *nats.Msg) error {
	sub, err := nc.ChanSubscribe(subject, to)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", subject, err)
	}
	w.subs = append(w.subs, sub)
	return nil
}

// stop ends the watch and waits until all of it has ended.
func (w *watch) stop() {
	if !w.begun {
		return
	}
	w.cancel()
	w.ticker.Stop()
	for _, sub := range w.subs {
		_ = sub.Unsubscribe() // fails only where the connection is closed
	}
	w.loops.Wait()
}

// update has the goroutine of Run take note of something.
func (d *Dashboard) update(ctx context.Context, f func(*board)) {
	select {
	case d.updates <- f:
	case <-ctx.Done():
	case <-d.done:
	}
}

// pause waits, and reports false once ctx has ended.
func pause(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits, until it is time to hurry at most.
func (d *Dashboard) pause(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.hurry:
	case <-ctx.Done():
		return false
	}
	return true
}
