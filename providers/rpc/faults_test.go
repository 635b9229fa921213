package rpc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// deadline is far more than any of these tests takes.
const deadline = 20 * time.Second

// answerer starts a service that answers each generate as answer does, and returns a
// provider for it.
func answerer(t *testing.T, answer func(nc *nats.Conn, m *nats.Msg)) providers.Provider {
	t.Helper()
	srv := brokertest.Start(t)
	nc := brokertest.Connect(t, srv)
	_, err := nc.QueueSubscribe(schemas.RPCSubject("test", schemas.RPCGenerate), "q", func(m *nats.Msg) { answer(nc, m) })
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return provider(t, srv, "test")
}

// say answers a request with messages, numbered from first; -1: they have no numbers.
func say(nc *nats.Conn, m *nats.Msg, first int, texts ...string) {
	for i, text := range texts {
		answer := nats.NewMsg(m.Reply)
		answer.Data = []byte(strings.TrimSpace(text))
		if first >= 0 {
			answer.Header.Set(schemas.HeaderSeq, strconv.Itoa(first+i))
		}
		_ = nc.PublishMsg(answer) // what is lost shows in the test
	}
}

// generate runs a chat and returns the text of its chunks.
func generate(t *testing.T, p providers.Provider, lim providers.Limits) (text string, a providers.Answer, err error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), deadline)
	defer stop()
	req := providers.Request{Kind: schemas.Chat, Model: "m", Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`), Limits: lim}
	a, err = p.Generate(ctx, req, func(chunk []byte) error {
		_, rest, _ := strings.Cut(string(chunk), `"content":"`)
		word, _, _ := strings.Cut(rest, `"`)
		text += word
		return nil
	})
	return text, a, err
}

func wantCode(t *testing.T, err error, want schemas.Code, words string) {
	t.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || e.Code != want || !strings.Contains(e.Message, words) {
		t.Errorf("the error is %v, want %s with %q", err, want, words)
	}
}

// TestFaults: what a service must never do, and some do.
func TestFaults(t *testing.T) {
	one, two := dialect.Chunk("one"), dialect.Chunk("two")
	silence := providers.Limits{BetweenChunks: 200 * time.Millisecond}
	for name, c := range map[string]struct {
		first int
		says  []string
		lim   providers.Limits
		text  string
		code  schemas.Code // "": the answer is whole
		words string
	}{
		"it dies in mid-stream":           {-1, []string{one}, silence, "one", schemas.StreamBroken, "between_chunks"},
		"it dies before its end":          {0, []string{one, finish}, silence, "one", schemas.StreamBroken, "between_chunks"},
		"garbage":                         {-1, []string{one, `{"choices":[`}, providers.Limits{}, "one", schemas.UpstreamError, "not a JSON object"},
		"garbage first":                   {-1, []string{"\xff\x00"}, providers.Limits{}, "", schemas.UpstreamError, "not a JSON object"},
		"not an object":                   {-1, []string{`[]`}, providers.Limits{}, "", schemas.UpstreamError, "not a JSON object"},
		"the end before any choice":       {-1, []string{done}, providers.Limits{}, "", schemas.StreamBroken, "final marker"},
		"the end before any choice, late": {0, []string{`{"choices":[]}`, done}, providers.Limits{}, "", schemas.StreamBroken, "final marker"},
		"chunks after the end":            {0, []string{one, finish, done, two, done, dialect.Error}, providers.Limits{}, "one", "", ""},
		"no numbers":                      {-1, []string{one, two, finish, done}, providers.Limits{}, "onetwo", "", ""},
		"numbers":                         {0, []string{one, "", two, finish, done}, providers.Limits{}, "onetwo", "", ""},
		"numbers from 1":                  {1, []string{one}, providers.Limits{}, "", schemas.StreamBroken, "number 1 came where 0 was due"},
		"an error after a choice's end":   {0, []string{one, finish, dialect.Error}, providers.Limits{}, "one", schemas.UpstreamError, "it broke"},
	} {
		t.Run(name, func(t *testing.T) {
			p := answerer(t, func(nc *nats.Conn, m *nats.Msg) { say(nc, m, c.first, c.says...) })
			text, a, err := generate(t, p, c.lim)
			if text != c.text {
				t.Errorf("the chunks say %q, want %q", text, c.text)
			}
			if c.code != "" {
				wantCode(t, err, c.code, c.words)
				return
			}
			if err != nil || !strings.Contains(string(a.Body), `"content":"`+c.text+`"`) {
				t.Errorf("the answer is %s, %v", a.Body, err)
			}
		})
	}
	if !t.Failed() {
		proofs.Add(providers.KindRPC, providertest.Faults, providertest.Scripted)
	}
}

// TestLostMessage: a gap in the numbers ends the answer at once, wherever it is.
func TestLostMessage(t *testing.T) {
	all := []string{dialect.Chunk("one"), dialect.Chunk("two"), finish, done}
	for gap := range all {
		p := answerer(t, func(nc *nats.Conn, m *nats.Msg) {
			say(nc, m, 0, all[:gap]...)
			say(nc, m, gap+1, append(all[gap+1:len(all):len(all)], dialect.Comment)...)
		})
		text, _, err := generate(t, p, providers.Limits{})
		wantCode(t, err, schemas.StreamBroken, "may be lost")
		if !strings.HasPrefix("onetwo", text) {
			t.Errorf("a gap at %d: got %q", gap, text)
		}
	}
}

