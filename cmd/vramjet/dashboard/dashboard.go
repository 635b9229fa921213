// Package dashboard serves one page that shows the nodes, the queue and the jobs, and
// where somebody has a token lets them do a few things about it.
//
// What it shows it asks of NATS once a second, and only while somebody looks, however
// many they are. It never has a request or an answer of a job.
package dashboard

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options tune a Dashboard. The zero Options are ready to use.
type Options struct {
	// Token is what those must know who do something. "" means that nothing can be
	// done: the page only shows.
	Token string

	// Weights are the shares of tenants, by their names. One that is not there has 1.
	Weights map[string]float64

	// Logger is told what was done and who was turned down. nil means nobody.
	Logger *slog.Logger
}

// every is how often what is shown is brought up to date.
const every = time.Second

// linger is for how long it goes on once nobody looks: whoever loads the page again
// finds what was heard.
const linger = 5 * time.Second

// mostViewers bounds how many may look at once.
const mostViewers = 500

// A Dashboard shows what happens. Handler serves it while Run runs.
type Dashboard struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	opts Options

	seats   chan struct{} // of viewers
	joins   chan *viewer
	leaves  chan *viewer
	updates chan func(*board) // what was gathered, for the goroutine of Run
	hurry   chan struct{}     // has what changes seldom looked at now
	done    chan struct{}     // closed once Run has returned
}

// A viewer is somebody who looks. One who is slow misses snapshots.
type viewer struct {
	newest chan *snapshot // the newest that it has not seen
}

// show has the viewer see s next, whatever it has not seen yet. Only the goroutine of
// Run calls it.
func (v *viewer) show(s *snapshot) {
	select {
	case <-v.newest:
	default:
	}
	v.newest <- s
}

// New returns a dashboard on nc, which stays the caller's to close. Its user has to be
// a dispatcher's or one that may do as much.
func New(nc *nats.Conn, opts Options) (*Dashboard, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Dashboard{
		nc: nc, js: js, opts: opts, seats: make(chan struct{}, mostViewers),
		joins: make(chan *viewer), leaves: make(chan *viewer), updates: make(chan func(*board)),
		hurry: make(chan struct{}, 1), done: make(chan struct{}),
	}, nil
}

// Run keeps the viewers up to date until ctx ends, and has sent them all away then. It
// is called once.
func (d *Dashboard) Run(ctx context.Context) error {
	defer close(d.done)
	s := &show{
		Dashboard: d, board: newBoard(d.opts.Weights, d.opts.Token != ""), watch: &watch{}, viewers: map[*viewer]bool{},
	}
	defer func() { s.watch.stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-d.joins:
			s.came(ctx, v)
		case v := <-d.leaves:
			delete(s.viewers, v)
			s.left = time.Now()
		case m, ok := <-s.watch.states:
			s.heard(m, ok)
		case m, ok := <-s.watch.events:
			s.happened(m, ok)
		case update := <-d.updates:
			update(s.board)
			if s.board.becameComplete() {
				s.board.build(time.Now())
			}
		case now := <-s.watch.tick():
			s.ticked(now)
		}
		s.tell()
	}
}

// A show is what the goroutine of Run has in hand.
type show struct {
	*Dashboard
	board   *board
	watch   *watch
	viewers map[*viewer]bool
	left    time.Time // when somebody left last
	told    *snapshot // the newest that all viewers were shown
}

// came begins the watch for the first viewer, and shows each all that there is.
func (s *show) came(ctx context.Context, v *viewer) {
	s.viewers[v] = true
	if !s.watch.begun {
		var err error
		if s.watch, err = s.begin(ctx, s.board); err != nil {
			s.opts.Logger.Warn("the dashboard cannot listen", "err", err)
		}
		s.board.build(time.Now())
	}
	s.told = s.board.newest // the others have seen it, or there are none
	v.show(s.told)
}

func (s *show) heard(m *nats.Msg, open bool) { //nolint:revive // flag-parameter: of a channel
	if !open {
		s.watch.states = nil // so is the connection
		return
	}
	s.board.heard(m, time.Now())
}

func (s *show) happened(m *nats.Msg, open bool) { //nolint:revive // flag-parameter: of a channel
	if !open {
		s.watch.events = nil // so is the connection
		return
	}
	if s.board.happened(m) {
		s.lookNow()
	}
}

// ticked looks what changed, and ends the watch when nobody has looked for a while.
func (s *show) ticked(now time.Time) {
	if len(s.viewers) == 0 && now.Sub(s.left) > linger {
		s.watch.stop()
		s.watch = &watch{}
		return
	}
	s.board.connected, s.board.server = s.nc.IsConnected(), s.nc.ConnectedUrlRedacted()
	s.board.build(now)
}

// tell shows the viewers what is new.
func (s *show) tell() {
	if s.board.newest == s.told {
		return
	}
	s.told = s.board.newest
	for v := range s.viewers {
		v.show(s.told)
	}
}

// join makes somebody a viewer, who has to leave; false where nobody can be one now.
func (d *Dashboard) join(ctx context.Context) (*viewer, bool) {
	select {
	case d.seats <- struct{}{}:
	default:
		return nil, false
	}
	v := &viewer{newest: make(chan *snapshot, 1)}
	select {
	case d.joins <- v:
		return v, true
	case <-ctx.Done():
	case <-d.done:
	}
	<-d.seats
	return nil, false
}

// lookNow has what changes seldom looked at soon.
func (d *Dashboard) lookNow() {
	select {
	case d.hurry <- struct{}{}:
	default: // it is about to be
	}
}

func (d *Dashboard) leave(v *viewer) {
	<-d.seats
	select {
	case d.leaves <- v:
	case <-d.done:
	}
}
