package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/gpu/ledger"
	"github.com/vramjet/vramjet/schemas"
)

// An Explanation says in words why a job waits, for people.
type Explanation struct {
	Reason string   // in a sentence
	Places []string // for each place that has the model, why the job is not there
	Next   string   // what happens next
	ETAMS  int64    // until it begins, roughly; -1: nobody can say
	Fix    []string // what one could do about it
}

// Explain says why a job of a flow waits that has so many jobs of the flow before it.
// ran is for how many ms the jobs have run that a model runs now, as far as it's known.
func (s *Scheduler) Explain(ask Ask, before int, ran func(model string) []int64, now int64) Explanation {
	p := s.pools[ask.Model]
	if ask.Flow != nil && ask.Flow.route != nil {
		p = ask.Flow.pool
	}
	if p == nil || !s.Serves(Ask{Model: ask.Model}) {
		return Explanation{
			Reason: "no node has the model " + ask.Model, ETAMS: -1,
			Next: "it ends with model_not_found, unless a node with the model joins in time",
			Fix:  []string{"vramjet models ls shows what is served"},
		}
	}
	x := Explanation{ETAMS: -1}
	soonest := outlook{after: never}
	for _, q := range p.places {
		o := s.outlook(q, ask, now)
		x.Places = append(x.Places, fmt.Sprintf("%s/%s: %s", q.node.ID, q.backend.Name, o.why))
		if o.after < soonest.after || o.after == soonest.after && soonest.place != nil && o.place.node.ID < soonest.place.node.ID {
			soonest = o
		}
		if o.fix != "" && !slices.Contains(x.Fix, o.fix) {
			x.Fix = append(x.Fix, o.fix)
		}
	}
	switch {
	case ask.Flow != nil && ask.Flow.paused != "":
		x.Reason, x.Next = ask.Flow.paused, "it is looked at again within a second"
	case p.slots > 0 || soonest.place != nil && soonest.place.way() == hosted && soonest.place.model.State == schemas.Remote:
		l := p.line(ask.Flow, before)
		l.ran = ran(p.name)
		s.explainTurn(&x, p, ask, l, now)
		x.Fix = nil
	case soonest.place == nil:
		x.Reason = p.name + " is not in memory, and no node can load it"
		x.Next = "nothing, as things are: it waits until a node can"
	default:
		explainLoad(&x, p, before, soonest)
		x.Fix = nil
	}
	slices.Sort(x.Places)
	slices.Sort(x.Fix)
	if ask.Flow != nil && ask.Flow.route != nil {
		s.explainRoute(&x, ask, now)
	}
	return x
}

// A line is who stands before a job that waits for a slot.
type line struct {
	above   int     // jobs of more urgent classes
	own     int     // of its flow
	tenants int     // others that wait in its class
	share   float64 // of the turns of its class that its tenant has
	ran     []int64 // for how many ms those that have the slots have run, as far as it's known
}

// line returns who stands before a job.
func (p *pool) line(of *Flow, before int) line {
	l := line{own: before, share: 1}
	if of == nil {
		return l
	}
	rank := of.Class.Rank()
	for _, above := range p.lanes[:rank] {
		for _, f := range above.flows.items {
			l.above += f.waiting
		}
	}
	weights := of.weight
	for _, f := range p.lanes[rank].flows.items {
		if f != of {
			l.tenants++
			weights += f.weight
		}
	}
	l.share = of.weight / weights
	return l
}

// String is empty, or a clause that goes on a sentence.
func (l line) String() string {
	var ahead []string
	if l.above > 0 {
		ahead = append(ahead, fmt.Sprintf("%d of more urgent classes", l.above))
	}
	if l.own > 0 {
		ahead = append(ahead, fmt.Sprintf("%d of its own", l.own))
	}
	text := ""
	if len(ahead) > 0 {
		text = ", and jobs go first: " + strings.Join(ahead, ", ")
	}
	if l.tenants > 0 {
		text += fmt.Sprintf("; its tenant has %.0f %% of the turns of the class, beside %d more", 100*l.share, l.tenants)
	}
	return text
}

