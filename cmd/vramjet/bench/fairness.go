package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/dispatcher"
	"github.com/vramjet/vramjet/dispatcher/simulate"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// What tenants contend for: so many slots, each of which a job has for slotTakes. Each
// tenant always has backlog jobs under way, and newcomers come one after the other.
const (
	slots      = 8
	slotTokens = 10
	slotTakes  = 20 * time.Millisecond
	backlog    = 60
	newcomers  = 10
	newcomer   = "bench-new-"
)

// rivals are tenants that always want more than there is, and what they weigh.
var rivals = []rival{{"bench-a", 1}, {"bench-b", 2}, {"bench-c", 4}}

type rival struct {
	tenant string
	weight float64
}

// entitled is the share of a rival, of 1.
func (v rival) entitled() float64 {
	sum := 0.0
	for _, other := range rivals {
		sum += other.weight
	}
	return v.weight / sum
}

// fairness measures what tenants get by their weights while all want more, and how long
// somebody waits who comes then, beside one work queue of NATS for all of them.
func fairness(ctx context.Context, s *site, r *Result) error {
	s.Progress("fairness: NATS alone, one queue for all")
	plain, err := s.plainContest(ctx)
	if err != nil {
		return err
	}
	s.Progress("fairness: tenants of weights 1, 2 and 4")
	fair, err := s.fairContest(ctx)
	if err != nil {
		return err
	}
	for i, v := range rivals {
		r.add(fmt.Sprintf("share of the tenant of weight %.0f", v.weight), 0, 100*fair.shares()[i], Percent).beside("entitled", 100*v.entitled())
	}
	r.add("Jain's index of the shares by weight", 0, fair.jain(), Plain).beside("one queue", plain.jain())
	mine, others := fair.waits.all(), plain.waits.all()
	r.add("wait of a newcomer, p50", 0, millis(percentile(mine, 50)), Milliseconds).beside("one queue, p50", millis(percentile(others, 50)))
	r.add("wait of a newcomer, longest", 0, millis(percentile(mine, 100)), Milliseconds).beside("one queue, longest", millis(percentile(others, 100)))
	return nil
}

// A contest is tenants that submit jobs as fast as theirs end.
type contest struct {
	submit func(ctx context.Context, tenant string) error
	room   map[string]chan struct{} // has an element for each job of a rival
	served map[string]*meter        // by rival
	waits  *waits                   // of newcomers, until their job begins
}

func newContest(d time.Duration) *contest {
	c := &contest{room: map[string]chan struct{}{}, served: map[string]*meter{}, waits: newWaits()}
	for _, v := range rivals {
		c.room[v.tenant], c.served[v.tenant] = make(chan struct{}, backlog), newMeter(d)
	}
	return c
}

// began notes that a job of a tenant begins, and ended that one ended.
func (c *contest) began(tenant string) {
	if strings.HasPrefix(tenant, newcomer) {
		c.waits.over(tenant)
	}
}

func (c *contest) ended(tenant string) {
	if m := c.served[tenant]; m != nil {
		m.add(nil)
		<-c.room[tenant]
	}
}

// run has all rivals submit for a time, and newcomers in it, until each of these began.
func (c *contest) run(ctx context.Context, d time.Duration) error {
	const submitters = 8 // of each rival
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, gctx := errgroup.WithContext(ctx)
	for tenant, room := range c.room {
		for range submitters {
			group.Go(func() error {
				for {
					select {
					case room <- struct{}{}:
					case <-gctx.Done():
						return nil
					}
					if err := c.submit(gctx, tenant); err != nil && gctx.Err() == nil {
						return err
					}
				}
			})
		}
	}
	err := c.welcome(gctx, d)
	stop()
	return errors.Join(group.Wait(), err)
}