// TestReconnect: where the connection broke in mid-stream, only numbers can tell that
// nothing was lost.
func TestReconnect(t *testing.T) {
	for first, want := range map[int]schemas.Code{-1: schemas.StreamBroken, 0: ""} {
		srv := brokertest.Start(t)
		theirs, ours := brokertest.Connect(t, srv), brokertest.Connect(t, srv)
		back := make(chan struct{})
		if _, err := theirs.Subscribe(schemas.RPCSubject("test", schemas.RPCGenerate), func(m *nats.Msg) {
			say(theirs, m, first, dialect.Chunk("one"))
			<-back
			say(theirs, m, 2*first+1, finish, done) // -1, or what comes after 0
		}); err != nil {
			t.Fatal(err)
		}
		if err := theirs.Flush(); err != nil {
			t.Fatal(err)
		}
		p := providerOn(t, ours, "test")
		req := providers.Request{Kind: schemas.Chat, Model: "m", Body: []byte(`{"messages":[]}`)}
		ctx, stop := context.WithTimeout(t.Context(), deadline)
		defer stop()
		_, err := p.Generate(ctx, req, func(chunk []byte) error {
			if !strings.Contains(string(chunk), "one") {
				return nil
			}
			status := ours.StatusChanged(nats.CONNECTED)
			defer ours.RemoveStatusListener(status)
			if err := ours.ForceReconnect(); err != nil {
				return err
			}
			<-status
			if err := ours.FlushTimeout(deadline); err != nil { // the subscription is there again
				return err
			}
			close(back)
			return nil
		})
		if want == "" && err != nil {
			t.Errorf("with numbers: %v", err)
		}
		if want != "" {
			wantCode(t, err, want, "the connection to NATS broke")
		}
	}
}

// TestInstances: requests are spread over the instances of a service, and each answer
// is of one of them.
func TestInstances(t *testing.T) {
	srv := brokertest.Start(t)
	var asked [2]atomic.Int64
	instance := func(i int, text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked[i].Add(1)
			for range 20 {
				_, _ = io.WriteString(w, dialect.Chunk(text))
			}
			_, _ = io.WriteString(w, finish+done)
		})
	}
	p := serve(t, srv, instance(0, "a"), instance(1, "b"))
	for range 50 {
		text, _, err := generate(t, p, providers.Limits{})
		if err != nil || text != strings.Repeat(text[:1], 20) {
			t.Fatalf("got %q, %v", text, err)
		}
	}
	if asked[0].Load() == 0 || asked[1].Load() == 0 || asked[0].Load()+asked[1].Load() != 50 {
		t.Errorf("the instances were asked %d and %d times", asked[0].Load(), asked[1].Load())
	}
}

// TestCancelIsHeardByAll: whichever instance runs the request hears that it is given
// up, soon.
func TestCancelIsHeardByAll(t *testing.T) {
	srv := brokertest.Start(t)
	left := make(chan time.Time, 1)
	hold := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, dialect.Chunk("a"))
		<-r.Context().Done()
		left <- time.Now()
	})
	p := serve(t, srv, hold, hold, hold)
	fastest := deadline
	for range 5 {
		mine := errors.New("enough")
		var gaveUp time.Time
		_, err := p.Generate(t.Context(), providers.Request{Kind: schemas.Chat, Model: "m", Body: []byte(`{}`)}, func([]byte) error {
			gaveUp = time.Now()
			return mine
		})
		if err != mine { //nolint:errorlint // as it is, not wrapped
			t.Fatalf("the error is %v", err)
		}
		select {
		case at := <-left:
			fastest = min(fastest, at.Sub(gaveUp))
		case <-time.After(deadline):
			t.Fatal("the service was not told")
		}
	}
	if fastest > 50*time.Millisecond {
		t.Errorf("the service was told after %s", fastest)
	}
}

// TestSlowReader: a service that is much faster than the reader loses nothing, as far
// as there is room, and never says less than that.
func TestSlowReader(t *testing.T) {
	const chunks = 20_000
	p := answerer(t, func(nc *nats.Conn, m *nats.Msg) {
		for range chunks {
			say(nc, m, -1, dialect.Chunk("a"))
		}
		say(nc, m, -1, finish, done)
	})
	text, _, err := generate(t, p, providers.Limits{})
	if err != nil || len(text) != chunks {
		t.Errorf("%d chunks of %d, %v", len(text), chunks, err)
	}
}

// TestReaderThatStopped: what there is no room for is missed, and never passed over.
func TestReaderThatStopped(t *testing.T) {
	srv := brokertest.Start(t)
	theirs, ours := brokertest.Connect(t, srv), brokertest.Connect(t, srv)
	sent := make(chan struct{})
	chunk := dialect.Chunk(strings.Repeat("a", 1<<20))
	if _, err := theirs.Subscribe(schemas.RPCSubject("test", schemas.RPCGenerate), func(m *nats.Msg) {
		for range nats.DefaultSubPendingBytesLimit>>20 + 8 {
			say(theirs, m, -1, chunk)
		}
		say(theirs, m, -1, finish, done)
		if err := theirs.FlushTimeout(deadline); err != nil {
			t.Error(err)
		}
		close(sent)
	}); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err := providerOn(t, ours, "test").Generate(t.Context(), providers.Request{Kind: schemas.Chat, Model: "m", Body: []byte(`{}`)}, func([]byte) error {
		<-sent
		return ours.FlushTimeout(deadline)
	})
	wantCode(t, err, schemas.StreamBroken, "faster than they were read")
}