// explainTurn explains a wait for a slot of a model that is in memory, or nearly.
func (s *Scheduler) explainTurn(x *Explanation, p *pool, ask Ask, l line, now int64) {
	slots, ready := p.usable()
	kept := 0
	for _, q := range p.places {
		if q.why() == "" && q.model.State != schemas.Installed && ask.Flow != nil {
			kept += s.kept(p, ask.Flow.Class, q.model.Slots, now)
		}
	}
	turns := float64(l.own+1) / l.share
	each := 1000 * p.seconds
	wait := turnIn(remaining(l.ran, each, max(1, slots-kept)), each, float64(l.above)+turns)
	x.Next = "it begins when its turn comes"
	if l.above > 0 && s.policy.AgingMS > 0 {
		aging := s.policy.AgingMS * int64(ask.Flow.Class.Rank())
		wait = min(wait, turns*float64(aging))
		x.Next += "; however many come first, a job of its class begins about every " + duration(aging)
	}
	switch {
	case ready && kept > 0:
		x.Reason = fmt.Sprintf("the free slots of %s are kept for interactive jobs (%d of %d), and the others are busy", p.name, kept, slots) + l.String()
	case ready:
		x.Reason = fmt.Sprintf("all %d slots of %s are busy", slots, p.name) + l.String()
	default:
		x.Reason = p.name + " is being loaded" + l.String()
		wait += float64(loadTime(p))
	}
	if p.seconds > 0 || !ready { // else nobody knows yet how long its jobs take
		x.ETAMS = int64(wait)
	}
}

// remaining is how long the jobs still run that have the slots of a model, in ms, the
// first to end first. A job that ran for longer than they do on average runs for as long
// again; those of which nothing is known end one after the other within the average.
func remaining(ran []int64, each float64, slots int) []float64 {
	left := make([]float64, slots)
	for i := range left {
		left[i] = each * float64(i+1) / float64(slots)
		if i < len(ran) {
			if left[i] = each - float64(ran[i]); left[i] < 0 {
				left[i] = float64(ran[i])
			}
		}
	}
	slices.Sort(left)
	return left
}

// turnIn is when the nth job that waits begins, in ms from now: on slots that are free
// after a time, by jobs that each take so long. No fewer slots serve it than those that
// are free before it begins.
func turnIn(left []float64, each, n float64) float64 {
	soonest, sum := math.Inf(1), 0.0
	for i, l := range left {
		sum += l
		slots := float64(i + 1)
		soonest = min(soonest, max(l, (sum+(n-slots)*each)/slots))
	}
	return soonest
}

// explainLoad explains a wait for a load.
func explainLoad(x *Explanation, p *pool, before int, at outlook) {
	load := at.place.loadTime()
	x.Reason = p.name + " is not in memory"
	if at.place.model.Need.Known {
		x.Reason += fmt.Sprintf(", and needs %s", at.place.model.Need)
	}
	slots := float64(max(1, at.place.model.Slots))
	x.ETAMS = at.after + load + int64(float64(before)*1000*cmp.Or(p.seconds, 1)/slots)
	where := at.place.node.ID + "/" + at.place.backend.Name
	if at.after > 0 {
		x.Next = fmt.Sprintf("it is loaded on %s in about %s, which takes about %s", where, duration(at.after), duration(load))
	} else {
		x.Next = fmt.Sprintf("it is loaded on %s, which takes about %s", where, duration(load))
	}
}

// An outlook is when a place could begin with a job.
type outlook struct {
	place *place
	after int64  // ms from now; never: as things are, it can't
	why   string // it has not begun
	fix   string
}

// outlook says when and why not now a place takes a job.
func (s *Scheduler) outlook(q *place, ask Ask, now int64) outlook {
	o := outlook{place: q, after: never}
	unsuited := s.suits(q, ask, now)
	switch {
	case q.why() != "":
		o.why, o.fix = q.why(), fixOf(q)
	case unsuited != "" && unsuited != keptForOthers:
		o.why = unsuited
	case q.model.State == schemas.Loading && q.model.Busy >= q.model.Slots:
		o.why, o.after = fmt.Sprintf("is loading it, and all %d slots are taken", q.model.Slots), 0
	case q.model.Busy >= q.model.Slots:
		o.why, o.after = fmt.Sprintf("all %d slots are busy", q.model.Slots), 0
	case unsuited != "":
		o.why, o.after = unsuited, 0
	case q.model.State == schemas.Installed:
		return s.outlookLoad(q, ask, now)
	case q.model.State == schemas.Loading:
		o.why, o.after = "is loading it", 0
	default:
		o.why, o.after = "could take it now", 0
	}
	return o
}

