package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// answerTokens is how many tokens an answer has whose first is waited for.
const answerTokens = 10

// pace is how many answers end a second, at any number of streams but one: few enough
// that the first token waits for its way, and not for a processor that has too much to do.
const pace = 250

// paced is the time between two tokens of answers of which so many run at a time.
func paced(streams int) time.Duration {
	return max(time.Millisecond, time.Duration(streams)*time.Second/(pace*answerTokens))
}

// pacedModel is the model of paced.
func pacedModel(streams int) string { return "vramjet-bench-paced-" + strconv.Itoa(streams) }

// firstToken measures how much later the first token comes than it would by a call of
// the model server, beside a request and its reply over NATS, and a publish to a stream, as
// many in a second.
func firstToken(ctx context.Context, s *site, r *Result) error {
	if err := s.dispatch(ctx, nil); err != nil {
		return err
	}
	var models []sim.Model
	for _, n := range atOnce {
		models = append(models, sim.Model{Name: pacedModel(n), Slots: n, TokenInterval: paced(n)})
	}
	url, err := s.serve(ctx, models...)
	if err != nil {
		return err
	}
	if err := s.echo(ctx); err != nil {
		return err
	}
	if err := s.stream(ctx, jetstream.StreamConfig{Name: rawJobs, Subjects: []string{rawJob}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		return err
	}
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce[len(atOnce)-1]}}
	defer web.CloseIdleConnections()
	for _, n := range atOnce {
		if err := s.firstTokens(ctx, r, n, web, url); err != nil {
			return err
		}
	}
	return nil
}

// firstTokens measures so many streams at a time.
func (s *site) firstTokens(ctx context.Context, r *Result, streams int, web *http.Client, url string) error {
	answer := answerTokens * paced(streams)
	l := load{inFlight: streams, time: s.Time, spread: answer}
	s.Progress(fmt.Sprintf("ttft: NATS alone, %d in flight", streams))
	asked, err := l.run(ctx, rested(answer, timed(s.ask)))
	if err != nil {
		return err
	}
	stored, err := l.run(ctx, rested(answer, timed(s.store)))
	if err != nil {
		return err
	}
	s.Progress(fmt.Sprintf("ttft: direct calls, %d streams", streams))
	direct, err := l.run(ctx, func(ctx context.Context) (time.Duration, error) {
		return callDirect(ctx, web, url, pacedModel(streams))
	})
	if err != nil {
		return err
	}
	s.Progress(fmt.Sprintf("ttft: %d streams", streams))
	job := client.Job{Model: pacedModel(streams), Body: chat(answerTokens), Class: schemas.Interactive, Inbox: true}
	queued, err := l.run(ctx, func(ctx context.Context) (first time.Duration, err error) {
		began := time.Now()
		err = s.read(ctx, job, func([]byte) {
			if first == 0 {
				first = time.Since(began)
			}
		})
		return first, err
	})
	if err != nil {
		return err
	}
	for _, p := range []float64{50, 99} {
		name := fmt.Sprintf(", p%.0f", p)
		r.add("first token by a direct call"+name, streams, millis(direct.at(p)), Milliseconds)
		r.add("first token"+name, streams, millis(queued.at(p)), Milliseconds)
		r.add("added"+name, streams, millis(queued.at(p)-direct.at(p)), Milliseconds).beside("request and reply"+name, millis(asked.at(p)))
		r.add("a publish to a stream"+name, streams, millis(stored.at(p)), Milliseconds)
	}
	return nil
}

// rested makes a call, and then rests for as long as an answer takes.
func rested(d time.Duration, call func(context.Context) (time.Duration, error)) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		took, err := call(ctx)
		if err != nil {
			return 0, err
		}
		return took, pause(ctx, d)
	}
}

// callDirect calls the model server, reads the answer to its end, and returns how long the
// first token took.
func callDirect(ctx context.Context, web *http.Client, url, model string) (time.Duration, error) {
	body := bytes.Replace(chat(answerTokens), []byte("{"), fmt.Appendf(nil, `{"model":%q,`, model), 1)
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("call the model server: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := web.Do(req)
	if err != nil {
		return 0, fmt.Errorf("call the model server: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the model server answers %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Scan()
	first := time.Since(began)
	for lines.Scan() { // the connection is used again only after the whole answer
	}
	return first, lines.Err()
}

// echoSubject is where somebody answers at once.
const echoSubject = "vjbench.echo"

// echo answers requests from a connection of its own, with a chunk.
func (s *site) echo(ctx context.Context) error {
	nc, err := s.connect(ctx)
	if err != nil {
		return err
	}
	answer := Chunk("").Data
	_, err = listen(nc, echoSubject, func(m *nats.Msg) { _ = m.Respond(answer) })
	return err
}

// ask makes a request of the size of a job.
func (s *site) ask(ctx context.Context) error {
	_, err := s.nc.RequestWithContext(ctx, echoSubject, chat(answerTokens))
	return err
}

// store publishes a message of the size of a job to a stream.
func (s *site) store(ctx context.Context) error {
	_, err := s.js.Publish(ctx, rawJob, chat(answerTokens))
	return err
}
