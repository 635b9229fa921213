package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// A Path is a way that a job's events can go.
type Path string

// The paths.
const (
	Answered Path = "answered" // a token and an end go to the client
	Stored   Path = "stored"   // the end is stored, as that of a batch's job is, and read from the stream
)

// The names of the minimal path: no stream of vramjet has them.
const (
	minimalJobs    = "VJBENCH_JOBS"
	minimalResults = "VJBENCH_RESULTS"
	minimalJob     = "vjbench.job"
	minimalWaiting = "vjbench.waiting"
	minimalRun     = "vjbench.run"
	minimalDone    = "vjbench.done"
	minimalTold    = "vjbench.told"
	minimalEvents  = "vjbench.events"
	minimalEnds    = "vjbench.results."
	minimalPull    = "$JS.API.CONSUMER.MSG.NEXT." + minimalJobs + ".c"
	minimalLastEnd = "$JS.API.DIRECT.GET." + minimalResults + "."
)

// MinimalStreams lists the streams of the minimal path.
var MinimalStreams = []string{minimalJobs, minimalResults}

// answerWithin is how long a part of the minimal path waits for an answer.
const answerWithin = 10 * time.Second

// A Minimal is the path of a job with the same NATS calls as vramjet's and no
// decision, no check and no backend: the bound for what vramjet can do on a server. Its
// parts are a "dispatcher" and a "worker", each of which PlayMinimal plays.
type Minimal struct {
	Events chan struct{} // has an element for each event that the client gets
	PerJob int           // how many it gets of a job
	js     jetstream.JetStream
	stop   func()
}

// NewMinimal makes the streams of the minimal path, and listens for the events of its
// jobs. nc is the client's connection.
func NewMinimal(ctx context.Context, nc *nats.Conn, path Path, replicas int) (*Minimal, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	m := &Minimal{js: js, Events: make(chan struct{}, 1<<16), PerJob: 1}
	for _, cfg := range []jetstream.StreamConfig{
		{
			Name: minimalJobs, Subjects: []string{minimalJob}, Retention: jetstream.WorkQueuePolicy, Replicas: replicas,
			RePublish: &jetstream.RePublish{Source: minimalJob, Destination: minimalWaiting, HeadersOnly: true},
		},
		{Name: minimalResults, Subjects: []string{minimalEnds + ">"}, AllowDirect: true, Replicas: replicas},
	} {
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return nil, fmt.Errorf("make the stream %s: %w", cfg.Name, err)
		}
	}
	if _, err := js.CreateOrUpdateConsumer(ctx, minimalJobs, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1}); err != nil {
		return nil, fmt.Errorf("make the consumer of the minimal path: %w", err)
	}
	if path == Answered {
		m.PerJob = 2
		sub, err := listen(nc, minimalEvents, func(*nats.Msg) { m.Events <- struct{}{} })
		m.stop = func() { _ = sub.Unsubscribe() }
		return m, err
	}
	ends, err := js.OrderedConsumer(ctx, minimalResults, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{minimalEnds + "*.end"}, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	if err != nil {
		return nil, fmt.Errorf("read the ends of the minimal path: %w", err)
	}
	reading, err := ends.Consume(func(jetstream.Msg) { m.Events <- struct{}{} })
	if err != nil {
		return nil, fmt.Errorf("read the ends of the minimal path: %w", err)
	}
	m.stop = reading.Stop
	return m, nil
}

// Submit submits a job with a body.
func (m *Minimal) Submit(body []byte) error {
	_, err := m.js.PublishAsync(minimalJob, body, jetstream.WithStallWait(answerWithin))
	return err
}

// Close stops listening.
func (m *Minimal) Close() { m.stop() }

// PlayMinimal plays a part of the minimal path until nc is closed. backend is the URL
// that a worker asks for an embedding for each job of the path Stored; "": it asks
// nobody.
func PlayMinimal(path Path, part string, nc *nats.Conn, backend string) error {
	switch {
	case path == Answered && part == "dispatcher":
		return playDispatcher(nc)
	case path == Answered:
		return playWorker(nc)
	case part == "dispatcher":
		return playStoredDispatcher(nc)
	default:
		return playStoredWorker(nc, backend)
	}
}

// playDispatcher pulls a job for each hint, offers it, and passes the ack subject on.
func playDispatcher(nc *nats.Conn) error {
	inbox := nc.NewInbox()
	if _, err := listen(nc, minimalWaiting, func(*nats.Msg) { pull(nc, inbox) }); err != nil {
		return err
	}
	_, err := listen(nc, inbox, func(job *nats.Msg) {
		if job.Reply == "" {
			return
		}
		go func() {
			if r, err := nc.Request(minimalRun, job.Data, answerWithin); err == nil {
				_ = r.Respond([]byte(job.Reply))
			}
		}()
	})
	return err
}