// welcome lets newcomers come, evenly over a time, and waits until it is over and each
// has begun.
func (c *contest) welcome(ctx context.Context, d time.Duration) error {
	every := d / (newcomers + 2)
	if err := pause(ctx, 2*every); err != nil {
		return err
	}
	for i := range newcomers {
		tenant := newcomer + strconv.Itoa(i)
		c.waits.begin(tenant)
		if err := c.submit(ctx, tenant); err != nil {
			return err
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
	return c.waits.none(ctx)
}

// shares returns what each rival got, of 1.
func (c *contest) shares() []float64 {
	sum := 0.0
	shares := make([]float64, len(rivals))
	for i, v := range rivals {
		shares[i] = float64(c.served[v.tenant].n.Load())
		sum += shares[i]
	}
	for i := range shares {
		shares[i] /= max(1, sum)
	}
	return shares
}

func (c *contest) jain() float64 {
	weights := make([]float64, len(rivals))
	for i, v := range rivals {
		weights[i] = v.weight
	}
	return simulate.Jain(c.shares(), weights)
}

// fairContest runs a contest of jobs.
func (s *site) fairContest(ctx context.Context) (*contest, error) {
	const model = "vramjet-bench-contended"
	tenants := map[string]dispatcher.Tenant{}
	clients := map[string]*client.Client{}
	for _, v := range rivals {
		tenants[v.tenant] = dispatcher.Tenant{Weight: v.weight}
		clients[v.tenant] = nil
	}
	for i := range newcomers {
		clients[newcomer+strconv.Itoa(i)] = nil
	}
	for tenant := range clients {
		c, err := client.New(s.nc, client.Options{Tenant: tenant})
		if err != nil {
			return nil, err
		}
		clients[tenant] = c
	}
	if err := s.dispatch(ctx, tenants); err != nil {
		return nil, err
	}
	if _, err := s.serve(ctx, sim.Model{Name: model, Slots: slots, TokenInterval: slotTakes / slotTokens}); err != nil {
		return nil, err
	}
	c := newContest(s.Time)
	inbox, body := s.nc.NewInbox(), chat(slotTokens)
	c.submit = func(ctx context.Context, tenant string) error {
		_, err := clients[tenant].Submit(ctx, client.Job{Model: model, Body: body, Reply: inbox + "." + tenant})
		return err
	}
	sub, err := listen(s.nc, inbox+".*", func(m *nats.Msg) {
		tenant := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		switch schemas.EventKind(m.Header.Get(schemas.HeaderEvent)) { //nolint:exhaustive // the others change nothing
		case schemas.EventAccepted:
			c.began(tenant)
		case schemas.EventEnd:
			c.ended(tenant)
		}
	})
	if err != nil {
		return nil, err
	}
	err = c.run(ctx, s.Time)
	return c, errors.Join(err, sub.Unsubscribe())
}

// plainContest runs the same contest with one work queue, whose messages are taken as
// they came.
func (s *site) plainContest(ctx context.Context) (*contest, error) {
	const name, prefix = "VJBENCH_FAIR", "vjbench.fair."
	if err := s.stream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{prefix + "*"}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		return nil, err
	}
	queue, err := s.js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		return nil, fmt.Errorf("make a consumer of the plain queue: %w", err)
	}
	c := newContest(s.Time)
	body := chat(slotTokens)
	c.submit = func(ctx context.Context, tenant string) error {
		_, err := s.js.Publish(ctx, prefix+tenant, body)
		return err
	}
	taking, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for range slots {
		workers.Go(func() {
			for taking.Err() == nil {
				m, err := queue.Next(jetstream.FetchMaxWait(time.Second))
				if err != nil {
					continue // nothing came in that time
				}
				tenant := strings.TrimPrefix(m.Subject(), prefix)
				c.began(tenant)
				if pause(taking, slotTakes) == nil && m.DoubleAck(taking) == nil {
					c.ended(tenant)
				}
			}
		})
	}
	err = c.run(ctx, s.Time)
	stop()
	workers.Wait()
	return c, err
}
