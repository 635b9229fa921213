package worker

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/vramjet/vramjet/schemas"
)

// serviceName is what "nats micro ls" shows.
const serviceName = "vramjet-worker"

// goSubject is where the go of an accepted offer is sent.
func (w *Worker) goSubject(number uint64) string {
	return w.inbox + ".go." + strconv.FormatUint(number, 10)
}

// probeSubject, with the number of a probe behind it, is where the server says
// that nobody heard it.
func (w *Worker) probeSubject(number uint64) string {
	return w.inbox + ".gone." + strconv.FormatUint(number, 10) + "-"
}

// listen subscribes to everything that the node is told. What it returns undoes
// that.
func (w *Worker) listen() (stop func(), err error) {
	service, err := micro.AddService(w.nc, micro.Config{
		Name:        serviceName,
		Version:     semantic(w.cfg.Version),
		Description: "runs LLM jobs on the model servers of one machine",
		Metadata:    map[string]string{"node": w.cfg.Node, "version": w.cfg.Version},
	})
	if err != nil {
		return nil, fmt.Errorf("announce the node: %w", err)
	}
	var subs []*nats.Subscription
	stop = func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // the connection is closed: nothing to undo
		}
		_ = service.Stop()
	}
	for name, handler := range map[string]micro.HandlerFunc{"run": w.onlyAsked(w.onOffer), "control": w.onlyAsked(w.onControl)} {
		err := service.AddEndpoint(name, handler,
			micro.WithEndpointSubject(schemas.NodeSubject(w.cfg.Node, name)),
			micro.WithEndpointQueueGroupDisabled())
		if err != nil {
			stop()
			return nil, fmt.Errorf("listen for %s: %w", name, err)
		}
	}
	for subject, handler := range map[string]nats.MsgHandler{
		w.inbox + ".go.*":            w.onGo,
		w.inbox + ".gone.*":          w.onGone,
		schemas.CancelPrefix + "*.*": w.onCancel,
		schemas.NodesPing:            func(*nats.Msg) { w.send(pinged{}) },
	} {
		s, err := w.nc.Subscribe(subject, handler)
		if err != nil {
			stop()
			return nil, fmt.Errorf("listen on %s: %w", subject, err)
		}
		subs = append(subs, s)
	}
	return stop, nil
}

var semanticVersion = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// semantic returns v as NATS micro wants a version, "0.0.0" where it is none.
func semantic(v string) string {
	v = strings.TrimPrefix(v, "v")
	if semanticVersion.MatchString(v) {
		return v
	}
	return "0.0.0"
}

// onlyAsked leaves out what would have the node do, or publish, what its sender may not.
func (w *Worker) onlyAsked(do micro.HandlerFunc) micro.HandlerFunc {
	return func(r micro.Request) {
		if err := schemas.CheckAsker(r.Reply()); err != nil || schemas.FromJetStream(r.Headers().Get, r.Reply()) {
			w.cfg.Logger.Warn("a request is not answered", "subject", r.Subject(), "reply", r.Reply())
			return
		}
		do(r)
	}
}

// onOffer reads an offer, away from the owner, and hands it on. The owner
// answers: micro's own answer is not for another goroutine.
func (w *Worker) onOffer(req micro.Request) {
	o, err := readOffer(nats.Header(req.Headers()), req.Data(), req.Reply())
	if err != nil {
		w.cfg.Logger.Warn("offer cannot be read", "err", err)
		_ = req.RespondJSON(schemas.OfferAnswer{Reason: err.Error()}) // micro counts the error
		return
	}
	w.send(offered{o})
}

// onGo reads the go of an accepted offer.
func (w *Worker) onGo(msg *nats.Msg) {
	number, err := strconv.ParseUint(lastToken(msg.Subject), 10, 64)
	if err != nil {
		return
	}
	if len(msg.Data) == 0 {
		if msg.Header.Get("Status") == noResponders {
			w.send(disowned{number})
		}
		return
	}
	left, err := strconv.ParseInt(msg.Header.Get(schemas.HeaderLease), 10, 64)
	if err != nil {
		w.cfg.Logger.Warn("go says nothing of its lease", "err", err)
		return
	}
	left = min(left, w.pace.lease.Milliseconds()) // no lease lasts longer
	w.send(claim{number: number, ack: string(msg.Data), lease: time.Duration(left) * time.Millisecond})
}

// onCancel reads a cancel.
func (w *Worker) onCancel(msg *nats.Msg) {
	tenant, job, ok := strings.Cut(strings.TrimPrefix(msg.Subject, schemas.CancelPrefix), ".")
	if !ok || schemas.FromJetStream(msg.Header.Get, msg.Reply) {
		return
	}
	m := cancelled{tenant: tenant, job: job}
	if len(msg.Data) > 0 {
		if err := json.Unmarshal(msg.Data, &m.Cancel); err != nil {
			w.cfg.Logger.Warn("cancel cannot be read", "job", job, "err", err)
			return
		}
	}
	w.send(m)
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