// playStoredDispatcher is playDispatcher for jobs that have a name: it asks whether they
// ended already, hears that they have, and tells anyone who listens of each step.
func playStoredDispatcher(nc *nats.Conn) error {
	inbox := nc.NewInbox()
	event := []byte(`{"event":"started","job":"bt-0123456789-1","model":"embed","class":"batch","at":"2026-01-01T00:00:00Z"}`)
	if _, err := listen(nc, minimalWaiting, func(*nats.Msg) {
		_ = nc.Publish(minimalTold, event)
		pull(nc, inbox)
	}); err != nil {
		return err
	}
	if _, err := listen(nc, inbox, func(job *nats.Msg) {
		if job.Reply == "" {
			return
		}
		go func() {
			if _, err := nc.Request(minimalLastEnd+minimalEnds+nuid.Next()+".end", nil, answerWithin); err != nil {
				return
			}
			if r, err := nc.Request(minimalRun, job.Data, answerWithin); err == nil {
				_ = r.Respond([]byte(job.Reply))
				_ = nc.Publish(minimalTold, event)
			}
		}()
	}); err != nil {
		return err
	}
	_, err := listen(nc, minimalDone, func(*nats.Msg) { _ = nc.Publish(minimalTold, event) })
	return err
}

// pull asks for one job.
func pull(nc *nats.Conn, inbox string) {
	_ = nc.PublishRequest(minimalPull, inbox, []byte(`{"batch":1,"expires":5000000000}`))
}

// playWorker accepts each offer, and on its go publishes a token and an end and acks.
func playWorker(nc *nats.Conn) error {
	return accept(nc, func(ack string) {
		token, end := Chunk(minimalEvents), Chunk(minimalEvents)
		end.Header["Vj-Event"] = []string{"end"}
		_ = nc.PublishMsg(token)
		_ = nc.PublishMsg(end)
		go func() { _, _ = nc.Request(ack, []byte("+ACK"), answerWithin) }()
	})
}

// playStoredWorker is playWorker for jobs whose events are stored, the end with a
// confirmation and if it is the first. It says that it is done.
func playStoredWorker(nc *nats.Conn, backend string) error {
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	return accept(nc, func(ack string) {
		job := minimalEnds + nuid.Next()
		go func() {
			_ = nc.PublishMsg(Chunk(job + ".event"))
			end := Chunk(job + ".end")
			if backend != "" {
				body, err := embed(web, backend)
				if err != nil {
					return // and the job ends never, which shows
				}
				end.Data = body
			}
			end.Header["Nats-Expected-Last-Subject-Sequence"] = []string{"0"}
			_ = nc.Publish(minimalDone, []byte(`{"job":"bt-0123456789-1","node":"bench","attempt":1,"status":"ok"}`))
			_, _ = nc.RequestMsg(end, answerWithin)
			_, _ = nc.Request(ack, []byte("+ACK"), answerWithin)
		}()
	})
}

// accept accepts each offer, and calls run with the ack subject that its go brings.
func accept(nc *nats.Conn, run func(ack string)) error {
	goes := nc.NewInbox()
	var offers atomic.Int64
	if _, err := listen(nc, minimalRun, func(offer *nats.Msg) {
		_ = nc.PublishRequest(offer.Reply, goes+"."+strconv.FormatInt(offers.Add(1), 10), []byte("+OK"))
	}); err != nil {
		return err
	}
	_, err := listen(nc, goes+".*", func(g *nats.Msg) { run(string(g.Data)) })
	return err
}

// embed has a text embedded, and returns the answer.
func embed(web *http.Client, backend string) ([]byte, error) {
	resp, err := web.Post(backend+"/v1/embeddings", "application/json", strings.NewReader(`{"model":"embed","input":"the text of line 1"}`)) //nolint:noctx // a part of a measurement, which ends with its process
	if err != nil {
		return nil, fmt.Errorf("ask the backend: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the backend answers %s", resp.Status)
	}
	return body, err
}

// listen subscribes, whatever piles up, and returns when the server knows of it.
func listen(nc *nats.Conn, subject string, h nats.MsgHandler) (*nats.Subscription, error) {
	sub, err := nc.Subscribe(subject, h)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", subject, err)
	}
	return sub, nil
}

// Chunk is a message like those of a stream of tokens.
func Chunk(subject string) *nats.Msg {
	return &nats.Msg{
		Subject: subject,
		Header:  nats.Header{"Vj-Event": {"chunk"}, "Vj-Job": {"12345"}, "Vj-Attempt": {"1"}, "Vj-Seq": {"17"}},
		Data:    []byte(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"bench","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}`),
	}
}
