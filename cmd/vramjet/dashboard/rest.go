package dashboard

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/client/batch"
	"github.com/vramjet/vramjet/schemas"
)

const (
	mostBatches = 30     // that are shown
	mostLetters = 25     // that are shown of each code
	mostCounted = 50_000 // letters that are looked at
)

// restAsked is what changes seldom.
type restAsked struct {
	asked   bool
	tenants []string // that have something stored
	batches batchesView
	dead    deadView
}

// batchesView are the newest batches.
type batchesView struct {
	Rows    []batchView `json:"rows"`
	Trouble string      `json:"trouble"`
}

// batchView is a batch as it is shown, as who ran it last knew it.
type batchView struct {
	Batch   string             `json:"batch"`
	Tenant  string             `json:"tenant"`
	State   schemas.BatchState `json:"state"`
	Class   schemas.Class      `json:"class"`
	Jobs    int                `json:"jobs"`
	OK      int                `json:"ok"`
	Failed  int                `json:"failed"`
	Created time.Time          `json:"created"`
	At      time.Time          `json:"known_at"`
}

// deadView are the dead letters, by why they died.
type deadView struct {
	All     int         `json:"all"`
	Groups  []deadGroup `json:"groups"` // the largest first
	Trouble string      `json:"trouble"`
}

// deadGroup are the dead letters with one code.
type deadGroup struct {
	Code    schemas.Code `json:"code"`
	Count   int          `json:"count"`
	Letters []letterView `json:"letters"` // the newest first
}

// letterView is a dead letter as it is shown.
type letterView struct {
	Seq     uint64        `json:"seq"`
	Tenant  string        `json:"tenant"`
	Job     string        `json:"job"`
	Class   schemas.Class `json:"class"`
	Model   string        `json:"model"`
	Message string        `json:"message"`
	At      time.Time     `json:"at"`
}

// lettersAsked is what was read of the dead letters, and when they are read again.
type lettersAsked struct {
	first, last, count uint64 // of the stream then
	again              time.Time
	view               deadView
}

// askRest asks for tenants, batches and dead letters.
func (a *asker) askRest(ctx context.Context) {
	r := restAsked{asked: true, batches: batchesView{Rows: []batchView{}}}
	_, queued, err := a.stored(ctx, "VJ_JOBS", schemas.JobsPrefix)
	_, batches, failed := a.stored(ctx, "KV_VJ_BATCHES", "$KV.VJ_BATCHES.")
	info, dead, unread := a.stored(ctx, "VJ_DEAD", schemas.DeadPrefix)
	if err == nil {
		r.tenants = append(append(queued, batches...), dead...)
	}
	if failed == nil {
		failed = a.askBatches(ctx, batches, &r.batches)
	}
	if failed != nil {
		r.batches.Trouble = "The batches cannot be read: " + short(failed.Error())
	}
	if unread == nil && info != nil {
		unread = a.askLetters(ctx, dead, &info.State)
	}
	r.dead = a.letters.view
	r.dead.Groups = append([]deadGroup{}, r.dead.Groups...)
	if unread != nil {
		r.dead.Trouble = "The dead letters cannot be read: " + short(unread.Error())
	}
	a.dashboard.update(ctx, func(b *board) { b.rest = r })
}

// stored returns a stream as it is, and the tenants that it has something of. One that
// is not there has nothing.
func (a *asker) stored(ctx context.Context, name, prefix string) (*jetstream.StreamInfo, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, slowly)
	defer cancel()
	stream, err := a.dashboard.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, nil, err
	}
	tenants := map[string]bool{}
	for subject := range info.State.Subjects {
		tenant, _, _ := strings.Cut(strings.TrimPrefix(subject, prefix), ".")
		if schemas.ValidToken(tenant) {
			tenants[tenant] = true
		}
	}
	names := slices.Sorted(maps.Keys(tenants))
	return info, names[:min(len(names), mostTenants)], nil
}

func (a *asker) askBatches(ctx context.Context, tenants []string, v *batchesView) error {
	ctx, cancel := context.WithTimeout(ctx, slowly)
	defer cancel()
	for _, tenant := range tenants {
		records, err := batch.List(ctx, a.dashboard.nc, tenant)
		if err != nil {
			return err
		}
		for i := range records {
			r := &records[i]
			v.Rows = append(v.Rows, batchView{r.Batch, tenant, r.State, r.Class, r.Jobs, r.OK, r.Failed, r.Created, r.At})
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b batchView) int { return b.Created.Compare(a.Created) })
	v.Rows = v.Rows[:min(len(v.Rows), mostBatches)]
	return nil
}

// askLetters reads the dead letters, if there are others than last time.
func (a *asker) askLetters(ctx context.Context, tenants []string, state *jetstream.StreamState) error {
	l, now := &a.letters, time.Now()
	if now.Before(l.again) || l.first == state.FirstSeq && l.last == state.LastSeq && l.count == state.Msgs {
		return nil
	}
	groups := map[schemas.Code]*deadGroup{}
	left := mostCounted
	for _, tenant := range tenants {
		n, err := a.readLetters(ctx, tenant, left, groups)
		if err != nil {
			return err
		}
		left -= n
	}
	l.first, l.last, l.count = state.FirstSeq, state.LastSeq, state.Msgs
	l.again = now.Add(restFor * time.Since(now))
	l.view = deadView{All: int(min(state.Msgs, 1<<31)), Groups: []deadGroup{}}
	for _, g := range groups {
		g.trim()
		l.view.Groups = append(l.view.Groups, *g)
	}
	slices.SortFunc(l.view.Groups, func(a, b deadGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code))
	})
	return nil
}

// readLetters adds the dead letters of a tenant to the groups, and returns how many it
// read: most at most.
func (a *asker) readLetters(ctx context.Context, tenant string, most int, groups map[schemas.Code]*deadGroup) (read int, err error) {
	c, err := client.New(a.dashboard.nc, client.Options{Tenant: tenant})
	if err != nil {
		return 0, err
	}
	for letter, err := range c.Letters(ctx, client.LetterFilter{}) {
		if err != nil || read == most {
			return read, err
		}
		read++
		if groups[letter.Code] == nil {
			groups[letter.Code] = &deadGroup{Code: letter.Code}
		}
		groups[letter.Code].add(&letter)
	}
	return read, nil
}

// add counts a letter, and keeps it if it is among the newest.
func (g *deadGroup) add(l *client.Letter) {
	g.Count++
	g.Letters = append(g.Letters, letterView{l.Seq, l.Flow.Tenant, l.Job, l.Flow.Class, l.Flow.Model, short(l.Message), l.At})
	if len(g.Letters) > 4*mostLetters {
		g.trim()
	}
}

// trim leaves the newest letters, the newest first.
func (g *deadGroup) trim() {
	slices.SortFunc(g.Letters, func(a, b letterView) int { return cmp.Compare(b.Seq, a.Seq) })
	g.Letters = g.Letters[:min(len(g.Letters), mostLetters)]
}