// fixOf says what one could do about a place that takes no jobs.
func fixOf(q *place) string {
	switch {
	case strings.Contains(q.node.Closed, "draining"):
		return "have the node take jobs again: vramjet nodes undrain " + q.node.ID
	case q.node.Closed != "":
		return "look after the node " + q.node.ID + ": it is frozen, overloaded or cut off"
	case q.backend.Closed != "":
		return fmt.Sprintf("see what is wrong with the backend, on %s: vramjet backends check %s", q.node.ID, q.backend.Name)
	default:
		return ""
	}
}

// outlookLoad says when the model could be loaded at a place.
func (s *Scheduler) outlookLoad(q *place, ask Ask, now int64) outlook {
	o := outlook{place: q, after: 0, why: "could load it now"}
	if _, ok := s.considerLoad(q, ask, now); ok {
		if q.pool.target == q {
			o.why = "loads it when " + q.pool.leavers() + " are done"
			if len(q.pool.claims) == 1 {
				o.why = "loads it when " + q.pool.leavers() + " is done"
			}
		}
		return o
	}
	holders, pinned := s.holders(q, ask, now)
	need, spaces := ledger.Need{Bytes: q.model.Need, Split: q.backend.Split}, q.spaces()
	var gone []ledger.Candidate
	for _, h := range holders {
		gone = append(gone, h.Candidate)
		if _, _, ok := ledger.MakeRoom(need, spaces, gone); !ok {
			continue
		}
		name := h.place.model.Name
		if o.after = h.until - now; h.until == never {
			o.after = never
			o.why = fmt.Sprintf("needs %s: %s is in use, and more urgent", q.model.Need, name)
			o.fix = "submit the job with a more urgent class, or wait until " + name + " has no more jobs"
			return o
		}
		o.after = max(0, o.after)
		o.why = fmt.Sprintf("needs %s: %s is in use, and gives way in %s at the latest", q.model.Need, name, duration(o.after))
		return o
	}
	o.after = never
	o.why = fmt.Sprintf("needs %s, and %s can be freed", q.model.Need, room(ledger.Without(spaces, gone)))
	o.fix = fmt.Sprintf("%s needs a device with more memory, a smaller context or a smaller quantization; if it needs less than that, say so: models.%q.need", q.model.Name, q.model.Name)
	if len(pinned) > 0 {
		o.why += "; " + strings.Join(pinned, ", ") + " is pinned"
		o.fix = "let go what is pinned: vramjet models unpin " + pinned[0]
	}
	return o
}

// leavers names the models that give way for a pool.
func (d *demand) leavers() string {
	var names []string
	for _, q := range d.claims {
		names = append(names, q.model.Name)
	}
	return strings.Join(names, ", ")
}

// A holder is a model that has memory which a load could have, and until when.
type holder struct {
	victim
	until int64
}

// holders lists the models that could ever go for a load at a place, the first to go
// first, and those that are pinned.
func (s *Scheduler) holders(p *place, ask Ask, now int64) (all []holder, pinned []string) {
	for _, q := range p.node.loaded {
		if q == p || !q.backend.Loads || len(q.model.Held) == 0 {
			continue
		}
		if q.model.Pinned {
			pinned = append(pinned, q.model.Name)
			continue
		}
		h := holder{until: now}
		h.place, h.Candidate = q, ledger.Candidate{Victim: schemas.Victim{Backend: q.backend.Name, Model: q.model.Name}, Held: q.model.Held}
		if inUse(q, ask.Flow, now) {
			h.until = never
			if ask.Flow != nil {
				h.until = s.keepsUntil(q, p.pool, ask.Flow, now)
			}
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b holder) int {
		return cmp.Or(cmp.Compare(a.until, b.until), strings.Compare(a.Backend, b.Backend), strings.Compare(a.Model, b.Model))
	})
	slices.Sort(pinned)
	return all, pinned
}

// duration writes ms for people.
func duration(ms int64) string {
	s := (ms + 500) / 1000
	switch {
	case s < 1:
		return "a second"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	default:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	}
}
